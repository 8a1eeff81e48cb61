"""One downloaded file on this machine: whether it is what it must be, and getting rid of it."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.integrity import check_format, hash_file
from joyflash_cli.weights.manifest import WeightFile


@dataclass(frozen=True)
class PlannedFile:
    """One file of a fetch.

    Attributes:
        file: The manifest's entry.
        revision: Full commit.
        bytes: Size; 0 while unknown.
        sha256: What it must be; empty while unknown.
        state: ``ready`` is here and was hashed, ``check`` is here, ``download`` is not.
        local: Where it is, unless it has to be downloaded.
    """

    file: WeightFile
    revision: str
    bytes: int
    sha256: str
    state: Literal["ready", "check", "download"]
    local: Path | None = None


def check_copy(planned: PlannedFile, local: Path, on_bytes: Callable[[int], None]) -> str:
    """The SHA-256 of a local copy, once its kind, size and hash are found right.

    Raises:
        CheckpointError: Naming what differs; the copy is left where it is.
    """
    file = planned.file
    try:
        # Told first, because it explains a wrong size better than the size does.
        check_format(local, file.format)
    except CheckpointError as error:
        raise CheckpointError(
            error.message.replace(str(local), file.name),
            hint="fetch it again; if that does not help, try another mirror with HF_ENDPOINT",
            code=error.code,
        ) from error
    size = local.stat().st_size
    if planned.bytes and size != planned.bytes:
        raise CheckpointError(
            f"{file.name} has {size} bytes; {planned.bytes} are expected",
            hint="the file was cut or replaced; fetch it again",
            code="E-WEIGHTS-SIZE",
        )
    sha256 = hash_file(local, on_bytes=on_bytes)
    if planned.sha256 and sha256 != planned.sha256:
        raise wrong_hash(file, sha256, planned.sha256)
    return sha256


def discard_copy(local: Path, cache: Path) -> None:
    """Deletes a cached file and what it points to inside the cache."""
    chain = [local]
    while chain[-1].is_symlink() and len(chain) < 4:
        target = chain[-1].parent / os.readlink(chain[-1])
        chain.append(Path(os.path.normpath(target)))
    for path in chain:
        if path.is_relative_to(cache):
            with contextlib.suppress(OSError):
                path.unlink()


def wrong_hash(file: WeightFile, found: str, expected: str) -> CheckpointError:
    """The error for a file, here or at the Hub, that is another one than is known."""
    return CheckpointError(
        f"{file.name} has the SHA-256 {found}; {expected} is expected",
        hint="it was damaged or replaced, and is not kept; try again, or another mirror",
        code="E-WEIGHTS-HASH",
    )
