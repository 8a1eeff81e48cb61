"""A sound from its first byte: plain samples or compressed ones, from a file or from a pipe."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np

from joyflash_cli.errors import UsageError
from joyflash_cli.media.inputs.audio_decoding import (
    check_sound_format,
    checked_rate,
    checked_samples,
    decoded_pieces,
    empty_sound,
    open_sound_track,
)
from joyflash_cli.media.inputs.compressed import TAIL_BYTES, read_declared, read_head
from joyflash_cli.media.inputs.hearing import Hearing, PcmFormat, no_such_track
from joyflash_cli.media.inputs.kinds import format_of
from joyflash_cli.media.inputs.wav import (
    ByteFeed,
    WavHeader,
    read_wav_header,
    sizes_are_right,
    starts_like_wav,
    wav_data,
)
from joyflash_cli.types import SoundFormat

# What libavformat may read ahead of a compressed pipe before it gives the first sample.
_PIPE_OPTIONS = {"probesize": "32768", "analyzeduration": "200000"}


@dataclass(frozen=True)
class OpenSound:
    """A sound that is being heard.

    Attributes:
        name: For messages.
        format: Its rate and channels.
        pieces: Its samples in order, ``(n, channels)`` float32 in -1..1, as they arrive; raises
            ``AudioError`` where the sound cannot be used.
        plain: What they are decoded from, where it is not compressed.
    """

    name: str
    format: SoundFormat
    pieces: Iterator[np.ndarray]
    plain: tuple[PcmFormat, Iterator[bytes]] | None = None

    @property
    def cannot_be_wrong(self) -> bool:
        """Whether what was not decoded yet needs no look: integers are numbers, and in range."""
        return self.plain is not None and not self.plain[0].is_float

    def count_rest(self) -> int:
        """Samples per channel that were not decoded, and now never will be."""
        if self.plain is None:
            return 0
        pcm, data = self.plain
        return sum(map(len, data)) // pcm.frame_bytes


class _Pipe:
    """A ``ByteFeed`` as PyAV reads it, and no more; knows how much came, and the last of it.

    Args:
        feed: The bytes.
    """

    def __init__(self, feed: ByteFeed) -> None:
        self._feed = feed
        self._last: list[bytes] = []
        self.num_bytes = 0

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        data = self._feed.some(size)
        self.num_bytes += len(data)
        self._last.append(data)
        if len(self._last) > 1 and sum(map(len, self._last[1:])) > TAIL_BYTES:
            del self._last[0]
        return data

    def end(self) -> tuple[int, bytes]:
        """Bytes that came, and the last of them."""
        return self.num_bytes, b"".join(self._last)[-TAIL_BYTES:]


def hear(
    file: BinaryIO | None,
    read: Callable[[int], bytes],
    hearing: Hearing,
    pcm: PcmFormat | None = None,
) -> OpenSound:
    """A sound from its first byte.

    Args:
        file: Seekable, at its beginning; ``None`` for a pipe.
        read: Gives its bytes.
        hearing: Choices, and is told what is learned.
        pcm: For samples without a header.

    Raises:
        AudioError: If it is no sound, or has no track as chosen.
        UsageError: For a format that is given although there is a header.
    """
    feed, name = ByteFeed(read), hearing.name
    header = _plain_header(feed, name, pcm)
    if header is None:
        return _open_compressed(file, feed, hearing)
    if hearing.choices.track:
        raise no_such_track(name, 1, hearing.choices.track)
    sound = SoundFormat(header.pcm.sample_rate_hz, header.pcm.channels)
    check_sound_format(sound.sample_rate_hz, sound.channels, name)
    is_right = file is not None and pcm is None and sizes_are_right(file, header)
    data = wav_data(feed, header, hearing, is_right=is_right)

    def pieces() -> Iterator[np.ndarray]:
        num_samples = 0
        for piece in data:
            samples = header.pcm.decode(piece)
            yield checked_samples(samples, num_samples, sound.sample_rate_hz, name)
            num_samples += len(samples)

    return OpenSound(name, sound, pieces(), (header.pcm, data))


def _plain_header(feed: ByteFeed, name: str, pcm: PcmFormat | None) -> WavHeader | None:
    """What stands before plain samples; ``None``, nothing taken, where they are compressed."""
    head = feed.peek(12)
    if pcm is None:
        if not head:
            raise empty_sound(name)
        return read_wav_header(feed, name) if starts_like_wav(head) else None
    if format_of(head)[1] in ("sound", "video"):
        raise UsageError(
            f"{name} is a sound file with a header; --audio-format is for samples without one",
            hint="leave --audio-format out",
            code="E-AUDIO-FORMAT-OPTION",
        )
    # Plain samples have no chunks that could follow: size 0 is "until the end".
    return WavHeader(pcm)


def _open_compressed(file: BinaryIO | None, feed: ByteFeed, hearing: Hearing) -> OpenSound:
    """Sound that libavformat reads; of the feed, which gives the same bytes, nothing was taken."""
    pipe = _Pipe(feed)
    head = read_head(feed.peek)
    if file is not None:
        file.seek(0)
    with contextlib.ExitStack() as opening:
        options = _PIPE_OPTIONS if file is None else {}
        source = cast("BinaryIO", pipe if file is None else file)
        container, stream = opening.enter_context(open_sound_track(source, hearing, **options))
        sound = SoundFormat(*checked_rate(stream, hearing.name))
        declared = read_declared(container, stream, head)
        closing = opening.pop_all()

    def pieces() -> Iterator[np.ndarray]:
        num_samples = 0
        with closing:
            for piece in decoded_pieces(container, stream, hearing):
                num_samples += len(piece)
                yield piece
        if num_samples:
            heard_s = num_samples / sound.sample_rate_hz
            is_cut = declared.is_cut(heard_s, *(pipe.end() if file is None else _file_end(file)))
            hearing.end(heard_s, declared.duration_s, is_cut=is_cut)

    return OpenSound(hearing.name, sound, pieces())


def _file_end(file: BinaryIO) -> tuple[int, bytes]:
    """Length of a file, and its last bytes."""
    length = file.seek(0, 2)
    file.seek(max(0, length - TAIL_BYTES))
    return length, file.read()
