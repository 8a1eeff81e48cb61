"""Damage in the middle of a compressed sound: how much of it is lost."""

from __future__ import annotations

from typing import Any

_LONGEST_HOLE_S = 600
"""Longer holes are times that cannot be believed."""


class Hole:
    """How many samples are lost between two good frames.

    Args:
        container: Name of the container's format.
        rate_hz: Samples per second.
    """

    def __init__(self, container: str, rate_hz: int) -> None:
        # Without a container, frames are looked for: one broken packet may hold several of them,
        # and moments are only counted.
        self._is_bare = container in ("mp3", "aac")
        # Frames of a bare FLAC say which they are, and its parser drops broken ones by itself.
        self._is_numbered = container == "flac"
        self._first_s: float | None = None
        self._rate_hz = rate_hz
        self._frame_samples, self._packet_bytes = 1, 1
        self._end_s: float | None = None
        self._lost = 0

    def is_before(self, frame: Any, num_samples: int) -> bool:
        """Whether something is lost between what was heard and a good frame."""
        return self._lost > 0 or (self._is_numbered and self._numbered_gap(frame, num_samples) > 0)

    def pass_by(self, packet: Any, frame: Any) -> None:
        """A good frame."""
        self._frame_samples, self._packet_bytes = frame.samples, max(1, packet.size)
        self._end_s = None if frame.time is None else frame.time + frame.samples / self._rate_hz
        if self._first_s is None:
            self._first_s = frame.time

    def grow(self, packet: Any) -> None:
        """A packet that could not be decoded."""
        frames = round(packet.size / self._packet_bytes) if self._is_bare else 1
        self._lost += max(1, frames) * self._frame_samples

    def close(self, frame: Any, num_samples: int) -> int:
        """Samples that are lost before the next good frame, at least one."""
        lost, self._lost = self._lost, 0
        if self._is_numbered:
            lost = self._numbered_gap(frame, num_samples)
        elif self._end_s is not None and frame.time is not None and not self._is_bare:
            lost = round((frame.time - self._end_s) * self._rate_hz)
        return min(max(1, lost), _LONGEST_HOLE_S * self._rate_hz)

    def _numbered_gap(self, frame: Any, num_samples: int) -> int:
        if frame.time is None or self._first_s is None:
            return 0
        return round((frame.time - self._first_s) * self._rate_hz) - num_samples
