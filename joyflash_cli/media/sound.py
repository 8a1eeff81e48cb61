"""Sound of any origin, heard once from its beginning: a file, a pipe, or samples in memory.

A file is read through once to check it and to know its length, then again piece by piece: an hour
of sound takes no more memory than a second. A pipe is heard as it arrives.
"""

from __future__ import annotations

import hashlib
import io
import os
import select
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np

from joyflash_cli.errors import AudioError
from joyflash_cli.media.audio import SILENCE_PEAK
from joyflash_cli.media.audio_decoding import (
    MAX_DURATION_S,
    check_sound_format,
    checked_rate,
    checked_samples,
    decoded_pieces,
    empty_sound,
    open_sound_track,
    opened_sound_file,
    too_long,
)
from joyflash_cli.media.wav import (
    ByteFeed,
    PcmFormat,
    read_wav_header,
    starts_like_wav,
    wav_data,
)
from joyflash_cli.types import AudioClip, SoundFormat

STANDARD_INPUT_NAME = "standard input"
_PIECE_SAMPLES = 1 << 14
_WAKE_EVERY_MS = 200
# What libavformat may read ahead of a compressed pipe before it gives the first sample.
_PIPE_OPTIONS = {"probesize": "32768", "analyzeduration": "200000"}


def _never(*_: object) -> None:
    """Waiting that nobody interrupts."""


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


class Sound(Protocol):
    """A sound that can be opened."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def num_samples(self) -> int | None:
        """Samples per channel; ``None`` while nobody knows."""
        ...

    def open(self, check: Callable[[], None] = _never) -> OpenSound:
        """Begins to hear it; may wait for the first bytes.

        Args:
            check: Called while waiting, a few times a second; what it raises ends the waiting.

        Raises:
            AudioError: If it is no sound.
        """
        ...


class ClipSound:
    """Samples that are in memory already."""

    name = "the sound"

    def __init__(self, clip: AudioClip) -> None:
        self.clip = clip

    @property
    def num_samples(self) -> int:
        """Samples per channel."""
        return len(self.clip.samples)

    def open(self, check: Callable[[], None] = _never) -> OpenSound:
        """See ``Sound``."""
        samples = self.clip.samples
        pieces = (
            samples[start : start + _PIECE_SAMPLES]
            for start in range(0, len(samples), _PIECE_SAMPLES)
        )
        return OpenSound(self.name, SoundFormat(self.clip.sample_rate_hz, samples.shape[1]), pieces)


@dataclass(frozen=True)
class FileSound:
    """A sound file that was checked from beginning to end; made by ``check_sound_file``.

    Attributes:
        path: The file.
        format: Rate and channels.
        num_samples: Samples per channel, at least one.
        is_silent: Whether no sample reaches -60 dB of full scale.
        pcm: For a file of plain samples without a header.
    """

    path: Path
    format: SoundFormat
    num_samples: int
    is_silent: bool
    pcm: PcmFormat | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def open(self, check: Callable[[], None] = _never) -> OpenSound:
        """See ``Sound``."""
        return OpenSound(self.name, self.format, self._pieces())

    def _pieces(self) -> Iterator[np.ndarray]:
        with opened_sound_file(self.path) as file:
            yield from _hear(file, file.read, self.name, self.pcm).pieces


class LiveSound:
    """Sound on a pipe: WAV whose header may lie, plain samples, or any format that streams.

    It can be heard once.

    Args:
        stream: Read to its end, never closed. Where it has a file descriptor, that is read
            directly, so nothing may have been read through Python's own buffer before.
        pcm: For samples without a header.
        name: For messages.
    """

    num_samples = None

    def __init__(
        self, stream: BinaryIO, pcm: PcmFormat | None = None, *, name: str = STANDARD_INPUT_NAME
    ) -> None:
        self.name = name
        self._stream = stream
        self._pcm = pcm
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the bytes heard so far, hexadecimal."""
        return self._digest.hexdigest()

    def open(self, check: Callable[[], None] = _never) -> OpenSound:
        """See ``Sound``."""
        read_some = _interruptible(self._stream, check)

        def read(count: int) -> bytes:
            data = read_some(count)
            self._digest.update(data)
            return data

        return _hear(None, read, self.name, self._pcm)


def check_sound_file(path: Path, pcm: PcmFormat | None = None) -> FileSound:
    """A sound file, heard once to its end so that a mistake in it is told before any work.

    Args:
        path: Always a plain local file, however it is spelled.
        pcm: For a file of plain samples without a header.

    Raises:
        AudioError: As ``read_audio``.
    """
    path = Path(path)
    with opened_sound_file(path) as file:
        feed = ByteFeed(file.read)
        plain = _plain_data(feed, path.name, pcm)
        if plain is None:
            opened = _hear_compressed(file, feed, path.name)
            sound, pieces = opened.format, opened.pieces
        else:
            sound = SoundFormat(plain[0].sample_rate_hz, plain[0].channels)
            pieces = _decoded(plain[1], plain[0], path.name)
        num_samples, silent = 0, True
        for piece in pieces:
            num_samples += len(piece)
            silent = silent and not np.abs(piece).max(initial=0.0) >= SILENCE_PEAK
            if not silent and plain is not None and not plain[0].is_float:
                break  # integers cannot be wrong: the rest is only counted
        if plain is not None:
            num_samples += sum(len(data) for data in plain[1]) // plain[0].frame_bytes
    if num_samples == 0:
        raise empty_sound(path.name)
    if num_samples > MAX_DURATION_S * sound.sample_rate_hz:
        raise too_long(path.name)
    return FileSound(path, sound, num_samples, silent, pcm)


def is_pipe(path: Path) -> bool:
    """Whether a path names a pipe: a FIFO, ``/dev/stdin`` or a shell's ``<(program)``."""
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def open_pipe(path: Path, pcm: PcmFormat | None = None) -> LiveSound:
    """The sound of a pipe that has a name, heard as it arrives.

    Args:
        path: Of which ``is_pipe`` is true.
        pcm: For samples without a header.

    Raises:
        AudioError: ``E-AUDIO-MISSING`` if it cannot be opened.
    """
    try:
        stream = Path(path).open("rb", buffering=0)  # noqa: SIM115 - open as long as it is heard
    except OSError as error:
        raise AudioError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="give the path of a sound file",
            code="E-AUDIO-MISSING",
        ) from error
    return LiveSound(cast("BinaryIO", stream), pcm, name=str(path))


class _Pipe(io.RawIOBase):
    """A ``ByteFeed`` as the file object that PyAV reads."""

    def __init__(self, feed: ByteFeed) -> None:
        self._feed = feed

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        return self._feed.some(size)


def _hear(
    file: BinaryIO | None, read: Callable[[int], bytes], name: str, pcm: PcmFormat | None
) -> OpenSound:
    """A sound from its first byte.

    Args:
        file: Seekable, at its beginning; ``None`` for a pipe.
        read: Gives its bytes.
        name: For messages.
        pcm: For samples without a header.
    """
    feed = ByteFeed(read)
    plain = _plain_data(feed, name, pcm)
    if plain is None:
        return _hear_compressed(file, feed, name)
    pcm, data = plain
    sound = SoundFormat(pcm.sample_rate_hz, pcm.channels)
    return OpenSound(name, sound, _decoded(data, pcm, name))


def _plain_data(
    feed: ByteFeed, name: str, pcm: PcmFormat | None
) -> tuple[PcmFormat, Iterator[bytes]] | None:
    """Format and bytes of plain samples; ``None``, nothing taken, where they are compressed."""
    stated_size = 0
    if pcm is None:
        head = feed.peek(12)
        if not head:
            raise empty_sound(name)
        header = read_wav_header(feed, name) if starts_like_wav(head) else None
        if header is None:
            return None
        pcm, stated_size = header
    check_sound_format(pcm.sample_rate_hz, pcm.channels, name)
    # Plain samples have no chunks that could follow: size 0 is "until the end".
    return pcm, wav_data(feed, pcm, stated_size, name)


def _decoded(data: Iterator[bytes], pcm: PcmFormat, name: str) -> Iterator[np.ndarray]:
    num_samples = 0
    for piece in data:
        samples = pcm.decode(piece)
        yield checked_samples(samples, num_samples, pcm.sample_rate_hz, name)
        num_samples += len(samples)


def _hear_compressed(file: BinaryIO | None, feed: ByteFeed, name: str) -> OpenSound:
    if file is None:
        track = open_sound_track(_Pipe(feed), name, **_PIPE_OPTIONS)  # type: ignore[arg-type]
    else:
        file.seek(0)
        track = open_sound_track(file, name)
    container, stream = track.__enter__()

    def pieces() -> Iterator[np.ndarray]:
        try:
            yield from decoded_pieces(container, stream, name)
        finally:
            track.__exit__(None, None, None)

    return OpenSound(name, SoundFormat(*checked_rate(stream, name)), pieces())


def _interruptible(stream: BinaryIO, check: Callable[[], None]) -> Callable[[int], bytes]:
    """A ``read`` that gives what is there and, while nothing is, calls ``check``."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return stream.read  # in memory: it never waits
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN | select.POLLHUP | select.POLLERR)

    def read(count: int) -> bytes:
        while True:
            check()
            if waiting.poll(_WAKE_EVERY_MS):
                try:
                    return os.read(descriptor, count)
                except BlockingIOError:
                    continue  # somebody else took it, or the pipe does not block

    return read
