"""Several channels to the one that the audio encoders hear."""

from __future__ import annotations

import numpy as np

_BLOCKS_PER_S = 50
_KEPT_ENERGY = 0.9
"""Of the energy so far that counts after a block: the last fifth of a second decides."""

_CANCELLED = 0.1
"""Share of the loudest channel's energy below which the mean has lost the sound, -10 dB. Opposite
phases leave nothing; two channels with one of them silent still leave a quarter."""

_RESTORED = 0.2
_LOUDER = 2.0


class Downmix:
    """The mean of the channels or, where they cancel each other, the loudest of them.

    Decided block by block, so that the same comes out however the sound is cut into pieces; what
    is decided anew is faded in over a block.

    Args:
        rate_hz: Samples per second.
    """

    def __init__(self, rate_hz: int) -> None:
        self._block = max(1, rate_hz // _BLOCKS_PER_S)
        self._rest: np.ndarray | None = None
        self._energy: np.ndarray | None = None
        self._heard: int | None = None
        self._has_begun = False

    def push(self, samples: np.ndarray) -> np.ndarray:
        """``(m,)`` float32 of the next ``(n, channels)``; less than a block stays inside."""
        if samples.shape[1] == 1:
            return samples[:, 0]
        if self._rest is not None and len(self._rest):
            samples = np.concatenate([self._rest, samples])
        whole = len(samples) - len(samples) % self._block
        self._rest = samples[whole:].copy()
        return self._mixed(samples[:whole])

    def finish(self) -> np.ndarray:
        """What was left inside."""
        rest, self._rest = self._rest, None
        return np.zeros(0, np.float32) if rest is None else self._mixed(rest)

    def _mixed(self, samples: np.ndarray) -> np.ndarray:
        mean: np.ndarray = samples.mean(axis=1, dtype=np.float32)
        for start in range(0, len(samples), self._block):
            part = slice(start, start + self._block)
            before, is_first = self._heard, not self._has_begun
            self._has_begun = True
            self._heard = self._decide(samples[part], mean[part])
            if before is None and self._heard is None:
                continue
            wanted = samples[part, self._heard] if self._heard is not None else mean[part].copy()
            if before != self._heard and not is_first:
                left = samples[part, before] if before is not None else mean[part].copy()
                share = np.linspace(0, 1, len(wanted), dtype=np.float32)
                wanted = left + (wanted - left) * share
            mean[part] = wanted
        return mean

    def _decide(self, samples: np.ndarray, mean: np.ndarray) -> int | None:
        """The channel that is heard from here on; ``None`` for the mean of all."""
        block = np.array([*np.einsum("ij,ij->j", samples, samples), mean @ mean], np.float64)
        self._energy = block if self._energy is None else self._energy * _KEPT_ENERGY + block
        channels, of_mean = self._energy[:-1], self._energy[-1]
        loudest = int(channels.argmax())
        if of_mean >= channels[loudest] * (_CANCELLED if self._heard is None else _RESTORED):
            return None
        if self._heard is not None and channels[loudest] < _LOUDER * channels[self._heard]:
            return self._heard
        return loudest
