"""When a stream blinks: a plan that any frame can be looked up in, so that it has no length.

Blinks follow neither the voice nor the head, and a latent of 8 x 8 pixels has little room for
eyelids. The codec is told how far they are closed and draws that.
"""

import functools
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from joyflash_cli.types import BLINK_SHAPE, FRAMES_PER_LATENT


@runtime_checkable  # so that tests may check annotations
class Blinks(Protocol):
    """How far the lids are closed, latent by latent."""

    def closures(self, latent: int) -> tuple[float, ...]:
        """In a latent's four video frames, 0 open .. 1 closed; latent 0 is frame 0 four times."""
        ...


@dataclass(frozen=True)
class KnownBlinks:
    """The lids of a clip that is reconstructed.

    Attributes:
        track: Closure in each video frame ``(F,)``; the last one goes on for ever.
    """

    track: np.ndarray

    def closures(self, latent: int) -> tuple[float, ...]:
        """See ``Blinks``."""
        return tuple(float(self.track[min(i, len(self.track) - 1)]) for i in frames_of(latent))


def frames_of(latent: int) -> list[int]:
    """Indices of a latent's video frames; latent 0 is frame 0 four times."""
    last = FRAMES_PER_LATENT * latent
    return [max(frame, 0) for frame in range(last - FRAMES_PER_LATENT + 1, last + 1)]


@dataclass(frozen=True)
class BlinkPlan:
    """One blink somewhere in every stretch of equal length.

    Attributes:
        seed: Of the places.
        every_frames: Video frames of a stretch; pauses are this long on average, and up to twice
            as long.
    """

    seed: int
    every_frames: int

    def closures(self, latent: int) -> tuple[float, ...]:
        """See ``Blinks``."""
        return tuple(self._closure(frame) for frame in frames_of(latent))

    def _closure(self, frame: int) -> float:
        stretch, place = divmod(frame, self.every_frames)
        moment = place - _blink_start(self.seed, stretch, self.every_frames)
        return BLINK_SHAPE[moment] if 0 <= moment < len(BLINK_SHAPE) else 0.0


@functools.lru_cache(maxsize=64)
def _blink_start(seed: int, stretch: int, every_frames: int) -> int:
    """Where in its stretch a blink begins; the first leaves the picture alone for a while."""
    earliest = every_frames // 3 if stretch == 0 else 0
    latest = max(every_frames - len(BLINK_SHAPE), earliest)
    return int(np.random.default_rng([seed, stretch]).integers(earliest, latest + 1))
