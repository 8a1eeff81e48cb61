"""The safetensors files of one part of a checkpoint: a single file, or shards with an index.

The layout is the Hub's own: ``part.safetensors``, or ``part-00001-of-00003.safetensors`` and a
``part.safetensors.index.json`` that says which file holds which tensor.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.errors import CheckpointError
from joyflash_cli.files import whole_file
from joyflash_cli.weights.tensors import save_tensors

if TYPE_CHECKING:
    import torch

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


@dataclass(frozen=True)
class TensorSize:
    """Name and size of a tensor that is about to be written.

    Attributes:
        name: Under which it is stored.
        num_bytes: In the file.
    """

    name: str
    num_bytes: int


def plan_shards(sizes: Iterable[TensorSize], max_bytes: int) -> list[list[str]]:
    """Names of each shard, in order; a tensor larger than ``max_bytes`` has a shard of its own."""
    shards: list[list[str]] = []
    used = 0
    for size in sizes:
        if not shards or used + size.num_bytes > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append(size.name)
        used += size.num_bytes
    return shards


def shard_names(part: str, num_shards: int) -> list[str]:
    """File names of a part's shards; one shard keeps the plain name."""
    if num_shards == 1:
        return [f"{part}.safetensors"]
    return [f"{part}-{i:05d}-of-{num_shards:05d}.safetensors" for i in range(1, num_shards + 1)]


def write_shards(
    directory: Path,
    part: str,
    shards: Iterable[tuple[str, dict[str, "torch.Tensor"]]],
) -> None:
    """Write shards one after the other, then the index if there are several.

    Args:
        directory: Must exist.
        part: Of the checkpoint.
        shards: File name and tensors; produced lazily, so that one shard is in memory at a time.
    """
    weight_map: dict[str, str] = {}
    total_bytes = 0
    for name, tensors in _consume(shards):
        with whole_file(directory / name) as part_file:
            save_tensors(tensors, part_file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
        total_bytes += sum(t.numel() * t.element_size() for t in tensors.values())
        tensors.clear()
    if len(set(weight_map.values())) > 1:
        index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
        (directory / f"{part}{INDEX_SUFFIX}").write_text(json.dumps(index, indent=1) + "\n")


def _consume(
    shards: Iterable[tuple[str, dict[str, "torch.Tensor"]]],
) -> Iterator[tuple[str, dict[str, "torch.Tensor"]]]:
    """The shards, without a reference to one while the next is made."""
    iterator = iter(shards)
    while True:
        try:
            name, tensors = next(iterator)
        except StopIteration:
            return
        yield name, tensors
        del tensors
