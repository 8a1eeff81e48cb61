"""Files that are given: opened, and told apart by their first bytes to say something useful."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from joyflash_cli.errors import JoyFlashError

HEAD_BYTES = 16

_HEADS = (  # (offset, bytes, name, kind)
    (0, b"\x89PNG\r\n\x1a\n", "PNG", "picture"),
    (0, b"\xff\xd8\xff", "JPEG", "picture"),
    (8, b"WEBP", "WebP", "picture"),
    (0, b"GIF8", "GIF", "picture"),
    (0, b"BM", "BMP", "picture"),
    (0, b"II*\0", "TIFF", "picture"),
    (0, b"MM\0*", "TIFF", "picture"),
    (4, b"ftyphei", "HEIC", "picture"),
    (4, b"ftyphev", "HEIC", "picture"),
    (4, b"ftypmif1", "HEIC", "picture"),
    (4, b"ftypmsf1", "HEIC", "picture"),
    (4, b"ftypavi", "AVIF", "picture"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL", "picture"),
    (0, b"\xff\x0a", "JPEG XL", "picture"),
    (4, b"ftypM4A", "a sound", "sound"),
    (8, b"WAVE", "a sound", "sound"),
    (0, b"riff\x2e\x91\xcf\x11", "a sound", "sound"),
    (0, b"fLaC", "a sound", "sound"),
    (0, b"OggS", "a sound", "sound"),
    (0, b"ID3", "a sound", "sound"),
    (0, b"caff", "a sound", "sound"),
    (0, b".snd", "a sound", "sound"),
    (8, b"AIFF", "a sound", "sound"),
    (8, b"AIFC", "a sound", "sound"),
    (0, b"\xff\xfb", "a sound", "frames"),  # MP3 and AAC without a header: two bytes prove little
    (0, b"\xff\xf3", "a sound", "frames"),
    (0, b"\xff\xf1", "a sound", "frames"),
    (4, b"ftyp", "a video", "video"),
    (0, b"\x1aE\xdf\xa3", "a video", "video"),
    (0, b"%PDF", "PDF", ""),
    (0, b"<svg", "SVG", ""),
    (0, b"<?xml", "SVG", ""),
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def format_of(head: bytes) -> tuple[str, str]:
    """What the first bytes say: a name such as ``"HEIC"`` or ``"a sound"`` and a kind, or nothing.

    The kind is ``"picture"``, ``"sound"``, ``"video"``, or ``"frames"`` for sound whose two bytes
    prove little.
    """
    for offset, magic, name, kind in _HEADS:
        if head[offset : offset + len(magic)] == magic:
            return name, kind
    return "", ""


def are_exchanged(image: Path, audio: Path) -> bool:
    """Whether what is given as a picture is a sound, and the other way round."""
    picture, sound = (format_of(_head(path))[1] for path in (image, audio))
    return picture in ("sound", "frames", "video") and sound == "picture"


def is_url(name: str) -> bool:
    """Whether a name is spelled like an address."""
    return bool(_URL.match(name))


@contextlib.contextmanager
def opened(
    source: Path | BinaryIO,
    failure: type[JoyFlashError],
    *,
    code: str,
    missing: str,
    unreadable: str,
) -> Iterator[BinaryIO]:
    """A file, always a plain local one however its name is spelled, within a ``with`` statement.

    Args:
        source: Path of the file, addresses are never fetched; or one that is open, which stays so.
        failure: What is raised where it cannot be opened or read, with this ``code``.
        code: Of the error.
        missing: The next step where there is no such file.
        unreadable: The next step where the system refuses.
    """
    path = Path(source if isinstance(source, str | Path) else source.name)
    try:
        if isinstance(source, str | Path):
            with path.open("rb") as file:
                yield file
        else:
            yield source
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_url(str(path)):
            missing = "URLs are not fetched; download it and give the path of the file"
        raise failure(f"{path}: no such file", hint=missing, code=code) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise failure(f"{path} cannot be read: {reason}", hint=unreadable, code=code) from error


def _head(path: Path) -> bytes:
    """The first bytes of a plain file; a pipe is not touched."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(2 * HEAD_BYTES)
    except (OSError, ValueError):
        return b""


CONTAINERS = "wav,w64,aiff,caf,au,mp3,flac,ogg,aac,matroska,webm,mov,mp4,m4a"
"""Containers that may be opened.

A closed list, because playlists (``ffconcat``, ``m3u8``) hidden in a file called ``talk.wav`` would
make libavformat open *other* files and addresses.
"""


def open_container(source: Any, *, also: str = "", **options: str) -> Any:
    """PyAV's container of an open file or pipe, for a ``with`` statement.

    Args:
        source: What is read; a path only where it is known to be a plain local file.
        also: Further containers, separated by commas.
        options: Of libavformat.

    Raises:
        av.FFmpegError: If it is nothing of the kind; ``ValueError`` likewise.
    """
    import av

    allowed = f"{CONTAINERS},{also}" if also else CONTAINERS
    return av.open(source, mode="r", options={"format_whitelist": allowed, **options})
