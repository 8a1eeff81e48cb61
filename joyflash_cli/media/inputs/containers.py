"""Files of sound and film, opened by PyAV."""

from __future__ import annotations

from typing import Any

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
