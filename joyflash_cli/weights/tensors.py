"""Tensors of safetensors files as they are: shapes from the headers alone, or all values."""

import errno
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.errors import CheckpointError

if TYPE_CHECKING:
    import torch

MAX_HEADER_BYTES = 100 << 20
"""The format's own limit."""


def tensor_shapes(paths: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a part, whether it is one file or several; no weights are read.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when a header cannot be read.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        header = _read_header(path)
        try:
            shapes |= {
                name: tuple(int(size) for size in entry["shape"])
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (TypeError, KeyError, ValueError) as error:
            raise _damaged(path) from error
    return shapes


def num_parameters(paths: Iterable[Path]) -> int:
    """Numbers that the files of a part hold.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when a header cannot be read.
    """
    return sum(math.prod(shape) for shape in tensor_shapes(paths).values())


def read_tensors(paths: Iterable[Path]) -> "dict[str, torch.Tensor]":
    """All tensors of a part, on the CPU, in the number format of the files.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when a file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for path in paths:
        try:
            tensors |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise _damaged(path) from error
    return tensors


def save_tensors(
    tensors: "Mapping[str, torch.Tensor]", path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file.

    Raises:
        OSError: If it cannot be written, with the system's own number: a full disk is told as such.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        raise as_os_error(error, path) from error


def as_os_error(error: Exception, path: Path | None = None) -> OSError:
    """What the system told a library that writes files by itself."""
    found = re.search(r"os error ([0-9]+)", str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number), None if path is None else str(path))


def _read_header(path: Path) -> dict:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise _damaged(path)
            header = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(header, dict):
        raise _damaged(path)
    return header


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is no readable safetensors file",
        hint="export or download the file again",
        code="E-CHECKPOINT-DAMAGED",
    )
