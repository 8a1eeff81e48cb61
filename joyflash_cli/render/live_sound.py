"""What a live video's sound is made of: the time, sound that waits, and readers that hear it."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

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


@dataclass
class WaitingSound:
    """Sound that waits to be heard.

    Attributes:
        arrived_s: When it came.
        is_next: Whether nothing was to be heard before it when it came.
        more: Gives the next samples ``(n,)``, or ``None`` while there are none; raises
            ``StopIteration`` at the end. ``None`` where all is there.
        cancel: Ends whoever makes them, where they are waited for.
        error: Why no more came.
    """

    arrived_s: float
    is_next: bool
    more: Callable[[], np.ndarray | None] | None = None
    cancel: Callable[[], None] | None = None
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.is_pushed = self.more is None
        self._pieces: deque[np.ndarray] = deque()
        self._num_ready = 0

    @property
    def is_used_up(self) -> bool:
        """Whether nothing is left and nothing will come."""
        return self.more is None and not self._num_ready

    def add(self, samples: np.ndarray) -> None:
        """Appends samples ``(n,)``."""
        if len(samples):
            self._pieces.append(samples)
            self._num_ready += len(samples)

    def ready(self, wanted: int) -> int:
        """Samples that are there, once as many as wanted are or no more can be had now."""
        while self._num_ready < wanted and self.more is not None:
            try:
                piece = self.more()
            except StopIteration:
                self.more = None
            except Exception as error:  # noqa: BLE001 - whatever it is, the video goes on
                self.more, self.error = None, error
            else:
                if piece is None:
                    break
                self.add(piece)
        return self._num_ready

    def take(self, most: int) -> np.ndarray:
        """The next samples ``(n,)``; none while there are none."""
        if not self.ready(1):
            return np.zeros(0, np.float32)
        piece = self._pieces.popleft()
        if len(piece) > most:
            self._pieces.appendleft(piece[most:])
            piece = piece[:most]
        self._num_ready -= len(piece)
        return piece


class SegmentEnd(NamedTuple):
    """Where a segment is complete; ``id`` is the user's."""

    id: Any


class Mark(NamedTuple):
    """Where the user asked to be told; ``name`` is theirs."""

    name: Any


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
