"""How a run goes, on standard error: a live bar, lines of a log, or nothing; events beside it."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, TextIO, TypedDict, Unpack

from joyflash_cli.cli.events import EventStream

if TYPE_CHECKING:
    import numpy as np

    from joyflash_cli.batch.runner import BatchStatus
    from joyflash_cli.types import FrameChunk

PLAIN_EVERY_S = 10.0
"""Between two lines of a log, and between two heartbeats while nothing comes."""

LONG_WAIT_S = 2.0
"""A live display says so only beyond this."""


class Standing(TypedDict, total=False):
    """Where a run stands, in numbers.

    Attributes:
        done: How much is done.
        total: Of how much; ``None`` while unknown.
        left_s: Seconds until the end; ``None`` while unknown.
        due: Whether a log gets a line now; by default it does once in ten seconds.
    """

    done: float | None
    total: float | None
    left_s: float | None
    due: bool


class Display:
    """What people see of a run; this one shows nothing.

    A context manager whose end removes what is transient.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, text: str, **standing: Unpack[Standing]) -> None:
        """Where the run stands now, in words and numbers."""

    def say(self, line: str) -> None:
        """A line that stays."""

    def show_frame(self, frame: "np.ndarray") -> None:
        """The newest frame ``(H, W, 3)`` uint8, for displays that show pictures."""


class Lines(Display):
    """A plain line every ten seconds, for logs and pipes.

    Args:
        title: Begins each line.
        stream: Where they go.
        clock: Seconds that only grow.
    """

    def __init__(
        self, title: str, stream: TextIO, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._title = title
        self._stream = stream
        self._clock = clock
        self._next_s = clock() + PLAIN_EVERY_S

    def show(self, text: str, **standing: Unpack[Standing]) -> None:
        """Writes the line when its time has come."""
        due = standing.get("due")
        if due is False:
            return
        now = self._clock()
        if due or now >= self._next_s:
            self._next_s = now + PLAIN_EVERY_S
            left_s = standing.get("left_s")
            left = "" if left_s is None else f", {left_s:.0f} s left"
            self.say(f"{self._title}: {text}{left}")

    def say(self, line: str) -> None:
        """Writes a line in one call: several threads may have something to say."""
        self._stream.write(f"{line}\n")
        self._stream.flush()


class Bar(Display):
    """A live bar on a terminal."""

    def __init__(self, title: str) -> None:
        from rich.progress import BarColumn, TextColumn

        words = TextColumn("{task.description}", markup=False)
        self._bar = rich_progress(TextColumn(title), BarColumn(bar_width=None), words)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, text: str, **standing: Unpack[Standing]) -> None:
        """Moves the bar and changes its text."""
        left_s = standing.get("left_s")
        if left_s is not None:
            minutes, seconds = divmod(round(left_s), 60)
            text += f", {minutes}:{seconds:02d} left"
        done, total = standing.get("done"), standing.get("total")
        self._bar.update(self._task, completed=done, total=total, description=text)

    def say(self, line: str) -> None:
        """Writes a line above the bar."""
        self._bar.console.print(line, markup=False, highlight=False)


def rich_progress(*columns: Any) -> Any:
    """Rich's bars on standard error, gone when they are stopped."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True), transient=True)


def is_live(stream: TextIO) -> bool:
    """Whether a bar can move on a stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def open_display(
    title: str, *, quiet: bool, kind: str = "auto", stream: TextIO | None = None
) -> Display:
    """The display that suits a stream, or the one that was asked for.

    Args:
        title: What is shown, such as ``render``.
        quiet: Nothing is shown.
        kind: As given with ``--progress``; ``json`` shows people nothing.
        stream: Standard error if ``None``.
    """
    stream = stream or sys.stderr
    if quiet or kind in ("json", "none"):
        return Display()
    if kind == "bar" or (kind == "auto" and is_live(stream)):
        return Bar(title)
    return Lines(title, stream)


class RenderProgress:
    """Tells people and programs how a render goes.

    Args:
        num_frames: Frames of the whole video, ``None`` while unknown.
        fps: Frames per second.
        display: What people see, opened and closed by somebody else.
        events: What programs read.
    """

    def __init__(
        self, num_frames: int | None, fps: float, display: Display, events: EventStream
    ) -> None:
        self._num_frames = num_frames
        self._fps = fps
        self._display = display
        self._events = events
        self._first: FrameChunk | None = None
        self._frames_done = 0
        self._next_wait_s = PLAIN_EVERY_S

    def loading(self, what: str, warnings: Sequence[str] = ()) -> None:
        """The run begins; weights are being read, which is short: a log needs no line for it."""
        self._events.emit("start", total_frames=self._num_frames, video_fps=self._fps)
        for warning in warnings:
            self._events.emit("warn", text=warning)
        self._events.emit("load", profile=what)
        self._display.show(f"loading {what}", total=self._num_frames, due=False)

    def update(self, chunk: "FrameChunk") -> None:
        """One more block was written."""
        self._frames_done = chunk.first_frame + len(chunk.frames)
        # The ramp before the first block costs as much as several blocks: leave it out of the
        # speed as soon as there is more to measure, or the time left would be far too long.
        frames, seconds = self._frames_done, chunk.elapsed_s
        if self._first is None:
            self._first = chunk
        else:
            frames -= self._first.first_frame + len(self._first.frames)
            seconds -= self._first.elapsed_s
        frames_per_s = frames / seconds if seconds > 0 else 0.0
        left_s = None
        if self._num_frames is not None:
            left = self._num_frames - self._frames_done
            left_s = left / frames_per_s if frames_per_s > 0 else 0.0
        realtime = frames_per_s / self._fps
        self._next_wait_s = PLAIN_EVERY_S
        self._events.emit(
            "block",
            block=chunk.index + 1,
            blocks=chunk.num_blocks,
            frames=self._frames_done,
            fps=round(frames_per_s, 2),
            realtime_factor=round(realtime, 3),
            eta_s=None if left_s is None else round(left_s, 1),
        )
        if len(chunk.frames):
            self._display.show_frame(chunk.frames[-1])
        self._display.show(
            f"block {chunk.index + 1}/{chunk.num_blocks or '?'}, {self._frames_done} frames, "
            f"{frames_per_s:.1f} fps, {realtime:.2f}x realtime",
            done=self._frames_done,
            left_s=left_s,
        )

    def waiting(self, waited_s: float) -> None:
        """Nothing was ready for so many seconds; told a few times a second."""
        is_due = waited_s >= self._next_wait_s
        if is_due:
            self._next_wait_s = waited_s + PLAIN_EVERY_S
            self._events.emit("wait", waited_s=round(waited_s, 1), frames=self._frames_done)
        if waited_s >= LONG_WAIT_S:
            # Only live sound makes a render wait for long; a slow device is waited for alike.
            what = "sound" if self._num_frames is None else "the next block"
            text = f"waiting for {what}, {waited_s:.0f} s; {self._frames_done} frames written"
            self._display.show(text, due=is_due)


_TOLD = ("video_s", "audio_s", "wall_s", "realtime_factor", "video_frames", "sha256")
"""Figures of a video that has just been made."""


class BatchProgress:
    """Tells people and programs what becomes of the rows.

    The events ``start`` and, every ten seconds, ``rows`` count; ``saved`` and ``error`` name a row
    as ``job``.

    Args:
        display: What people see, opened and closed by somebody else.
        events: What programs read.
        clock: Seconds that only grow.
    """

    def __init__(
        self, display: Display, events: EventStream, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._display = display
        self._events = events
        self._clock = clock
        self._next_s: float | None = None

    def update(self, status: "BatchStatus") -> None:
        """Something changed, or half a second has passed."""
        counts = {
            "rows": status.num_rows,
            "done": status.num_done,
            "failed": status.num_failed,
            "running": status.num_running,
            "open": status.num_open,
        }
        now = self._clock()
        if self._next_s is None or now >= self._next_s:
            self._events.emit("start" if self._next_s is None else "rows", **counts)
            self._next_s = now + PLAIN_EVERY_S
        row_id, output, failure = status.last or ("", "", None)
        if failure is not None:
            found = {"code": failure.code, "text": failure.text}
            self._events.emit("error", job=row_id, **found, **counts)
            self._display.say(f"batch: row {row_id!r} failed: {failure.code}: {failure.text}")
        elif status.last is not None:
            found = {name: status.facts[name] for name in _TOLD if name in status.facts}
            self._events.emit("saved", job=row_id, output=output, **found, **counts)
        settled = status.num_done + status.num_failed
        self._display.show(_describe(status), done=settled, total=status.num_rows)


def _describe(status: "BatchStatus") -> str:
    """``41/100 done, 1 failed, 2 running, 1.8x realtime, 9 min left``."""
    parts = [f"{status.num_done}/{status.num_rows} done"]
    for number, word in (
        (status.num_failed, "failed"),
        (status.num_running, "running"),
        (status.num_elsewhere, "in another batch"),
    ):
        if number:
            parts.append(f"{number} {word}")
    if not status.num_running and not status.num_idle and status.num_open > status.num_elsewhere:
        parts.append("waiting for workers")
    if status.video_s > 0 and status.elapsed_s > 0:
        parts.append(f"{status.video_s / status.elapsed_s:.2f}x realtime")
    if status.num_rendered and status.num_open:
        left_s = status.elapsed_s / status.num_rendered * status.num_open
        parts.append(f"{left_s / 60:.0f} min left" if left_s >= 90 else f"{left_s:.0f} s left")
    return ", ".join(parts)
