"""Planned parts of a conversion to sharded safetensors, one shard in memory at a time."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from joyflash_cli.errors import CheckpointError, OutputError, UsageError
from joyflash_cli.files import free_disk_bytes
from joyflash_cli.weights.convert_encoders import PartPlan
from joyflash_cli.weights.convert_plan import OutputTensor
from joyflash_cli.weights.convert_sources import TensorSource
from joyflash_cli.weights.tensors import INDEX_SUFFIX, save_tensors

DTYPES = {
    "bf16": torch.bfloat16, "bfloat16": torch.bfloat16, "fp16": torch.float16,
    "float16": torch.float16, "fp32": torch.float32, "float32": torch.float32,
}  # fmt: skip

MIN_SHARD_BYTES = 8 << 20
MAX_SHARD_BYTES = 1 << 30
SHARDS_PER_MODEL = 8
"""A part is written in about so many pieces, and one piece is in memory at a time."""

Progress = Callable[[str], None]
"""Called with a line of text whenever a step begins."""


@dataclass(frozen=True)
class Part:
    """One part ready to be written.

    Attributes:
        name: Under which its files are stored.
        source: Where its tensors come from.
        plan: What is made of them.
        dtype: Of floating-point tensors, unless the plan keeps float32.
    """

    name: str
    source: TensorSource
    plan: PartPlan
    dtype: torch.dtype

    def num_bytes(self, output: OutputTensor) -> int:
        """Size of a tensor as it is stored."""
        return math.prod(output.shape) * self.stored_dtype(output).itemsize

    def stored_dtype(self, output: OutputTensor) -> torch.dtype:
        """Number format of a tensor as it is stored."""
        if output.sources and not self.source.dtypes[output.sources[0]].is_floating_point:
            return self.source.dtypes[output.sources[0]]
        return torch.float32 if self.plan.in_float32 else self.dtype

    @property
    def total_bytes(self) -> int:
        """Size of the part as it is stored."""
        return sum(self.num_bytes(output) for output in self.plan.outputs)


def check_dtype(name: str) -> torch.dtype:
    """The number format of this name.

    Raises:
        UsageError: For another one.
    """
    if name not in DTYPES:
        raise UsageError(f"dtype {name!r} cannot be stored", hint="one of bf16, fp16, fp32")
    return DTYPES[name]


def check_room(out_dir: Path, parts: Sequence[Part]) -> None:
    """Refuse before anything is written when the disk is too small.

    Raises:
        OutputError: ``E-OUTPUT-SPACE``.
    """
    needed = sum(part.total_bytes for part in parts)
    free = free_disk_bytes(out_dir)
    if needed > free:
        raise OutputError(
            f"{out_dir} needs {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free on its disk",
            hint="give a directory on another disk",
            code="E-OUTPUT-SPACE",
        )


def write_parts(directory: Path, parts: Sequence[Part], on_progress: Progress | None) -> None:
    """Writes every part as shards, and an index where there are several.

    Args:
        directory: Must exist.
        parts: Their tensors are made when they are written, one shard in memory at a time.
        on_progress: Told before each shard which one it is.
    """
    for part in parts:
        groups = _groups(part)
        total = len(groups)
        names = [f"{part.name}-{i:05d}-of-{total:05d}.safetensors" for i in range(1, total + 1)]
        if total == 1:
            names = [f"{part.name}.safetensors"]
        weight_map: dict[str, str] = {}
        for index, (name, group) in enumerate(zip(names, groups, strict=True), start=1):
            if on_progress is not None:
                size = f"{part.total_bytes / 1e9:.2f} GB"
                on_progress(f"{part.name} ({size}), file {index} of {total}")
            save_tensors(_made(part, group), directory / name, metadata={"format": "pt"})
            weight_map |= dict.fromkeys((output.name for output in group), name)
        if total > 1:
            about = {"metadata": {"total_size": part.total_bytes}, "weight_map": weight_map}
            index_file = directory / f"{part.name}{INDEX_SUFFIX}"
            index_file.write_text(json.dumps(about, indent=1) + "\n")


def _groups(part: Part) -> list[list[OutputTensor]]:
    """The tensors of each shard, in order; one larger than a shard has one of its own."""
    limit = min(max(part.total_bytes // SHARDS_PER_MODEL, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
    groups: list[list[OutputTensor]] = []
    used = 0
    for output in part.plan.outputs:
        size = part.num_bytes(output)
        if not groups or used + size > limit:
            groups.append([])
            used = 0
        groups[-1].append(output)
        used += size
    return groups


def _made(part: Part, outputs: list[OutputTensor]) -> dict[str, torch.Tensor]:
    """Tensors of one shard. When this returns, nothing refers to the source's mapped pages."""
    tensors = {}
    with part.source.opened() as read:
        for output in outputs:
            made = output.build(*(read(source) for source in output.sources))
            # A copy: the file behind the tensor is closed before the shard is written.
            stored = made.to(part.stored_dtype(output), copy=True).contiguous()
            if not torch.isfinite(stored).all():
                raise CheckpointError(
                    f"{part.source.paths[0]}: {output.name} holds values that are not finite",
                    hint="float16 loses large values: give another copy, or another --dtype",
                    code="E-CHECKPOINT-DAMAGED",
                )
            tensors[output.name] = stored
    return tensors
