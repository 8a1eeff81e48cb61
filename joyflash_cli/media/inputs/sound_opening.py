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
from joyflash_cli.media.inputs.hearing import Hearing, PcmFormat
from joyflash_cli.media.inputs.kinds import is_sound_header
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
    """

    name: str
    format: SoundFormat
    pieces: Iterator[np.ndarray]


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


class PlainSound:
    """Plain samples that are heard: decoded, or only counted.

    Args:
        feed: At the first sample.
        header: What stood before.
        hearing: Is told how it ended.
        is_right: Whether the sizes in the header are to be believed.
    """

    def __init__(
        self, feed: ByteFeed, header: WavHeader, hearing: Hearing, *, is_right: bool
    ) -> None:
        self.header = header
        self._hearing = hearing
        self._num_samples = 0
        self._missing_bytes = 0
        self._has_ended = False
        self._data = wav_data(
            feed, header, hearing.name, is_right=is_right, on_cut=self._note_missing
        )

    def open(self) -> OpenSound:
        """The sound, to be decoded."""
        pcm = self.header.pcm
        sound = SoundFormat(pcm.sample_rate_hz, pcm.channels)
        return OpenSound(self._hearing.name, sound, self._pieces())

    def count_rest(self) -> int:
        """Samples per channel that were not decoded."""
        before = self._num_samples
        for data in self._data:
            self._num_samples += len(data) // self.header.pcm.frame_bytes
        self._end()
        return self._num_samples - before

    def _pieces(self) -> Iterator[np.ndarray]:
        pcm, name = self.header.pcm, self._hearing.name
        for piece in self._data:
            samples, first = pcm.decode(piece), self._num_samples
            self._num_samples += len(samples)
            yield checked_samples(samples, first, pcm.sample_rate_hz, name)
        self._end()

    def _note_missing(self, num_bytes: int) -> None:
        self._missing_bytes = num_bytes

    def _end(self) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        pcm = self.header.pcm
        missing = self._missing_bytes // pcm.frame_bytes
        self._hearing.end(
            self._num_samples / pcm.sample_rate_hz,
            (self._num_samples + missing) / pcm.sample_rate_hz,
            is_cut=missing > 0,
        )


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
    """
    feed = ByteFeed(read)
    plain = open_plain(file, feed, hearing, pcm)
    return open_compressed(file, feed, hearing) if plain is None else plain.open()


def open_plain(
    file: BinaryIO | None, feed: ByteFeed, hearing: Hearing, pcm: PcmFormat | None
) -> PlainSound | None:
    """Plain samples that follow; ``None``, nothing taken, where they are compressed."""
    name = hearing.name
    head = feed.peek(12)
    if pcm is None:
        if not head:
            raise empty_sound(name)
        header = read_wav_header(feed, name) if starts_like_wav(head) else None
        if header is None:
            return None
    elif is_sound_header(head):
        raise UsageError(
            f"{name} is a sound file with a header; --audio-format is for samples without one",
            hint="leave --audio-format out",
            code="E-AUDIO-FORMAT-OPTION",
        )
    else:
        # Plain samples have no chunks that could follow: size 0 is "until the end".
        header = WavHeader(pcm)
    hearing.check_only_track()
    check_sound_format(header.pcm.sample_rate_hz, header.pcm.channels, name)
    is_right = file is not None and pcm is None and sizes_are_right(file, header)
    return PlainSound(feed, header, hearing, is_right=is_right)


def open_compressed(file: BinaryIO | None, feed: ByteFeed, hearing: Hearing) -> OpenSound:
    """Sound that libavformat reads.

    Args:
        file: Seekable; ``None`` for a pipe.
        feed: The same bytes, nothing of them taken.
        hearing: Choices, and is told what is learned.

    Raises:
        AudioError: If it is no sound, or has no track as chosen.
    """
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
