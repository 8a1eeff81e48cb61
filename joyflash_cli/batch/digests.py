"""What makes two renders the same: contents of the inputs, choices, and weights."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyflash_cli.files import file_sha256

KEY_FORMAT = 1
"""Changes when the same inputs are to be rendered anew because the program has changed."""

_MAX_REMEMBERED = 4096


@dataclass(frozen=True)
class FileStamp:
    """What changes with a file's contents without reading them.

    Attributes:
        size: Bytes.
        mtime_ns: Time of the last change of the contents.
        ctime_ns: Time of the last change of anything; cannot be set back by ``touch``.
        inode: Differs when a file was replaced by another.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """The stamp of a file.

        Raises:
            OSError: If it cannot be asked for.
        """
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


@dataclass(frozen=True)
class InputDigest:
    """SHA-256 of a file and the stamp it had when it was read."""

    sha256: str
    stamp: FileStamp

    def to_list(self) -> list[Any]:
        """As it stands in the ledger."""
        stamp = self.stamp
        return [self.sha256, stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode]

    @classmethod
    def from_list(cls, values: Any) -> InputDigest | None:
        """From the ledger; ``None`` if it is none."""
        if not isinstance(values, list) or len(values) != 5 or not isinstance(values[0], str):
            return None
        if not all(isinstance(value, int) for value in values[1:]):
            return None
        return cls(values[0], FileStamp(*values[1:]))


class FileDigests:
    """SHA-256 of files, each read once while it does not change.

    Args:
        on_piece: Called about every 4 MB, so that a lease can be renewed while a long file is
            read.
    """

    def __init__(self, on_piece: Callable[[], None] | None = None) -> None:
        self.on_piece = on_piece or _nothing
        self._known: OrderedDict[Path, InputDigest] = OrderedDict()

    def digest(self, path: Path, known: InputDigest | None = None) -> InputDigest:
        """The digest of a file.

        Args:
            path: The file.
            known: From an earlier run; holds while the stamp is the same.

        Raises:
            OSError: If it cannot be read.
        """
        stamp = FileStamp.of(path)
        for found in (self._known.get(path), known):
            if found is not None and found.stamp == stamp:
                self._remember(path, found)
                return found
        sha256 = file_sha256(path, on_bytes=lambda _: self.on_piece())
        found = InputDigest(sha256, stamp)
        self._remember(path, found)
        return found

    def _remember(self, path: Path, digest: InputDigest) -> None:
        self._known[path] = digest
        self._known.move_to_end(path)
        if len(self._known) > _MAX_REMEMBERED:
            self._known.popitem(last=False)


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
