"""What makes two renders the same: contents of the inputs, choices, and weights."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from joyflash_cli.files import file_sha256

KEY_FORMAT = 1
"""Changes when the same inputs are to be rendered anew because the program has changed."""

_MAX_REMEMBERED = 4096


class FileDigest(NamedTuple):
    """SHA-256 of a file, and what changes with its contents without reading them.

    As JSON it is a list, which is how it stands in the ledger.

    Attributes:
        sha256: Of the contents.
        size: Bytes.
        mtime_ns: Time of the last change of the contents.
        ctime_ns: Time of the last change of anything; cannot be set back by ``touch``.
        inode: Differs when a file was replaced by another.
    """

    sha256: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class FileDigests:
    """SHA-256 of files, each read once while it does not change.

    Args:
        on_piece: Called about every 4 MB, so that a lease can be renewed while a long file is
            read.
    """

    def __init__(self, on_piece: Callable[[], None] | None = None) -> None:
        self.on_piece = on_piece or _nothing
        self._known: OrderedDict[Path, FileDigest] = OrderedDict()

    def digest(self, path: Path, known: Any = None) -> FileDigest:
        """The digest of a file.

        Args:
            path: The file.
            known: A ``FileDigest`` from the ledger, of any kind; holds while the file is the same.

        Raises:
            OSError: If it cannot be read.
        """
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        for found in (self._known.get(path), known):
            if isinstance(found, list | tuple) and tuple(found[1:]) == stamp:
                sha256 = found[0]
                if isinstance(sha256, str):
                    return self._remember(path, FileDigest(sha256, *stamp))
        sha256 = file_sha256(path, on_bytes=lambda _: self.on_piece())
        return self._remember(path, FileDigest(sha256, *stamp))

    def _remember(self, path: Path, digest: FileDigest) -> FileDigest:
        self._known[path] = digest
        self._known.move_to_end(path)
        if len(self._known) > _MAX_REMEMBERED:
            self._known.popitem(last=False)
        return digest


def row_key(image_sha256: str, audio_sha256: str, parameters: Mapping[str, Any]) -> str:
    """One SHA-256 for everything that decides a row's video.

    Args:
        image_sha256: Of the picture's bytes.
        audio_sha256: Of the sound's bytes.
        parameters: Seed, prompt, kind of file, and what ``settings_key`` gives.
    """
    values = {"format": KEY_FORMAT, "image": image_sha256, "audio": audio_sha256, **parameters}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def settings_key(weights_sha256: str, parameters: Mapping[str, Any]) -> str:
    """One SHA-256 for what all rows of a run have in common."""
    values = {"weights": weights_sha256, **parameters}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _nothing() -> None:
    pass
