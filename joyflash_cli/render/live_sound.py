"""The clock of a live video, and the readers by whom streams hear its sound."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol, cast

import numpy as np

from joyflash_cli.media.inputs.sound_opening import OpenSound
from joyflash_cli.render.sound_feed import TakenBack
from joyflash_cli.types import SoundFormat


class Clock(Protocol):
    """Time as a session sees it."""

    def now(self) -> float:
        """Seconds that only grow."""
        ...

    def sleep(self, seconds: float) -> None:
        """Lets time pass."""
        ...

    def unix(self) -> float:
        """Seconds since 1970."""
        ...


class WallClock:
    """The clock on the wall."""

    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    unix = staticmethod(time.time)


class TrackReader:
    """A live track as the sound of one stream: endless, and heard only when it is time.

    Args:
        hear: Gives what the reader hears next, once it is time.
        sound: Rate and channels.
        start: The first frame that is heard.
        skips: Whether a reader that comes late leaves sound out to be in time again.
    """

    name = "the live sound"
    num_samples = None

    def __init__(
        self,
        hear: "Callable[[TrackReader, Callable[[], None]], np.ndarray | TakenBack]",
        sound: SoundFormat,
        start: int,
        *,
        skips: bool,
    ) -> None:
        self.start = self.next_frame = start
        self.taken_back: int | None = None
        self.skips = skips
        self._hear, self._format = hear, sound
        self._jumps: deque[tuple[int, int]] = deque([(0, start)])
        self._num_heard = 0

    def open(self, check: Callable[[], None] = lambda: None) -> OpenSound:
        """See ``Sound``."""
        pieces = cast("Iterator[np.ndarray]", self._pieces(check))
        return OpenSound(self.name, self._format, pieces)

    def frame_of(self, index: int) -> int:
        """Which frame of the video the stream's own frame ``index`` is; asked in order."""
        while len(self._jumps) > 1 and self._jumps[1][0] <= index:
            self._jumps.popleft()
        heard, frame = self._jumps[0]
        return frame + index - heard

    def jump_to(self, frame: int) -> None:
        """Leaves out what lies before a frame."""
        self._jumps.append((self._num_heard, frame))
        self.next_frame = frame

    def take_back(self, frame: int) -> None:
        """What was heard from a frame on is silence after all."""
        self.taken_back = frame if self.taken_back is None else min(self.taken_back, frame)

    def _pieces(self, check: Callable[[], None]) -> Iterator[np.ndarray | TakenBack]:
        while True:
            piece = self._hear(self, check)
            if not isinstance(piece, TakenBack):
                self._num_heard += 1
            yield piece
