"""What a compressed sound says of its length, what its encoder added, and what damage took away.

libavcodec leaves out most of what encoders add, where a container says so in its own way. What is
left: AAC in Matroska or fragmented MP4 that says nothing of its beginning, and the end in MP4 and
Matroska, which only the length of the last packet tells.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

TAIL_BYTES = 1 << 17
"""An Ogg page has up to 65,307 bytes."""

_EXACT_FORMATS = ("flac", "aiff", "au")
_SAID_BY_TRACK = (*_EXACT_FORMATS, "wav", "mov,mp4,m4a,3gp,3g2,mj2")
_EXACT_S = 0.002
_LOSSY_S = 0.1
_LOSSY_SAMPLES = 3 * 1152
"""Codecs add a few frames of their own around the sound, which containers count or do not."""

_CHUNKS_BYTES = 1 << 12
_LONGEST_TAG = 1 << 24
_OGG_LAST_PAGE = 4
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


@dataclass(frozen=True)
class Declared:
    """What the beginning of a sound says of its end.

    Attributes:
        duration_s: Seconds.
        slack_s: How much less may come of a whole file.
        num_bytes: Bytes of the whole file, at least.
        marks_end: Whether the last bytes of a whole file say that they are the last.
    """

    duration_s: float | None = None
    slack_s: float = 0.0
    num_bytes: int | None = None
    marks_end: bool = False

    def is_cut(self, heard_s: float, num_bytes: int, tail: bytes) -> bool:
        """Whether less came.

        Args:
            heard_s: Seconds that were decoded.
            num_bytes: Bytes that came.
            tail: The last ``TAIL_BYTES`` of them.
        """
        if self.duration_s is not None and heard_s < self.duration_s - self.slack_s:
            return True
        if self.num_bytes is not None and num_bytes < self.num_bytes:
            return True
        if not self.marks_end:
            return False
        # Whether the last page is whole, and marked as the last of its stream.
        at = tail.rfind(b"OggS")
        page = tail[at:] if at >= 0 else b""
        if len(page) < 27 or len(page) < 27 + page[26] or not page[5] & _OGG_LAST_PAGE:
            return True
        return len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def read_declared(container: Any, stream: Any, head: bytes) -> Declared:
    """What a sound says of its length; estimates of libavformat are no statement of the file.

    Args:
        container: PyAV's.
        stream: The track.
        head: From ``read_head``.
    """
    kind = container.format.name
    rate_hz = stream.codec_context.sample_rate
    slack_s = _EXACT_S if kind in _EXACT_FORMATS else max(_LOSSY_S, _LOSSY_SAMPLES / rate_hz)
    duration_s = None
    if kind in _SAID_BY_TRACK and stream.duration:
        duration_s = float(stream.duration * stream.time_base)
    elif kind == "matroska,webm":
        duration_s = _matroska_s(container, stream)
    elif kind == "mp3":
        duration_s = _mp3_s(head)
    return Declared(duration_s, slack_s, _stated_bytes(head), kind == "ogg")


def read_head(peek: Callable[[int], bytes]) -> bytes:
    """The beginning of a sound, as far as it speaks of its length.

    Args:
        peek: Gives that many first bytes, fewer only where the sound is shorter.
    """
    head = peek(12)
    start = _tag_bytes(head)
    if start or head[:1] == b"\xff":
        return peek(start + 64) if start <= _LONGEST_TAG else head
    return peek(_CHUNKS_BYTES) if head[:4] in (b"caff", b"riff") else head


def _tag_bytes(head: bytes) -> int:
    """Size of the ID3 tag before an MP3."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _matroska_s(container: Any, stream: Any) -> float | None:
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if found:
        hours, minutes, seconds = found.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    # The file's own duration is that of its longest track, which need not be this one.
    if len(container.streams) == 1 and container.duration:
        return float(container.duration / 1_000_000)
    return None


def _mp3_s(head: bytes) -> float | None:
    """Of the Xing or Info header in the first frame; MP3 has no other word on its length."""
    frame = head[_tag_bytes(head) :]
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:
        return None
    version = frame[1] >> 3 & 3
    rates = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
    rate_index = frame[2] >> 2 & 3
    if version not in rates or rate_index == 3:
        return None
    is_mono = frame[3] >> 6 == 3
    side_bytes = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    xing = frame[4 + side_bytes :]
    if xing[:4] not in (b"Xing", b"Info") or len(xing) < 12 or not xing[7] & 1:
        return None
    num_frames = int.from_bytes(xing[8:12], "big")
    return num_frames * (1152 if version == 3 else 576) / rates[version][rate_index]


def _stated_bytes(head: bytes) -> int | None:
    """Where the sound of a CAF or W64 file ends."""
    if head[:4] == b"caff":
        at = 8
        while len(chunk := head[at : at + 12]) == 12:
            kind, size = struct.unpack(">4sq", chunk)
            if kind == b"data":
                return at + 12 + size if size >= 0 else None
            if size < 0:
                return None
            at += 12 + int(size)
    elif head[:4] == b"riff" and head[24:28] == b"wave":
        at = 40
        while len(chunk := head[at : at + 24]) == 24:
            size = int.from_bytes(chunk[16:], "little")
            if chunk[:16] == _W64_DATA:
                return at + size if size < 1 << 62 else None
            if size < 24:
                return None
            at += -(-size // 8) * 8
    return None


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
        end_s = self._end_s if self._declared_s is None else min(self._end_s, self._declared_s)
        start_s = max(self._first_s or Fraction(0), Fraction(0))
        num_declared = round((end_s - start_s) * self._rate_hz) - len(self._before)
        surplus = self._num_passed + self._num_held - num_declared
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

    def _take(self, count: int) -> np.ndarray:
        held = np.concatenate(self._held)
        self._num_passed += max(count, 0)
        self._held, self._num_held = [held[max(count, 0) :]], len(held) - max(count, 0)
        return held[: max(count, 0)]


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
