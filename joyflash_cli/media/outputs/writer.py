"""The shell of every output: frames and the original sound go in, and it ends in one of four ways.

It is finished, kept as far as it came, discarded, or it fails; what differs between containers is
where their tracks lie and what those ends mean.
"""

from __future__ import annotations

import contextlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from joyflash_cli.errors import OutputError
from joyflash_cli.files import cannot_write, is_disk_full, room_hint
from joyflash_cli.media.outputs.formats import FORMATS, PIPE
from joyflash_cli.media.outputs.names import OutputNames, check_names
from joyflash_cli.media.outputs.probe import MediaInfo
from joyflash_cli.media.outputs.tracks import Film, Retiming, Tracks, exact_fps
from joyflash_cli.types import AudioClip, SoundFormat


class DiscardedOnExit(ABC):
    """Base of the writers: leaving the ``with`` block discards what was not kept by then."""

    @abstractmethod
    def discard(self) -> None:
        """Removes every trace; safe to call at any time, and after the end it does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


class Writer(DiscardedOnExit):
    """Frames and the original sound into one output, frame i at i / fps.

    Used in a ``with`` statement; leaving it without :meth:`finish` or :meth:`keep_partial`
    discards what was written.

    Args:
        name: Of the output, for messages.
        film: What will be written.

    Attributes:
        is_sealed: Whether the film's ``seal`` is on what was finished or kept.
        seal_error: Why it is not.
        unsealed: Where what could not be sealed was kept when :meth:`finish` failed for it.

    Raises:
        OutputError: If the output cannot be opened.
    """

    tracks: Tracks | None = None
    is_sealed = False
    seal_error: OutputError | None = None
    unsealed: Path | None = None

    def __init__(self, name: Path | str, film: Film) -> None:
        self.name, self.film = name, film
        self._retiming = None if film.given_fps is None else Retiming(film.given_fps, film.fps)
        try:
            self._begin()
        except BaseException as error:
            self.discard()
            if isinstance(error, Exception) and is_write_failure(error):
                raise write_error(name, error) from error
            raise

    @property
    def num_frames(self) -> int:
        """Frames written so far, at the film's rate."""
        return 0 if self.tracks is None else self.tracks.num_frames

    def write(self, frames: np.ndarray, sound: AudioClip | None = None) -> None:
        """Appends ``(F, H, W, 3)`` uint8 RGB frames and the sound that belongs to them.

        Args:
            frames: Of the announced size, at the rate at which they are given.
            sound: The sound that follows what was given before; nothing where all of it was given
                when the file was opened.

        Raises:
            OutputError: Disk full or another failure; what plays was kept as partial.
        """
        assert self.tracks is not None
        if self._retiming is not None and self.tracks.is_open:
            frames = self._retiming.due(frames, sound)
        with self._failing():
            self.tracks.write(frames, sound)

    def finish(self) -> MediaInfo | None:
        """Completes the file, reads it back and gives it its name.

        Returns:
            What it holds; ``None`` where it is no single file that could be read back.

        Raises:
            OutputError: If it cannot be written or its tracks differ by more than a frame.
        """
        if not self.num_frames:
            self.discard()
            raise ValueError("no frame was written")
        self._close()
        return self._publish()

    def keep_partial(self) -> Path | None:
        """Completes what there is as ``<stem>.partial<suffix>``, sound cut to the video.

        Returns:
            The partial file, ``None`` if no frame was written or the output is a pipe.
        """
        if self.tracks is None or not self.tracks.is_open or not self.num_frames:
            self.discard()
            return None
        self._close()
        return self._keep()

    def discard(self) -> None:
        """Removes every trace; safe to call at any time."""
        if self.tracks is not None:
            self.tracks.abandon()

    @abstractmethod
    def _begin(self) -> None:
        """Makes place for the output and opens ``tracks``."""

    def _end(self) -> None:
        """Whatever is left to do once the tracks are closed."""

    def _publish(self) -> MediaInfo | None:
        """Names the completed output."""
        return None

    @abstractmethod
    def _keep(self) -> Path | None:
        """Names the completed beginning of an output."""

    @abstractmethod
    def _rescue(self) -> Path | None:
        """What could be saved of an output that cannot be written any more."""

    def _failure(self, error: Exception) -> Exception:
        """The error to raise for one that the system or libavformat raised."""
        return write_error(self.name, error, partial=self._rescue())

    def _close(self) -> None:
        if self.tracks is None or not self.tracks.is_open:
            raise ValueError("the file is closed")
        with self._failing():
            self.tracks.close()
            self._end()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_write_failure(error):
                raise
            raise self._failure(error) from error


class NamedWriter(Writer):
    """Writes under names that were checked.

    Args:
        names: Of the output.
        film: What will be written.
        overwrite: Whether what lies under its names may be replaced.

    Raises:
        OutputError: ``E-OUTPUT-EXISTS`` for what has come under the names since they were checked;
            if the output cannot be opened.
    """

    def __init__(self, names: OutputNames, film: Film, *, overwrite: bool = False) -> None:
        self.names, self.overwrite = names, overwrite
        super().__init__(names.path, film)

    def _begin(self) -> None:
        check_names(self.names.taken(), overwrite=self.overwrite, inputs=())


def is_write_failure(error: BaseException) -> bool:
    """Whether the system or libavformat refused a write."""
    import av

    return isinstance(error, OSError | av.error.FFmpegError)


def write_error(path: Path | str, error: Exception, *, partial: Path | None = None) -> OutputError:
    """The error for a write that failed, with what was saved of it.

    Args:
        path: The target.
        error: What the system or the encoder said.
        partial: Where the playable part was kept, if it was.
    """
    hint = room_hint(error) if is_disk_full(error) else "choose another place"
    if partial is not None:
        hint += f"; what was written is in {partial}"
    return cannot_write(path, error, hint=hint)


def open_muxer(
    output: Path | OutputNames | BinaryIO,
    *,
    size: tuple[int, int],
    fps: float | Fraction,
    audio: AudioClip | SoundFormat | None = None,
    overwrite: bool = False,
    metadata: Mapping[str, str] | None = None,
    crf: int = 18,
    preset: str | None = None,
    given_fps: float | Fraction | None = None,
    seal: Callable[[Path, Path], None] | None = None,
) -> Writer:
    """The writer for an output by its suffix; for a binary stream, fragmented MP4.

    Args:
        output: Where the video goes: a path, which is checked, names that were, or a stream.
        size: Width and height of the frames that will be written.
        fps: Frames per second.
        audio: The original sound, or its format where the sound comes with the frames; ``None``
            for a silent film.
        overwrite: Whether a file already there may be replaced.
        metadata: Tags; containers keep well-known keys such as ``comment``.
        crf: See ``Film``.
        preset: See ``Film``.
        given_fps: Rate at which frames will be given, where it is another one: they are repeated
            or left out.
        seal: See ``Film``; only for formats with ``seals``.

    Raises:
        OutputError: ``E-OUTPUT-FPS`` for an impossible rate; see :meth:`OutputNames.check`;
            otherwise as the writer.
    """
    given = None if given_fps is None or given_fps == fps else exact_fps(given_fps)
    film = Film(size, exact_fps(fps), audio, metadata or {}, crf, preset, given, seal)
    if isinstance(output, str | Path):
        output = OutputNames(output).check(overwrite=overwrite)
    # A writer is loaded when it is needed, and none knows the others.
    if isinstance(output, OutputNames):
        name = FORMATS[output.path.suffix.lower()].writer
        writer: Writer = pkgutil.resolve_name(f"{__package__}.{name}")(
            output, film, overwrite=overwrite
        )
    else:
        writer = pkgutil.resolve_name(f"{__package__}.{PIPE.writer}")(output, film)
    return writer
