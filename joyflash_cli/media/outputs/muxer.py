"""Video out: the writer of a given output."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from joyflash_cli.media.outputs.clock import exact_fps
from joyflash_cli.media.outputs.film import Film
from joyflash_cli.media.outputs.formats import FORMATS
from joyflash_cli.media.outputs.names import check_is_no_folder, check_suffix, followed
from joyflash_cli.media.outputs.writer import Writer
from joyflash_cli.types import AudioClip, SoundFormat


def open_muxer(
    output: Path | BinaryIO,
    *,
    size: tuple[int, int],
    fps: float | Fraction,
    audio: AudioClip | SoundFormat | None = None,
    overwrite: bool = False,
    metadata: Mapping[str, str] | None = None,
    crf: int = 18,
    preset: str | None = None,
    given_fps: float | Fraction | None = None,
) -> Writer:
    """The writer for an output by its suffix; for a binary stream, fragmented MP4.

    Args:
        output: Where the video goes.
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

    Raises:
        OutputError: ``E-OUTPUT-SUFFIX`` for an unknown suffix, ``E-OUTPUT-FPS`` for an impossible
            rate; otherwise as the writer.
    """
    given = None if given_fps is None or given_fps == fps else exact_fps(given_fps)
    film = Film(size, exact_fps(fps), audio, metadata or {}, crf, preset, given)
    if not isinstance(output, str | Path):
        from joyflash_cli.media.outputs.pipe import PipeWriter

        return PipeWriter(output, film)
    check_is_no_folder(str(output))
    path = followed(Path(output))
    check_suffix(path)
    # By its name: a writer is loaded when it is needed, and none has to know the others.
    writer = pkgutil.resolve_name(f"{__package__}.{FORMATS[path.suffix.lower()].writer}")
    muxer: Writer = writer(path, film, overwrite=overwrite)
    return muxer
