"""The safetensors files of one part of a checkpoint: a single file, or shards with an index.

The layout is the Hub's own: ``part.safetensors``, or ``part-00001-of-00003.safetensors`` and a
``part.safetensors.index.json`` that says which file holds which tensor.
"""

import json
from pathlib import Path

from joyflash_cli.errors import CheckpointError

INDEX_SUFFIX = ".safetensors.index.json"
MAX_INDEX_BYTES = 16 << 20
MAX_NAME_CHARS = 200


def part_files(directory: Path, part: str) -> tuple[Path, ...]:
    """The files that hold a part, whether or not all of them exist; empty if there is no such part.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when the index cannot be read.
    """
    single = directory / f"{part}.safetensors"
    index = directory / f"{part}{INDEX_SUFFIX}"
    if single.is_file():
        return (single,)
    if not index.is_file():
        return ()
    return tuple(directory / name for name in _indexed_files(index))


def missing_files(directory: Path, part: str) -> list[str]:
    """Names of the files that a part lacks; its plain file name if nothing of it is there.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when the index cannot be read.
    """
    files = part_files(directory, part)
    if not files:
        return [f"{part}.safetensors"]
    return [file.name for file in files if not file.is_file()]


def _indexed_files(index: Path) -> list[str]:
    """File names of an index in order; plain names beside the index only."""
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise _wrong_index(index, f"larger than {MAX_INDEX_BYTES} bytes")
        values = json.loads(index.read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong_index(index, f"unreadable: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise _wrong_index(index, f"not JSON: {error}") from error
    weight_map = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise _wrong_index(index, "without a weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        plain = Path(name).name == name and name.isprintable() and len(name) <= MAX_NAME_CHARS
        if not plain or not name.endswith(".safetensors"):
            raise _wrong_index(
                index, f"naming {name!r:.80}, which is no safetensors file beside it"
            )
    return names


def _wrong_index(index: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{index} is {what}",
        hint="convert or download the checkpoint again",
        code="E-CHECKPOINT-DAMAGED",
    )
