"""How a run goes, on standard error: a live bar, lines of a log, or nothing; events beside it."""

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TextIO, TypedDict, Unpack

from joyflash_cli.cli.events import EventStream
from joyflash_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from joyflash_cli.types import FrameChunk

PLAIN_EVERY_S = 10.0
"""Between two lines of a log, and between two heartbeats while nothing comes."""

LONG_WAIT_S = 2.0
"""A live display says so only beyond this."""

PROGRESS_KINDS = ("auto", "bar", "plain", "json", "none")


def check_progress_kind(kind: str) -> None:
    """Refuses what no progress is called.

    Raises:
        UsageError: Naming those that exist.
    """
    if kind not in PROGRESS_KINDS:
        raise UsageError(
            f"--progress {kind} does not exist", hint=f"one of {', '.join(PROGRESS_KINDS)}"
        )


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
    """A live bar on a terminal.

    Args:
        title: Stands before it.
    """

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
        kind: One of ``PROGRESS_KINDS``; ``json`` shows people nothing.
        stream: Standard error if ``None``.
    """
    stream = stream or sys.stderr
    if quiet or kind in ("json", "none"):
        return Display()
    if kind == "bar" or (kind == "auto" and is_live(stream)):
        return Bar(title)
    return Lines(title, stream)


class RenderProgress:
    """Tells people and programs how a render goes; a context manager.

    Args:
        num_frames: Frames of the whole video, ``None`` while unknown.
        fps: Frames per second.
        display: What people see.
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

    def __enter__(self) -> Self:
        self._events.emit("start", total_frames=self._num_frames, video_fps=self._fps)
        self._display.__enter__()
        return self

    def __exit__(self, *arguments: object) -> None:
        self._display.__exit__(*arguments)

    def loading(self, what: str) -> None:
        """Weights are being read; that is short, and a log needs no line for it."""
        self._events.emit("load", profile=what)
        self._display.show(f"loading {what}", total=self._num_frames, due=False)

    def update(self, chunk: "FrameChunk") -> None:
        """One more block was written."""
        frames_per_s = self._frames_per_s(chunk)
        left_s = self._left_s(frames_per_s)
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

    def _frames_per_s(self, chunk: "FrameChunk") -> float:
        self._frames_done = chunk.first_frame + len(chunk.frames)
        # The ramp before the first block costs as much as several blocks: leave it out of the
        # speed as soon as there is more to measure, or the time left would be far too long.
        frames, seconds = self._frames_done, chunk.elapsed_s
        if self._first is None:
            self._first = chunk
        else:
            frames -= self._first.first_frame + len(self._first.frames)
            seconds -= self._first.elapsed_s
        return frames / seconds if seconds > 0 else 0.0

    def _left_s(self, frames_per_s: float) -> float | None:
        """Seconds until the last frame at this speed; ``None`` while the end is unknown."""
        if self._num_frames is None:
            return None
        return (self._num_frames - self._frames_done) / frames_per_s if frames_per_s > 0 else 0.0
