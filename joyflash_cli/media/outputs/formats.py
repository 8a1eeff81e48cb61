"""Every output that can be written, by the ending of its name: a new one needs an entry here.

Names, writers, the reading back and the texts that name them all look them up in ``FORMATS``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class OutputFormat:
    """What is written under a suffix.

    Attributes:
        writer: ``module:class`` of the ``Writer`` beside this file.
        kind: ``"video"``: one file. ``"playlist"``: a list of segments. ``"pictures"``: a file
            per frame.
        container: libavformat's name of the container.
        video: Encoder of the frames.
        audio: Encoder of the sound.
        mixes_down: Whether sound of more than two channels becomes stereo.
        seals: Where a signed statement about it lies: ``"inside"`` the file (the first one of
            pictures), ``"beside"`` it, or nowhere.
    """

    writer: str
    kind: Literal["video", "playlist", "pictures"] = "video"
    container: str = "mp4"
    video: Literal["libx264", "libvpx-vp9"] = "libx264"
    audio: Literal["aac", "flac", "libopus"] = "aac"
    mixes_down: bool = True
    seals: Literal["inside", "beside", "nowhere"] = "inside"


_MP4 = OutputFormat("file_writer:FileWriter")
_PICTURES = OutputFormat("pictures:PictureWriter", "pictures")

PIPE = OutputFormat("pipe:PipeWriter")
"""What a stream without a name gets."""

FORMATS = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mkv": replace(_MP4, container="matroska", audio="flac", mixes_down=False, seals="beside"),
    ".mov": replace(_MP4, container="mov", mixes_down=False),
    ".webm": replace(
        _MP4,
        container="webm",
        video="libvpx-vp9",
        audio="libopus",
        mixes_down=False,
        seals="beside",
    ),
    ".m3u8": OutputFormat("hls:HlsWriter", "playlist", container="hls", seals="nowhere"),
    ".png": _PICTURES,
    ".jpg": _PICTURES,
    ".jpeg": _PICTURES,
    ".webp": _PICTURES,
}

VIDEO_SUFFIXES = tuple(suffix for suffix, entry in FORMATS.items() if entry.kind == "video")
"""Outputs that are one file."""

BOX_SUFFIXES = (".mp4", ".m4v", ".mov")
"""Files that are made of boxes, as MP4 is."""


def format_of(path: Path) -> OutputFormat | None:
    """What a file of this name is written as; ``None`` where no writer knows it."""
    return FORMATS.get(path.suffix.lower())
