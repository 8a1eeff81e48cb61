"""Whether a file is what it should be: its kind at a glance, its size and its hash."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from joyflash_cli.errors import CheckpointError
from joyflash_cli.files import file_sha256

CHECKSUMS = "checksums.json"
"""Hashes of the other files of a converted checkpoint, by name."""

_LFS_POINTER = b"version https://git-lfs"
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")


def check_safetensors(path: Path) -> None:
    """Refuses what is plainly not a safetensors file, saying what it is instead.

    Raises:
        CheckpointError: ``E-CHECKPOINT-POINTER`` or ``E-CHECKPOINT-DAMAGED``.
    """
    head, size = _head(path)
    _refuse_pointer(path, head, size)
    header_bytes = int.from_bytes(head[:8], "little") if len(head) >= 8 else 0
    if not 2 <= header_bytes <= size - 8:
        raise _not_a(path, "a safetensors file", head, size)


def check_format(path: Path, kind: str) -> None:
    """Refuses a file that plainly is not of its format, without opening it as one.

    Args:
        path: Any file.
        kind: ``safetensors``, ``pickle``, ``json`` or ``binary``.

    Raises:
        CheckpointError: ``E-CHECKPOINT-POINTER`` or ``E-CHECKPOINT-DAMAGED``.
    """
    if kind == "safetensors":
        check_safetensors(path)
        return
    head, size = _head(path)
    _refuse_pointer(path, head, size)
    if kind == "pickle" and not head.startswith(_PICKLE_STARTS):
        raise _not_a(path, "a PyTorch file", head, size)
    if kind == "json" and head.lstrip()[:1] not in (b"{", b"["):
        raise _not_a(path, "JSON", head, size)
    if not head or _looks_like_html(head):
        raise _not_a(path, "the file", head, size)


def hash_file(path: Path, *, on_bytes: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file as lower-case hex; ``on_bytes`` hears every piece's size.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when it cannot be read.
    """
    try:
        return file_sha256(path, on_bytes=on_bytes)
    except OSError as error:
        raise unreadable(path, error) from error


def write_checksums(directory: Path) -> None:
    """Records the hash of every file of a checkpoint directory beside them."""
    sums = {
        file.name: {"bytes": file.stat().st_size, "sha256": hash_file(file)}
        for file in sorted(directory.iterdir())
        if file.is_file() and file.name != CHECKSUMS
    }
    (directory / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def read_checksums(directory: Path) -> dict[str, dict[str, Any]]:
    """The recorded size and hash by file name; empty where none were recorded.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when the record cannot be read.
    """
    path = directory / CHECKSUMS
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {"bytes": int(entry["bytes"]), "sha256": str(entry["sha256"])}
            for name, entry in values.items()
        }
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a list of checksums",
            hint="convert the checkpoint again",
            code="E-CHECKPOINT-DAMAGED",
        ) from error


def _head(path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            head = file.read(64)
        return head, path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error


def _refuse_pointer(path: Path, head: bytes, size: int) -> None:
    if head.startswith(_LFS_POINTER):
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {size} bytes, not the weights",
            hint="run `git lfs pull` where it was cloned, or download the file itself",
            code="E-CHECKPOINT-POINTER",
        )


def _looks_like_html(head: bytes) -> bool:
    return head.lstrip()[:1] == b"<"


def _not_a(path: Path, kind: str, head: bytes, size: int) -> CheckpointError:
    what = "an HTML page" if _looks_like_html(head) else "damaged or cut short"
    return CheckpointError(
        f"{path} is {what}, not {kind} ({size} bytes)",
        hint="download it again",
        code="E-CHECKPOINT-DAMAGED",
    )


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for a file of a checkpoint that the system does not give."""
    return CheckpointError(
        f"{path} cannot be read: {error.strerror or error}",
        hint="check its permissions, or give another directory with --checkpoint",
        code="E-CHECKPOINT-DAMAGED",
    )
