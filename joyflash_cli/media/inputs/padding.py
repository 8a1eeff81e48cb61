"""What an encoder adds to a sound: a little before it and after it, which is no part of it.

libavcodec leaves most of it out where a container says so in its own way. What is left: AAC in
Matroska or fragmented MP4 that says nothing of its beginning, and the end in MP4 and Matroska,
which only the length of the last packet tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

_PADDED_CODECS = {
    "mov,mp4,m4a,3gp,3g2,mj2": ("aac", "mp3", "mp3float", "opus", "libopus"),
    "matroska,webm": ("aac",),
}
_MAX_PADDING_S = 0.15
"""More than any encoder adds; times that would take more away are not believed."""


class SoundPadding:
    """Takes away what is no sound, piece by piece as a track is decoded.

    Args:
        container: PyAV's, open.
        stream: The track.
        rate_hz: Samples per second.
    """

    def __init__(self, container: Any, stream: Any, rate_hz: int) -> None:
        codec = stream.codec_context.name
        self._is_mp4 = "mp4" in container.format.name
        self._applies = codec in _PADDED_CODECS.get(container.format.name, ())
        self._may_begin_early = codec == "aac" and not (self._is_mp4 and stream.frames)
        self._rate_hz = rate_hz
        self._tick = stream.time_base or Fraction(1)
        self._declared_s: Fraction | None = None
        if self._is_mp4 and stream.frames and stream.duration:
            self._declared_s = stream.duration * self._tick
        self._first_s: Fraction | None = None
        self._end_s = Fraction(0)
        self._delay = int(stream.codec_context.delay or 0)
        self._before: np.ndarray | None = None
        self._held: list[np.ndarray] = []
        self._num_held = 0
        self._num_passed = 0

    def watch(self, packets: Iterable[Any]) -> Iterator[Any]:
        """The packets of the track, whose times are noted on the way."""
        for packet in packets:
            if packet.size and packet.pts is not None:
                if self._first_s is None:
                    self._first_s = packet.pts * self._tick
                end_s = (packet.pts + (packet.duration or 0)) * self._tick
                self._end_s = max(self._end_s, end_s)
            yield packet

    def push(self, part: np.ndarray) -> np.ndarray:
        """What of the next decoded samples ``(n, channels)`` is surely sound, ``(m, channels)``."""
        if not self._applies:
            return part
        if self._before is None:
            self._before = part[:0]
            if self._may_begin_early and not self._delay and self._first_s == 0:
                self._before = part
                return part[:0]
        self._held.append(part)
        self._num_held += len(part)
        surplus = self._num_passed + self._num_held - self._num_declared()
        if surplus > _MAX_PADDING_S * self._rate_hz:
            self._applies, surplus = False, 0
        return self._take(self._num_held - max(0, surplus))

    def finish(self) -> np.ndarray | None:
        """What of the rest is sound, once the last packet was decoded; ``None`` for nothing."""
        if self._before is None or not self._applies:
            return None
        if not self._num_passed and not self._num_held:
            return self._before  # a sound so short that nothing else is there
        if not self._num_held:
            return None
        # Times are rounded to ticks; what is less than one is no padding.
        rounded = self._num_held <= self._tick * self._rate_hz and not self._is_mp4
        return self._take(self._num_held) if rounded else None

    def _num_declared(self) -> int:
        """Samples up to the end of the last packet."""
        end_s = self._end_s if self._declared_s is None else min(self._end_s, self._declared_s)
        start_s = max(self._first_s or Fraction(0), Fraction(0))
        before = 0 if self._before is None else len(self._before)
        return round((end_s - start_s) * self._rate_hz) - before

    def _take(self, count: int) -> np.ndarray:
        held = np.concatenate(self._held)
        self._num_passed += max(count, 0)
        self._held, self._num_held = [held[max(count, 0) :]], len(held) - max(count, 0)
        return held[: max(count, 0)]
