"""Pickles of published weights: opened for tensors alone, and only when they are what they seem.

Nothing in such a file can execute (``weights_only``), and nothing in it can claim more memory than
the file is long: PyTorch stores its records uncompressed, one after the other, so an archive with
compressed, overlapping or too many records, or a tensor larger than the file, was made to harm.

Files from before PyTorch 1.6 are one run of pickles with the values behind them. They are opened
only where that is asked for, and only after every number in them was found to fit into the file.
"""

import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from joyflash_cli.errors import CheckpointError

MAX_INDEX_BYTES = 64 << 20
"""Of an archive's directory; a training checkpoint's takes half a megabyte."""

MAX_STRUCTURE_BYTES = 256 << 20
"""Of the pickle itself, which holds names and shapes."""

STRUCTURE = "data.pkl"
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x06"
_TAIL_BYTES = (1 << 16) + 22 + 20 + 56
_OLD_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_OLD_PICKLES = 5
"""Magic number, version, system, structure and the records' names; the values follow."""

MAX_OLD_BYTES = 1 << 30


def load_pickle(
    path: Path, select: Callable[[Mapping[str, object]], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Tensors by name, their values left on disk.

    Args:
        path: As ``torch.save`` writes it since PyTorch 1.6.
        select: The model inside what the file holds.

    Raises:
        CheckpointError: ``E-CHECKPOINT-PICKLE`` when it holds more than tensors,
            ``E-CHECKPOINT-DAMAGED`` when it cannot be read or claims more than it holds,
            ``E-CHECKPOINT-LAYOUT`` when it holds no weights by name.
    """
    lengths = check_archive(path)
    tensors = _tensors(path, select, in_place=True)
    return {name: _checked(path, name, value, lengths) for name, value in tensors.items()}


def load_old_pickle(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a state dict, as PyTorch has written it before 1.6 or since.

    Raises:
        CheckpointError: As :func:`load_pickle`.
    """
    with path.open("rb") as file:
        is_old = file.read(len(_OLD_START)) == _OLD_START
    if not is_old:
        return load_pickle(path, _unchanged)
    _check_old(path)
    tensors = _tensors(path, _unchanged, in_place=False)
    lengths = frozenset(value.untyped_storage().nbytes() for value in tensors.values())
    return {name: _checked(path, name, value, lengths) for name, value in tensors.items()}


def _unchanged(payload: Mapping[str, object]) -> Mapping[str, Tensor]:
    return payload  # type: ignore[return-value]


def _tensors(
    path: Path,
    select: Callable[[Mapping[str, object]], Mapping[str, Tensor]],
    *,
    in_place: bool,
) -> dict[str, Tensor]:
    """The tensors of a file that was looked through; ``in_place`` leaves their values on disk."""
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True, mmap=in_place)
    except Exception as error:  # a hostile or damaged file may provoke any of them
        if type(error).__name__ == "UnpicklingError":
            raise CheckpointError(
                f"{path} holds more than tensors, which could execute code: {reason_of(error)}",
                hint="convert only files of plain tensors, from a source you trust",
                code="E-CHECKPOINT-PICKLE",
            ) from error
        raise _unreadable(path, reason_of(error)) from error
    if not isinstance(payload, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(payload).__name__}, not weights by name",
            hint="check that the file is the right one",
            code="E-CHECKPOINT-LAYOUT",
        )
    return {
        str(name): value
        for name, value in select(payload).items()
        if isinstance(value, Tensor) and value.layout == torch.strided
    }


def _check_old(path: Path) -> None:
    """Refuses a file of before PyTorch 1.6 that claims more numbers than it has bytes.

    Its pickles are read as a list of instructions, of which none is carried out.
    """
    size = path.stat().st_size
    if size > MAX_OLD_BYTES:
        raise _unreadable(path, f"of this old kind only {MAX_OLD_BYTES >> 30} GB are read")
    claimed = 0
    try:
        with path.open("rb") as file:
            for _ in range(_OLD_PICKLES):
                recent: list[tuple[str, Any]] = []
                for instruction, value, _ in pickletools.genops(file):
                    if instruction.name == "BINPERSID":
                        claimed += _claim_of(recent)
                    elif "PUT" not in instruction.name:
                        recent = [*recent[-2:], (instruction.name, value)]
    except (ValueError, OSError, EOFError) as error:
        raise _unreadable(path, reason_of(error)) from error
    if claimed > size:
        raise _unreadable(path, f"it claims {claimed} numbers in {size} bytes")


def _claim_of(recent: list[tuple[str, Any]]) -> int:
    """Numbers in a record, which PyTorch names right before the record's last two fields."""
    if len(recent) == 3 and [name for name, _ in recent[1:]] == ["NONE", "TUPLE"]:
        name, value = recent[0]
        if isinstance(value, int) and "GET" not in name and value >= 0:
            return value
    raise ValueError("a record is not as PyTorch names it")


def check_archive(path: Path) -> frozenset[int]:
    """Refuses an archive that is not as PyTorch writes it, before anything of it is unpacked.

    Returns:
        Lengths of its records in bytes.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED``.
    """
    try:
        size = path.stat().st_size
        if _directory_bytes(path, size) > MAX_INDEX_BYTES:
            raise _unreadable(path, f"its directory is larger than {MAX_INDEX_BYTES >> 20} MB")
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _unreadable(path, reason_of(error)) from error
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED:
            raise _unreadable(path, f"{record.filename} is compressed, as PyTorch never does")
        if Path(record.filename).name == STRUCTURE and record.file_size > MAX_STRUCTURE_BYTES:
            raise _unreadable(path, f"{record.filename} has {record.file_size} bytes")
    if sum(record.file_size for record in records) > size:
        raise _unreadable(path, f"its records overlap: together they are more than {size} bytes")
    return frozenset(record.file_size for record in records)


def reason_of(error: BaseException) -> str:
    """The first line that says something; PyTorch's own advice to load it anyway is left out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Unsupported" in line or "unsupported" in line]
    return (telling or lines or [type(error).__name__])[0][:200]


def _directory_bytes(path: Path, size: int) -> int:
    """Length of the directory at the end of an archive, as it states it; 0 without one."""
    with path.open("rb") as file:
        file.seek(max(size - _TAIL_BYTES, 0))
        tail = file.read()
    end = tail.rfind(_END)
    if end < 0:
        return 0
    stated = int.from_bytes(tail[end + 12 : end + 16], "little")
    end_64 = tail.rfind(_END_64, 0, end)
    if end_64 >= 0:
        stated = max(stated % 0xFFFFFFFF, int.from_bytes(tail[end_64 + 40 : end_64 + 48], "little"))
    return stated


def _checked(path: Path, name: str, value: Tensor, lengths: frozenset[int]) -> Tensor:
    """The tensor, if a record of the file holds it."""
    value = value.detach()
    problem, held = "", 0 if value.is_meta else value.untyped_storage().nbytes()
    if value.device.type != "cpu" or value.is_quantized or value.is_complex():
        problem = f"is a tensor of the kind {value.device.type} {value.dtype}"
    elif held not in lengths and value.numel():
        problem = f"claims {held} bytes, which no record of the file has"
    elif value.numel() * value.element_size() > held:
        problem = f"claims {value.numel()} numbers, more than there are"
    if problem:
        raise _unreadable(path, f"{name} {problem}")
    return value


def _unreadable(path: Path, reason: Any) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read: {reason}",
        hint="download it again; files older than PyTorch 1.6 must be saved anew",
        code="E-CHECKPOINT-DAMAGED",
    )
