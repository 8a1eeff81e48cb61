"""Planned parts of a conversion to sharded safetensors, one shard in memory at a time."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from joyflash_cli.errors import OutputError, UsageError
from joyflash_cli.weights.convert_encoders import PartPlan
from joyflash_cli.weights.convert_outputs import OutputTensor
from joyflash_cli.weights.convert_sources import TensorSource
from joyflash_cli.weights.shards import TensorSize, plan_shards, shard_names, write_shards

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
        size = 1
        for length in output.shape:
            size *= length
        return size * self.stored_dtype(output).itemsize

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
    existing = next(parent for parent in (out_dir, *out_dir.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise OutputError(
            f"{out_dir} needs {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free on its disk",
            hint="give a directory on another disk",
            code="E-OUTPUT-SPACE",
        )


def write_parts(directory: Path, parts: Sequence[Part], on_progress: Progress | None) -> None:
    """Write every part, telling before each shard which one it is."""
    for part in parts:
        write_shards(directory, part.name, _shards(part, on_progress))


def _shards(
    part: Part, on_progress: Progress | None
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """File name and tensors of each shard of a part, made when they are asked for."""
    outputs = {output.name: output for output in part.plan.outputs}
    limit = min(max(part.total_bytes // SHARDS_PER_MODEL, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
    groups = plan_shards(
        [TensorSize(name, part.num_bytes(output)) for name, output in outputs.items()], limit
    )
    files = shard_names(part.name, len(groups))
    for index, (file, group) in enumerate(zip(files, groups, strict=True), start=1):
        if on_progress is not None:
            size = f"{part.total_bytes / 1e9:.2f} GB"
            on_progress(f"{part.name} ({size}), file {index} of {len(files)}")
        yield file, _made(part, [outputs[name] for name in group])


def _made(part: Part, outputs: list[OutputTensor]) -> dict[str, torch.Tensor]:
    """Tensors of one shard. When this returns, nothing refers to the source's mapped pages."""
    tensors = {}
    with part.source.opened() as read:
        for output in outputs:
            made = output.build(*(read(source) for source in output.sources))
            # A copy: the file behind the tensor is closed before the shard is written.
            tensors[output.name] = made.to(part.stored_dtype(output), copy=True).contiguous()
    return tensors
