"""WAV as it arrives: a header that may lie, then samples, and never a wait for what is not needed.

Programs that write WAV to a pipe cannot know its size and put 0, 0xFFFFFFFF or anything else there;
some write one whole WAV per sentence. So a stated size is never the reason to stop: where it is
reached, the next bytes decide. A chunk that WAV files have (``LIST``, ``cue ``, ...) is skipped, a
further WAV header continues the sound, anything else is more sound. Only the end of the input ends
it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from joyflash_cli.errors import AudioError, UsageError
from joyflash_cli.media.audio_decoding import (
    MAX_CHANNELS,
    MAX_SAMPLE_RATE_HZ,
    MIN_SAMPLE_RATE_HZ,
)

ENCODINGS = {
    # name: bytes of a sample, numpy's type of it
    "u8": (1, "u1"),
    "s16le": (2, "<i2"),
    "s16be": (2, ">i2"),
    "s24le": (3, "<i4"),
    "s32le": (4, "<i4"),
    "s32be": (4, ">i4"),
    "f32le": (4, "<f4"),
    "f32be": (4, ">f4"),
    "f64le": (8, "<f8"),
}
"""Sample formats, named as ffmpeg names them."""

_TAGS = {
    (1, 8): "u8",
    (1, 16): "s16le",
    (1, 24): "s24le",
    (1, 32): "s32le",
    (3, 32): "f32le",
    (3, 64): "f64le",
}
_EXTENSIBLE = 0xFFFE
_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_CHUNKS_AFTER_DATA = (
    b"LIST", b"list", b"INFO", b"id3 ", b"ID3 ", b"cue ", b"fact", b"smpl", b"bext", b"JUNK",
    b"junk", b"PAD ", b"pad ", b"FLLR", b"PEAK", b"inst", b"ltxt", b"note", b"labl", b"plst",
    b"acid", b"afsp", b"iXML", b"axml", b"aXML", b"_PMX", b"cart", b"DISP", b"minf", b"elm1",
    b"regn", b"umid", b"SAUR", b"LGWV", b"chna", b"levl", b"link", b"data",
)  # fmt: skip
_CHUNKS_BEFORE_DATA = (b"fmt ", b"ds64", *_CHUNKS_AFTER_DATA)
_LARGEST_CHUNK = 64 << 20
_UNKNOWN_FROM = 0x7FFFF000
"""Sizes from here on mean "unknown": programs write 0x7FFFFFFF, 0xFFFFFFFF or a little less."""

_READ_BYTES = 1 << 16


@dataclass(frozen=True)
class PcmFormat:
    """Plain samples, channel after channel.

    Attributes:
        encoding: A key of ``ENCODINGS``.
        sample_rate_hz: Samples per second and channel.
        channels: Channels.
    """

    encoding: str
    sample_rate_hz: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return ENCODINGS[self.encoding][0] * self.channels

    @property
    def is_float(self) -> bool:
        """Whether samples may be no numbers, or beyond full scale."""
        return self.encoding.startswith("f")

    def decode(self, data: bytes) -> np.ndarray:
        """``(n, channels)`` float32 of whole sample frames; integers are scaled to -1..1."""
        size, kind = ENCODINGS[self.encoding]
        if self.encoding == "s24le":
            raw = np.frombuffer(data, np.uint8).reshape(-1, 3)
            wide = np.zeros((len(raw), 4), np.uint8)
            wide[:, 1:] = raw
            values = wide.view("<i4")[:, 0]
        else:
            values = np.frombuffer(data, kind)
        if self.encoding == "u8":
            samples = (values.astype(np.float32) - 128.0) / 128.0
        elif self.is_float:
            # A double beyond float32's range is clipped like any other loud sample.
            with np.errstate(over="ignore"):
                samples = values.astype(np.float32)
        else:
            bits = 32 if size == 3 else 8 * size
            samples = (values / 2.0 ** (bits - 1)).astype(np.float32)
        return samples.reshape(-1, self.channels)


def parse_pcm_format(text: str) -> PcmFormat:
    """The format that ``ENCODING:RATE`` or ``ENCODING:RATE:CHANNELS`` describes.

    Raises:
        UsageError: ``E-AUDIO-FORMAT-OPTION``, naming what is wrong.
    """
    encoding, *numbers = text.strip().lower().split(":")
    problem = ""
    if encoding not in ENCODINGS:
        problem = f"{encoding or 'nothing'} is no sample format; {', '.join(ENCODINGS)} are"
    elif len(numbers) not in (1, 2) or not all(n.isascii() and n.isdigit() for n in numbers):
        problem = "a sample rate is needed, and channels if there is more than one"
    elif not MIN_SAMPLE_RATE_HZ <= int(numbers[0]) <= MAX_SAMPLE_RATE_HZ:
        problem = f"{MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} samples a second are possible"
    elif len(numbers) == 2 and not 1 <= int(numbers[1]) <= MAX_CHANNELS:
        problem = f"1 to {MAX_CHANNELS} channels are possible"
    if problem:
        raise UsageError(
            f"audio format {text!r}: {problem}",
            hint="for example s16le:16000 or f32le:44100:2",
            code="E-AUDIO-FORMAT-OPTION",
        )
    return PcmFormat(encoding, int(numbers[0]), int(numbers[1]) if len(numbers) == 2 else 1)


class ByteFeed:
    """Bytes from a stream, with the possibility to look ahead.

    Args:
        read: Gives at most that many bytes, at least one unless the input has ended.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._ahead = b""

    def some(self, limit: int = _READ_BYTES) -> bytes:
        """What is there, at most ``limit`` bytes; nothing only at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:limit], self._ahead[limit:]
            return data
        return self._read(limit)

    def exactly(self, count: int) -> bytes:
        """``count`` bytes, fewer only at the end."""
        parts = []
        while count > 0 and (data := self.some(count)):
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def peek(self, count: int) -> bytes:
        """The next ``count`` bytes without taking them, fewer only at the end."""
        data = self.exactly(count)
        self.unread(data)
        return data

    def unread(self, data: bytes) -> None:
        """Puts bytes back in front."""
        self._ahead = data + self._ahead

    def skip(self, count: int) -> int:
        """Takes and forgets ``count`` bytes; how many there were."""
        skipped = 0
        while skipped < count and (data := self.some(min(count - skipped, _READ_BYTES))):
            skipped += len(data)
        return skipped


def starts_like_wav(head: bytes) -> bool:
    """Whether the first twelve bytes are those of a little-endian WAV file."""
    return head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"


def read_wav_header(feed: ByteFeed, name: str) -> tuple[PcmFormat, int] | None:
    """Reads up to the first sample.

    Args:
        feed: At ``RIFF``.
        name: For messages.

    Returns:
        Format and stated size of the samples, or ``None`` where the samples are compressed or
        described in a way that is not plain; everything read is then put back.

    Raises:
        AudioError: ``E-AUDIO-FORMAT`` if the input ends before the samples or is no WAV.
    """
    taken = [feed.exactly(12)]
    pcm: PcmFormat | None = None
    size_64 = None
    while True:
        head = feed.exactly(8)
        taken.append(head)
        if len(head) < 8:
            raise _cut_header(name)
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        if kind == b"data":
            if pcm is None:
                break
            return pcm, size_64 or size if size == 0xFFFFFFFF else size
        if size > _LARGEST_CHUNK:
            raise _cut_header(name)
        body = feed.exactly(size)
        taken.append(body)
        if len(body) < size:
            raise _cut_header(name)
        # Chunks of odd length are followed by one more byte, which some programs forget.
        if size % 2 and feed.peek(4) not in _CHUNKS_BEFORE_DATA:
            taken.append(feed.exactly(1))
        if kind == b"fmt ":
            pcm = _parse_format_chunk(body)
            if pcm is None:
                break
        elif kind == b"ds64" and len(body) >= 16:
            size_64 = int.from_bytes(body[8:16], "little")
    feed.unread(b"".join(taken))
    return None


def wav_data(feed: ByteFeed, pcm: PcmFormat, stated_size: int, name: str) -> Iterator[bytes]:
    """The bytes of the samples, whole sample frames at a time, as they arrive.

    Args:
        feed: At the first sample.
        pcm: Their format; a further header must have the same.
        stated_size: As the header gives it; believed only where something else follows.
        name: For messages.

    Raises:
        AudioError: ``E-AUDIO-FORMAT`` if a further header has another format.
    """
    left = _believable(stated_size)
    rest = b""
    while data := feed.some(_READ_BYTES if left is None else min(left, _READ_BYTES)):
        rest += data
        whole = len(rest) - len(rest) % pcm.frame_bytes
        if whole:
            yield rest[:whole]
            rest = rest[whole:]
        if left is not None:
            left -= len(data)
            if left == 0:
                left = _size_of_what_follows(feed, pcm, stated_size, name)
                if left != -1:
                    rest = b""  # a new run of samples begins here
                left = None if left == -1 else left


def _size_of_what_follows(feed: ByteFeed, pcm: PcmFormat, size: int, name: str) -> int | None:
    """After the stated samples: size of the next run, ``None`` unknown, -1 the same run goes on."""
    if size % 2 and feed.peek(1) == b"\0" and _is_boundary(feed.peek(13)[1:]):
        feed.skip(1)
    if not _is_boundary(feed.peek(12)):
        return -1
    while len(head := feed.peek(12)) >= 8:
        if starts_like_wav(head):
            further = read_wav_header(feed, name)
            if further is None or further[0] != pcm:
                raise AudioError(
                    f"{name} goes on with sound in another format",
                    hint="write all of it in one format",
                    code="E-AUDIO-FORMAT",
                )
            return _believable(further[1])
        feed.skip(8)
        size = int.from_bytes(head[4:8], "little")
        if head[:4] == b"data":
            return _believable(size)
        feed.skip(size + size % 2)
    return None


def _believable(size: int) -> int | None:
    """A stated size that may be one, else ``None``."""
    return size if 0 < size < _UNKNOWN_FROM else None


def _is_boundary(head: bytes) -> bool:
    """Whether these bytes are the end of the input, a chunk that WAV files have, or a new WAV."""
    if len(head) == 0:
        return True
    if len(head) >= 12 and starts_like_wav(head):
        return True
    if len(head) < 8 or head[:4] not in _CHUNKS_AFTER_DATA:
        return False
    return int.from_bytes(head[4:8], "little") <= _LARGEST_CHUNK or head[:4] == b"data"


def _parse_format_chunk(body: bytes) -> PcmFormat | None:
    if len(body) < 16:
        return None
    tag, channels, rate_hz, _, align, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == _EXTENSIBLE and len(body) >= 40 and body[26:40] == _SUBFORMAT_TAIL:
        tag = int.from_bytes(body[24:26], "little")
    encoding = _TAGS.get((tag, bits))
    if encoding is None or channels == 0:
        return None
    pcm = PcmFormat(encoding, rate_hz, channels)
    return pcm if align in (0, pcm.frame_bytes) else None


def _cut_header(name: str) -> AudioError:
    return AudioError(
        f"{name} ends or breaks within its WAV header",
        hint="check the program that wrote it",
        code="E-AUDIO-FORMAT",
    )
