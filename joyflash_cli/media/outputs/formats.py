"""Every output that can be written, by the ending of its name: a new one needs an entry here.

Names, writers, the reading back and the texts that name them all look them up in ``FORMATS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# No macroblock tree: see tracks, the same frames must give the same bytes.
_H264 = (
    "-c:v", "libx264", "-pix_fmt", "yuv420p", "-mbtree", "0",
    "-preset", "{preset}", "-crf", "{crf}",
)  # fmt: skip
_VP9 = (
    "-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-deadline", "realtime", "-cpu-used", "8",
    "-crf", "{crf}", "-b:v", "0",
)  # fmt: skip


@dataclass(frozen=True)
class OutputFormat:
    """What is written under a suffix.

    Attributes:
        writer: ``module:class`` of the ``Writer`` beside this file.
        kind: ``"video"``: one file. ``"playlist"``: a list of segments. ``"pictures"``: a file
            per frame.
        video: The ffmpeg program's options for the frames, ``{crf}`` and ``{preset}`` to be filled
            in.
        audio: Its options for the sound.
        seals: Where a signed statement about it lies: ``"inside"`` the file (the first one of
            pictures), ``"beside"`` it, or nowhere.
    """

    writer: str
    kind: Literal["video", "playlist", "pictures"] = "video"
    video: tuple[str, ...] = ()
    audio: tuple[str, ...] = ()
    seals: Literal["inside", "beside", "nowhere"] = "inside"


_MP4 = OutputFormat("file_writer:Mp4Writer")
_FFMPEG = "ffmpeg:FfmpegWriter"
_PICTURES = OutputFormat("pictures:PictureWriter", "pictures")

PIPE = "pipe:PipeWriter"
"""The writer of a stream without a name."""

FORMATS = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mkv": OutputFormat(_FFMPEG, video=_H264, audio=("-c:a", "flac"), seals="beside"),
    ".mov": OutputFormat(
        _FFMPEG,
        # Its index in front, so that a player on a network begins at once.
        video=(*_H264, "-movflags", "+faststart"),
        audio=("-c:a", "aac", "-b:a", "192k", "-ar", "48000"),
    ),
    ".webm": OutputFormat(
        _FFMPEG,
        video=_VP9,
        audio=("-c:a", "libopus", "-b:a", "128k", "-ar", "48000"),
        seals="beside",
    ),
    ".m3u8": OutputFormat("hls:HlsWriter", "playlist", seals="nowhere"),
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
