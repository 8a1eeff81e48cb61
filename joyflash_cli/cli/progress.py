"""Progress of a render: a Rich bar, plain lines or nothing on stderr, and events for programs."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol, TextIO

from joyflash_cli.cli.events import EventStream
from joyflash_cli.errors import UsageError
from joyflash_cli.types import FrameChunk

PLAIN_EVERY_S = 10.0

ProgressKind = Literal["auto", "bar", "plain", "json", "none"]
PROGRESS_KINDS: tuple[ProgressKind, ...] = ("auto", "bar", "plain", "json", "none")


def check_progress_kind(kind: str) -> None:
    """Refuses what no progress is called.

    Raises:
        UsageError: Naming those that exist.
    """
    if kind not in PROGRESS_KINDS:
        raise UsageError(
            f"--progress {kind} does not exist", hint=f"one of {', '.join(PROGRESS_KINDS)}"
        )


class Progress(Protocol):
    """Shows how a render goes; a context manager whose end removes what is transient."""

    def __enter__(self) -> "Progress": ...

    def __exit__(self, *_: object) -> None: ...

    def loading(self, what: str) -> None:
        """Weights are being read."""
        ...

    def update(self, chunk: FrameChunk) -> None:
        """One more chunk was written."""
        ...

    def waiting(self, waited_s: float) -> None:
        """Nothing was ready for so many seconds; told a few times a second."""
        ...

    def event(self, name: str, **values: Any) -> None:
        """Something that only programs are told this way: ``warn``, ``latency``, ``saved``."""
        ...


def open_progress(
    num_frames: int | None,
    fps: float,
    *,
    quiet: bool,
    kind: ProgressKind = "auto",
    stream: TextIO | None = None,
    events: EventStream | None = None,
) -> Progress:
    """The progress that suits the stream: none, a live bar, or plain lines; events beside it.

    Args:
        num_frames: Frames of the whole video, ``None`` while unknown.
        fps: Frames per second.
        quiet: Nothing is shown.
        kind: A certain one instead; ``json`` shows people nothing.
        stream: Standard error if ``None``.
        events: Told everything as well.
    """
    stream = stream or sys.stderr
    shown = _shown_progress(num_frames, fps, stream, kind="none" if quiet else kind)
    if events is None and kind == "json":
        events = EventStream(stream)
    return shown if events is None else EventProgress(num_frames, fps, events, shown)


def _shown_progress(
    num_frames: int | None, fps: float, stream: TextIO, *, kind: ProgressKind
) -> Progress:
    """What people see."""
    if kind in ("none", "json"):
        return NoProgress()
    live = stream.isatty() and os.environ.get("TERM") != "dumb"
    if kind == "bar" or (kind == "auto" and live):
        return BarProgress(num_frames, fps)
    return LineProgress(num_frames, fps, stream)


class Pace:
    """Speed and time left, from the chunks seen so far."""

    def __init__(self, num_frames: int | None, fps: float) -> None:
        self.num_frames = num_frames
        self.fps = fps
        self.frames_done = 0
        self.frames_per_s = 0.0
        self._first: FrameChunk | None = None

    def update(self, chunk: FrameChunk) -> None:
        """Counts a chunk in."""
        self.frames_done = chunk.first_frame + len(chunk.frames)
        if self._first is None:
            self._first = chunk
        # The ramp before the first chunk costs as much as several blocks: leave it out of the
        # speed as soon as there is more to measure, or the time left would be far too long.
        since = self._first if chunk is not self._first else None
        frames = self.frames_done - (since.first_frame + len(since.frames) if since else 0)
        seconds = chunk.elapsed_s - (since.elapsed_s if since else 0.0)
        self.frames_per_s = frames / seconds if seconds > 0 else 0.0

    @property
    def realtime_factor(self) -> float:
        """Seconds of video per second."""
        return self.frames_per_s / self.fps

    @property
    def left_s(self) -> float | None:
        """Seconds until the last frame at this speed; ``None`` while the end is unknown."""
        if self.num_frames is None:
            return None
        if self.frames_per_s <= 0:
            return 0.0
        return (self.num_frames - self.frames_done) / self.frames_per_s

    def describe(self, chunk: FrameChunk) -> str:
        """``block 8/40, 93 frames, 31.2 fps, 1.25x realtime``."""
        return (
            f"block {chunk.index + 1}/{chunk.num_blocks or '?'}, {self.frames_done} frames, "
            f"{self.frames_per_s:.1f} fps, {self.realtime_factor:.2f}x realtime"
        )


class NoProgress:
    """Shows nothing."""

    def __enter__(self) -> "NoProgress":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def loading(self, what: str) -> None:
        """Shows nothing."""

    def update(self, chunk: FrameChunk) -> None:
        """Shows nothing."""

    def waiting(self, waited_s: float) -> None:
        """Shows nothing."""

    def event(self, name: str, **values: Any) -> None:
        """Shows nothing."""


class LineProgress:
    """One plain line every ten seconds, for logs and pipes; also while nothing comes."""

    def __init__(
        self,
        num_frames: int | None,
        fps: float,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pace = Pace(num_frames, fps)
        self._stream = stream
        self._clock = clock
        self._next_s = clock() + PLAIN_EVERY_S
        self._next_wait_s = PLAIN_EVERY_S

    def __enter__(self) -> "LineProgress":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def loading(self, what: str) -> None:
        """Loading is short; a log needs no line for it."""

    def update(self, chunk: FrameChunk) -> None:
        """Writes a line when ten seconds have passed since the last."""
        self._pace.update(chunk)
        self._next_wait_s = PLAIN_EVERY_S
        now = self._clock()
        if now >= self._next_s:
            self._next_s = now + PLAIN_EVERY_S
            left_s = self._pace.left_s
            left = "" if left_s is None else f", {left_s:.0f} s left"
            self._write(f"render: {self._pace.describe(chunk)}{left}")

    def waiting(self, waited_s: float) -> None:
        """Writes a line for every ten seconds without a picture."""
        if waited_s >= self._next_wait_s:
            self._next_wait_s = waited_s + PLAIN_EVERY_S
            self._next_s = self._clock() + PLAIN_EVERY_S
            self._write(f"render: {_waiting_text(self._pace, waited_s)}")

    def event(self, name: str, **values: Any) -> None:
        """People are told in sentences."""

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class EventProgress:
    """Tells programs what happens, and passes it on to what people see.

    Args:
        num_frames: Frames of the whole video, ``None`` while unknown.
        fps: Frames per second.
        events: Where the events go.
        shown: What people see.
    """

    def __init__(
        self, num_frames: int | None, fps: float, events: EventStream, shown: Progress
    ) -> None:
        self._pace = Pace(num_frames, fps)
        self._events = events
        self._shown = shown
        self._next_wait_s = PLAIN_EVERY_S

    def __enter__(self) -> "EventProgress":
        self._events.emit("start", total_frames=self._pace.num_frames, video_fps=self._pace.fps)
        self._shown.__enter__()
        return self

    def __exit__(self, *arguments: object) -> None:
        self._shown.__exit__(*arguments)

    def loading(self, what: str) -> None:
        """``load``."""
        self._events.emit("load", profile=what)
        self._shown.loading(what)

    def update(self, chunk: FrameChunk) -> None:
        """``block``: written, with the pace so far."""
        self._pace.update(chunk)
        self._next_wait_s = PLAIN_EVERY_S
        left_s = self._pace.left_s
        self._events.emit(
            "block",
            block=chunk.index + 1,
            blocks=chunk.num_blocks,
            frames=self._pace.frames_done,
            fps=round(self._pace.frames_per_s, 2),
            realtime_factor=round(self._pace.realtime_factor, 3),
            eta_s=None if left_s is None else round(left_s, 1),
        )
        self._shown.update(chunk)

    def waiting(self, waited_s: float) -> None:
        """``wait``, every ten seconds."""
        if waited_s >= self._next_wait_s:
            self._next_wait_s = waited_s + PLAIN_EVERY_S
            self._events.emit("wait", waited_s=round(waited_s, 1), frames=self._pace.frames_done)
        self._shown.waiting(waited_s)

    def event(self, name: str, **values: Any) -> None:
        """Any other event."""
        self._events.emit(name, **values)
        self._shown.event(name, **values)


class BarProgress:
    """A live bar on a terminal."""

    def __init__(self, num_frames: int | None, fps: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._pace = Pace(num_frames, fps)
        self._bar: Any = RichProgress(
            TextColumn("render"),
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=num_frames)

    def __enter__(self) -> "BarProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def loading(self, what: str) -> None:
        """Says so in the bar's text."""
        self._bar.update(self._task, description=f"loading {what}")

    def update(self, chunk: FrameChunk) -> None:
        """Moves the bar."""
        self._pace.update(chunk)
        text = self._pace.describe(chunk)
        if self._pace.left_s is not None:
            minutes, seconds = divmod(round(self._pace.left_s), 60)
            text += f", {minutes}:{seconds:02d} left"
        self._bar.update(self._task, completed=self._pace.frames_done, description=text)

    def waiting(self, waited_s: float) -> None:
        """Says so in the bar's text once it takes longer than a moment."""
        if waited_s >= 2.0:
            self._bar.update(self._task, description=_waiting_text(self._pace, waited_s))

    def event(self, name: str, **values: Any) -> None:
        """People are told in sentences."""


def _waiting_text(pace: Pace, waited_s: float) -> str:
    """Only live sound makes a render wait for long; a slow device is waited for alike."""
    what = "sound" if pace.num_frames is None else "the next block"
    return f"waiting for {what}, {waited_s:.0f} s; {pace.frames_done} frames written"
