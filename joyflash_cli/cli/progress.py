"""Progress of a render on stderr: a Rich bar on a terminal, plain lines elsewhere, or nothing."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from joyflash_cli.types import FrameChunk

PLAIN_EVERY_S = 10.0


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


def open_progress(num_frames: int, fps: float, *, quiet: bool, stream: TextIO | None = None):
    """The progress that suits the stream: none, a live bar, or plain lines."""
    stream = stream or sys.stderr
    if quiet:
        return NoProgress()
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return BarProgress(num_frames, fps)
    return LineProgress(num_frames, fps, stream)


class Pace:
    """Speed and time left, from the chunks seen so far."""

    def __init__(self, num_frames: int, fps: float) -> None:
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
    def left_s(self) -> float:
        """Seconds until the last frame, at this speed."""
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


class LineProgress:
    """One plain line every ten seconds, for logs and pipes."""

    def __init__(
        self,
        num_frames: int,
        fps: float,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pace = Pace(num_frames, fps)
        self._stream = stream
        self._clock = clock
        self._next_s = clock() + PLAIN_EVERY_S

    def __enter__(self) -> "LineProgress":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def loading(self, what: str) -> None:
        """Loading is short; a log needs no line for it."""

    def update(self, chunk: FrameChunk) -> None:
        """Writes a line when ten seconds have passed since the last."""
        self._pace.update(chunk)
        now = self._clock()
        if now >= self._next_s:
            self._next_s = now + PLAIN_EVERY_S
            text = f"render: {self._pace.describe(chunk)}, {self._pace.left_s:.0f} s left\n"
            self._stream.write(text)
            self._stream.flush()


class BarProgress:
    """A live bar on a terminal."""

    def __init__(self, num_frames: int, fps: float) -> None:
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
        minutes, seconds = divmod(round(self._pace.left_s), 60)
        text = f"{self._pace.describe(chunk)}, {minutes}:{seconds:02d} left"
        self._bar.update(self._task, completed=self._pace.frames_done, description=text)
