"""Names of outputs and of what lies beside them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from joyflash_cli.errors import OutputError

PYAV_SUFFIXES = (".mp4", ".m4v")
FFMPEG_SUFFIXES = (".mkv", ".mov", ".webm")
PLAYLIST_SUFFIX = ".m3u8"
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PICTURE_NUMBER = re.compile(r"%0?[1-9]?d")
"""Where the number goes in the name of a picture sequence: ``face-%05d.png``."""

Source = Path | int
"""A file that a run reads, or the descriptor that it reads from."""


def followed(path: Path) -> Path:
    """What is written under a name: a link is kept, and what it leads to is replaced.

    Raises:
        OutputError: ``E-OUTPUT-WRITE`` for a link that leads to itself.
    """
    if not os.path.islink(path):
        return path
    target = Path(os.path.realpath(path))
    if os.path.islink(target):
        raise OutputError(
            f"{path} is a link that leads to itself",
            hint="choose another --output",
            code="E-OUTPUT-WRITE",
        )
    return target


def check_is_no_folder(output: str) -> None:
    """Refuses a name that says that it is a folder; a path would forget the slash.

    Raises:
        OutputError: ``E-OUTPUT-FOLDER``.
    """
    if output.endswith((os.sep, f"{os.sep}.", f"{os.sep}..")) or output in (".", ".."):
        raise OutputError(
            f"{output} is a folder",
            hint=f"add a file name, such as {os.path.join(output, 'video.mp4')}",
            code="E-OUTPUT-FOLDER",
        )


def check_suffix(path: Path) -> None:
    """Refuses a file name whose suffix no writer knows.

    Raises:
        OutputError: ``E-OUTPUT-SUFFIX``, naming the suffixes that work.
    """
    known = (*PYAV_SUFFIXES, *FFMPEG_SUFFIXES, PLAYLIST_SUFFIX)
    path = Path(path)
    suffix = path.suffix
    if suffix.lower() in PICTURE_SUFFIXES:
        if len(PICTURE_NUMBER.findall(path.name)) == 1 and path.name.count("%") == 1:
            return
        raise OutputError(
            f"{path} is one picture; a sequence needs one number in its name",
            hint=f"for example {path.stem.replace('%', '') or 'face'}-%05d{suffix}",
            code="E-OUTPUT-SUFFIX",
        )
    if suffix.lower() not in known:
        raise OutputError(
            f"{path} ends in {suffix or 'no suffix'}; {', '.join(known)} can be written, and "
            "pictures such as face-%05d.png",
            hint="end the name in .mp4",
            code="E-OUTPUT-SUFFIX",
        )


def sidecar_path(output: Path) -> Path:
    """Where the record of a video lies: its whole name with ``.json`` behind it."""
    output = Path(output)
    return output.with_name(f"{_single_name(output).name}.json")


def preview_path(output: Path) -> Path:
    """Where the thumbnails of a video go: ``NAME.preview.png`` beside it, or right here."""
    if str(output) == "-":
        return Path("joyflash.preview.png")
    return output.with_name(f"{_single_name(output).stem}.preview.png")


def _single_name(output: Path) -> Path:
    """One name for an output: a pattern such as ``f-%05d.png`` without its percent sign."""
    if output.suffix.lower() not in PICTURE_SUFFIXES:
        return output
    return output.with_name(PICTURE_NUMBER.sub(lambda number: number[0][1:], output.name))


def partial_path(video: Path) -> Path:
    """What a video is called that was cut short."""
    return video.with_name(f"{video.stem}.partial{video.suffix}")


def with_tmp(path: Path) -> Path:
    """What libavformat calls a file of a playlist while it writes it."""
    return path.with_name(f"{path.name}.tmp")


def is_same_file(path: Path, other: Source) -> bool:
    """Whether two names are one file, through symbolic and hard links."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):  # one of them is not there, or can be no name
        return False
