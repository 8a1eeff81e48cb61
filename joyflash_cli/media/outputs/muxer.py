"""Video out: what every writer of frames and sound offers, and which one writes a given file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import numpy as np

from joyflash_cli.media.outputs.names import (
    PICTURE_SUFFIXES,
    PLAYLIST_SUFFIX,
    PYAV_SUFFIXES,
    check_is_no_folder,
    check_suffix,
    followed,
)
from joyflash_cli.media.outputs.probe import MediaInfo
from joyflash_cli.types import AudioClip, SoundFormat


class Muxer(Protocol):
    """Frames and the original sound into one file, frame i at i / fps.

    Used in a ``with`` statement; leaving it without :meth:`finish` or :meth:`keep_partial`
    discards what was written.
    """

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        ...

    def write(self, frames: np.ndarray, sound: AudioClip | None = None) -> None:
        """Appends ``(F, H, W, 3)`` uint8 RGB frames and the sound that belongs to them.

        Args:
            frames: Of the announced size.
            sound: The sound that follows what was given before; nothing where all of it was given
                when the file was opened.

        Raises:
            OutputError: Disk full or another failure; what plays was kept as partial.
        """
        ...

    def finish(self) -> MediaInfo | None:
        """Completes the file, reads it back and gives it its name.

        Returns:
            What it holds; ``None`` where it is no single file that could be read back.

        Raises:
            OutputError: If it cannot be written or its tracks differ by more than a frame.
        """
        ...

    def keep_partial(self) -> Path | None:
        """Completes what there is as ``<stem>.partial<suffix>``, sound cut to the video.

        Returns:
            The partial file, ``None`` if no frame was written or the output is a pipe.
        """
        ...

    def discard(self) -> None:
        """Removes every trace; safe to call at any time."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_muxer(
    output: Path | BinaryIO,
    *,
    size: tuple[int, int],
    fps: float | Fraction,
    audio: AudioClip | SoundFormat | None = None,
    overwrite: bool = False,
    **encoding: Any,
) -> Muxer:
    """The writer for an output by its suffix; for a binary stream, fragmented MP4.

    Args:
        output: Where the video goes.
        size: Width and height of the frames that will be written.
        fps: Frames per second.
        audio: The original sound, or its format where the sound comes with the frames; ``None``
            for a silent film.
        overwrite: Whether a file already there may be replaced.
        encoding: ``metadata`` (tags; containers keep well-known keys such as ``comment``), ``crf``
            and ``preset``.

    Raises:
        OutputError: ``E-OUTPUT-SUFFIX`` for an unknown suffix; otherwise as the writer.
    """
    common: dict[str, Any] = {"size": size, "fps": fps, "audio": audio, **encoding}
    if not isinstance(output, str | Path):
        from joyflash_cli.media.outputs.pipe import PipeMuxer

        return PipeMuxer(output, **common)
    check_is_no_folder(str(output))
    path = followed(Path(output))
    check_suffix(path)
    writer: Any
    if path.suffix.lower() in PYAV_SUFFIXES:
        from joyflash_cli.media.outputs.mp4 import Mp4Muxer as writer
    elif path.suffix.lower() == PLAYLIST_SUFFIX:
        from joyflash_cli.media.outputs.hls import HlsMuxer as writer
    elif path.suffix.lower() in PICTURE_SUFFIXES:
        from joyflash_cli.media.outputs.pictures import PictureMuxer as writer
    else:
        from joyflash_cli.media.outputs.ffmpeg import FfmpegMuxer as writer
    muxer: Muxer = writer(path, overwrite=overwrite, **common)
    return muxer
