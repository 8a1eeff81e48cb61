"""WAV as it arrives: a header that may lie, then samples, and never a wait for what is not needed.

Programs that write WAV to a pipe cannot know its size and put 0, 0xFFFFFFFF or anything else there;
some write one whole WAV per sentence. So a stated size is no reason to stop: where it is reached,
the next bytes decide. A chunk that WAV files have (``LIST``, ``cue ``, ...) or that the size of the
whole has room for is skipped, a further WAV header continues the sound, anything else is more
sound. Only a plain file whose sizes all agree with its length is taken at its word.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from joyflash_cli.errors import AudioError
from joyflash_cli.media.inputs.hearing import Hearing, PcmFormat

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
_ID3V1_BYTES = 128
_TAGS_AFTER_RIFF = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBE")
_MOST_CHUNKS = 10_000


@dataclass(frozen=True)
class WavHeader:
    """What stands before the first sample.

    Attributes:
        pcm: Format of the samples.
        start: Bytes before the first sample, from ``RIFF`` on.
        data_bytes: Stated size of the samples.
        riff_bytes: Stated size of the whole, from ``RIFF`` on.
    """

    pcm: PcmFormat
    start: int = 0
    data_bytes: int = 0
    riff_bytes: int = 0

    @property
    def room_behind(self) -> int:
        """Bytes that the whole has behind the samples, as far as its sizes can be believed."""
        if _believable(self.data_bytes) is None or _believable(self.riff_bytes) is None:
            return 0
        return self.riff_bytes - self.start - self.data_bytes


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


def read_wav_header(feed: ByteFeed, name: str) -> WavHeader | None:
    """Reads up to the first sample.

    Args:
        feed: At ``RIFF``.
        name: For messages.

    Returns:
        The header, or ``None`` where the samples are compressed or described in a way that is not
        plain; everything read is then put back.

    Raises:
        AudioError: ``E-AUDIO-FORMAT`` if the input ends before the samples or is no WAV.
    """
    taken = [feed.exactly(12)]
    pcm: PcmFormat | None = None
    riff_size, sizes_64 = int.from_bytes(taken[0][4:8], "little"), (0, 0)
    while True:
        head = feed.exactly(8)
        taken.append(head)
        if len(head) < 8:
            raise _cut_header(name)
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        if kind == b"data":
            if pcm is None:
                break
            riff_64, size_64 = sizes_64
            return WavHeader(
                pcm,
                sum(map(len, taken)),
                size_64 or size if size == 0xFFFFFFFF else size,
                8 + (riff_64 or riff_size if riff_size == 0xFFFFFFFF else riff_size),
            )
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
            sizes_64 = struct.unpack("<QQ", body[:16])
    feed.unread(b"".join(taken))
    return None


def sizes_are_right(file: BinaryIO, header: WavHeader) -> bool:
    """Whether the sizes of a WAV file agree with its length, chunk by chunk.

    A tag of the MP3 world glued to its end is no reason to doubt them.

    Args:
        file: Seekable; stands afterwards where it stood before.
        header: Its own, from its first byte.
    """
    here = file.tell()
    length = file.seek(0, 2)
    end, behind = header.riff_bytes, header.start + header.data_bytes
    file.seek(min(end, length))
    is_tagged = file.read(8).startswith(_TAGS_AFTER_RIFF)
    # Some programs forget the byte that fills up an odd size.
    right = end in (length, length + 1) or (end < length and is_tagged)
    right = right and any(
        _chunks_end_at(file, behind + pad, end) for pad in (0, header.data_bytes % 2)
    )
    file.seek(here)
    return right


def _chunks_end_at(file: BinaryIO, at: int, end: int) -> bool:
    for _ in range(_MOST_CHUNKS):
        if at >= end - 1:
            return at in (end - 1, end, end + 1)
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return False
        size = int.from_bytes(head[4:], "little")
        at += 8 + size + size % 2
    return False


def wav_data(
    feed: ByteFeed, header: WavHeader, hearing: Hearing, *, is_right: bool
) -> Iterator[bytes]:
    """The bytes of the samples, whole sample frames at a time, as they arrive.

    Args:
        feed: At the first sample.
        header: What stood before; its size is believed only where something else follows. A
            further header must have the same format.
        hearing: Is told how it ended.
        is_right: Whether the stated size ends the sound, whatever follows.

    Raises:
        AudioError: ``E-AUDIO-FORMAT`` if a further header has another format.
    """
    left = header.data_bytes if is_right else _believable(header.data_bytes)
    rest, num_bytes = b"", 0
    while left != 0 and (
        data := feed.some(_READ_BYTES if left is None else min(left, _READ_BYTES))
    ):
        rest += data
        whole = len(rest) - len(rest) % header.pcm.frame_bytes
        if whole:
            num_bytes += whole
            yield rest[:whole]
            rest = rest[whole:]
        if left is not None:
            left -= len(data)
            if left == 0 and not is_right:
                goes_on, left = _what_follows(feed, header, hearing.name)
                if not goes_on:
                    rest = b""  # a new run of samples begins here
    rate_hz, size = header.pcm.sample_rate_hz, header.pcm.frame_bytes
    heard, missing = num_bytes // size, (left or 0) // size
    hearing.end(heard / rate_hz, (heard + missing) / rate_hz, is_cut=missing > 0)


def _what_follows(feed: ByteFeed, header: WavHeader, name: str) -> tuple[bool, int | None]:
    """After the stated samples: whether they go on, and the size of what comes, if it is known."""
    room = header.room_behind
    if header.data_bytes % 2 and feed.peek(1) == b"\0" and _is_boundary(feed, room - 1, skip=1):
        feed.skip(1)
        room -= 1
    if not _is_boundary(feed, room):
        return True, None
    while len(head := feed.peek(12)) >= 8:
        if starts_like_wav(head):
            further = read_wav_header(feed, name)
            if further is None or further.pcm != header.pcm:
                raise AudioError(
                    f"{name} goes on with sound in another format",
                    hint="write all of it in one format",
                    code="E-AUDIO-FORMAT",
                )
            return False, _believable(further.data_bytes)
        feed.skip(8)
        size = int.from_bytes(head[4:8], "little")
        if head[:4] == b"data":
            return False, _believable(size)
        feed.skip(size + size % 2)
    return False, None


def _believable(size: int) -> int | None:
    """A stated size that may be one, else ``None``."""
    return size if 0 < size < _UNKNOWN_FROM else None


def _is_boundary(feed: ByteFeed, room: int, *, skip: int = 0) -> bool:
    """Whether what comes is the end of the input, a chunk or tag of a WAV file, or a new WAV.

    Args:
        feed: The input.
        room: Bytes that the stated size of the whole leaves for chunks.
        skip: Bytes to look beyond.
    """
    head = feed.peek(12 + skip)[skip:]
    if len(head) == 0 or starts_like_wav(head):
        return True
    if head[:3] == b"TAG" and len(feed.peek(_ID3V1_BYTES + 1 + skip)) == _ID3V1_BYTES + skip:
        return True
    if len(head) < 8:
        return False
    kind, size = head[:4], int.from_bytes(head[4:8], "little")
    if kind in _CHUNKS_AFTER_DATA:
        return size <= _LARGEST_CHUNK or kind == b"data"
    return all(32 <= byte < 127 for byte in kind) and 8 + size <= room


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
