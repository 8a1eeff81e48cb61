"""What makes two renders the same: contents of the inputs, choices, and weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
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

    Attributes:
        on_piece: Called about every 4 MB, so that a lease can be renewed while a long file is read.
    """

    def __init__(self) -> None:
        self.on_piece: Callable[[], None] = lambda: None
        self._read = lru_cache(_MAX_REMEMBERED)(self._digest)

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
        is_known = isinstance(known, list | tuple) and tuple(known[1:]) == stamp
        if is_known and isinstance(known[0], str):
            return FileDigest(known[0], *stamp)
        return self._read(path, stamp)

    def _digest(self, path: Path, stamp: tuple[int, int, int, int]) -> FileDigest:
        return FileDigest(file_sha256(path, on_bytes=lambda _: self.on_piece()), *stamp)


def key_of(values: Mapping[str, Any]) -> str:
    """One SHA-256 for all of these."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
