"""Sound of any origin, heard once from its beginning: a file, a pipe, or samples in memory.

A file is opened once: read through to check it and to know its length and its hash, then heard
piece by piece, so that an hour of sound takes no more memory than a second and nothing that is put
under its name meanwhile is heard instead. A pipe is heard as it arrives.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import stat
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np

from joyflash_cli.errors import AudioError
from joyflash_cli.media.inputs.audio_decoding import (
    MAX_DURATION_S,
    SILENCE_PEAK,
    empty_sound,
    opened_sound_file,
    too_long,
)
from joyflash_cli.media.inputs.hearing import Hearing, PcmFormat, SoundChoices
from joyflash_cli.media.inputs.sound_opening import OpenSound, hear
from joyflash_cli.types import AudioClip, SoundFormat

STANDARD_INPUT_NAME = "standard input"
_PIECE_SAMPLES = 1 << 14
_HASHED_BYTES = 1 << 20
_WAKE_EVERY_MS = 200

Stamp = tuple[int, int, int, int]


def _never(*_: object) -> None:
    """Waiting that nobody interrupts."""


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


@dataclass(eq=False)
class FileSound:
    """A sound file that was checked from beginning to end; made by ``check_sound_file``.

    Attributes:
        path: Its name.
        file: Itself, open as long as this value lives.
        format: Rate and channels.
        num_samples: Samples per channel, at least one.
        is_silent: Whether no sample reaches -60 dB of full scale.
        checked: SHA-256 of its bytes when it was checked, and the stamp the file had.
        pcm: For a file of plain samples without a header.
        hearing: What was learned about it.
    """

    path: Path
    file: BinaryIO
    format: SoundFormat
    num_samples: int
    is_silent: bool
    checked: tuple[str, Stamp]
    pcm: PcmFormat | None
    hearing: Hearing
    _was_heard: bool = False

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def sha256(self) -> str:
        """Of its bytes, hexadecimal; read again only if they may have changed since."""
        digest, stamp = self.checked
        descriptor = self.file.fileno()
        return digest if _stamp(os.fstat(descriptor)) == stamp else _sha256_of(descriptor)

    def open(self, check: Callable[[], None] = _never) -> OpenSound:
        """See ``Sound``. Whoever hears it beside somebody else opens its name again."""
        return OpenSound(self.name, self.format, self._pieces())

    def __getstate__(self) -> dict[str, object]:
        """For another process, which opens its name again."""
        return {**vars(self), "path": self.path.absolute(), "file": None, "_was_heard": True}

    def _pieces(self) -> Iterator[np.ndarray]:
        # What was to be refused or told was so when it was checked; the track stays the same.
        choices = replace(self.hearing.choices, track=self.hearing.track, strict=False)
        source, self._was_heard = self.path if self._was_heard else self.file, True
        with opened_sound_file(source) as file:
            file.seek(0)
            yield from hear(file, file.read, Hearing(self.name, choices), self.pcm).pieces


class LiveSound:
    """Sound on a pipe: WAV whose header may lie, plain samples, or any format that streams.

    It can be heard once.

    Args:
        stream: Read to its end, never closed. Where it has a file descriptor, that is read
            directly, so nothing may have been read through Python's own buffer before.
        pcm: For samples without a header.
        name: For messages.
        choices: How it is to be heard.
    """

    num_samples = None

    def __init__(
        self,
        stream: BinaryIO,
        pcm: PcmFormat | None = None,
        *,
        name: str = STANDARD_INPUT_NAME,
        choices: SoundChoices | None = None,
    ) -> None:
        self.name = name
        self.hearing = Hearing(name, choices)
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

        return hear(None, read, self.hearing, self._pcm)


def check_sound_file(
    path: Path, pcm: PcmFormat | None = None, *, choices: SoundChoices | None = None
) -> FileSound:
    """A sound file, heard once to its end so that a mistake in it is told before any work.

    Args:
        path: Always a plain local file, however it is spelled.
        pcm: For a file of plain samples without a header.
        choices: How it is to be heard.

    Raises:
        AudioError: As ``read_audio``; ``E-AUDIO-TRUNCATED`` under a strict choice.
        UsageError: For a format that is given although the file has a header.
    """
    path = Path(path)
    hearing = Hearing(path.name, choices)
    with contextlib.ExitStack() as closing:
        file = closing.enter_context(opened_sound_file(path))
        stamp = _stamp(os.fstat(file.fileno()))
        opened = hear(file, file.read, hearing, pcm)
        num_samples, silent = 0, True
        for piece in opened.pieces:
            num_samples += len(piece)
            silent = silent and not np.abs(piece).max(initial=0.0) >= SILENCE_PEAK
            if not silent and opened.cannot_be_wrong:
                break  # the rest is only counted
        num_samples += opened.count_rest()
        if num_samples == 0:
            raise empty_sound(path.name)
        if num_samples > MAX_DURATION_S * opened.format.sample_rate_hz:
            raise too_long(path.name)
        checked = _sha256_of(file.fileno()), stamp
        sound = FileSound(path, file, opened.format, num_samples, silent, checked, pcm, hearing)
        weakref.finalize(sound, closing.pop_all().close)
    return sound


def _stamp(status: os.stat_result) -> Stamp:
    """What changes with a file's contents, without reading them."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _sha256_of(descriptor: int) -> str:
    """Of all bytes of an open file, wherever it stands, and whoever reads it meanwhile."""
    digest, read = hashlib.sha256(), 0
    while piece := os.pread(descriptor, _HASHED_BYTES, read):
        digest.update(piece)
        read += len(piece)
    return digest.hexdigest()


def is_pipe(path: Path) -> bool:
    """Whether a path names a pipe: a FIFO, ``/dev/stdin`` or a shell's ``<(program)``."""
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def open_pipe(
    path: Path, pcm: PcmFormat | None = None, *, choices: SoundChoices | None = None
) -> LiveSound:
    """The sound of a pipe that has a name, heard as it arrives; waits for its writer.

    Args:
        path: Of which ``is_pipe`` is true.
        pcm: For samples without a header.
        choices: How it is to be heard.

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
    return LiveSound(cast("BinaryIO", stream), pcm, name=str(path), choices=choices)


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
