"""Tensors in dataclasses, and in files that stages leave: each file is complete or absent."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from joyflash_cli.errors import ConfigError, DataError
from joyflash_cli.files import whole_file
from joyflash_cli.weights.tensors import save_tensors

T = TypeVar("T")


def map_tensors(value: T, change: Callable[[Tensor], Tensor]) -> T:
    """A dataclass, and dataclasses in it, with every tensor changed."""
    found: Any = value
    if isinstance(found, Tensor):
        return change(found)  # type: ignore[return-value]
    if not is_dataclass(found):
        return found
    changed = {f.name: map_tensors(getattr(found, f.name), change) for f in fields(found)}
    return replace(found, **changed)  # type: ignore[type-var, return-value]


def to_device(value: T, device: torch.device | str) -> T:
    """A dataclass with all its tensors on a device."""
    return map_tensors(value, lambda tensor: tensor.to(device))


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file; its folder is made where it is missing.

    Raises:
        OSError: If it cannot be written; a file of that name stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        whole = {name: value.contiguous() for name, value in tensors.items()}
        save_tensors(whole, part, metadata=metadata)


def write_module(path: Path, module: nn.Module) -> None:
    """Write parameters and buffers of a module."""
    write_tensors(path, module.state_dict())


def write_shard(path: Path, rows: Sequence[Mapping[str, Tensor]]) -> None:
    """Write rows of the same tensors, stacked by name."""
    write_tensors(path, {name: torch.stack([row[name] for row in rows]) for name in rows[0]})


def build_shards(
    stem: Path,
    groups: Sequence[Sequence[int]],
    make: Callable[[int, Sequence[int]], Sequence[Mapping[str, Tensor]]],
    on_shard: Callable[[int, int], None] | None = None,
) -> None:
    """Write every shard that is not there yet; run again to go on.

    Args:
        stem: Folder and name; ``-0000.safetensors`` and so on come behind it.
        groups: What each shard holds.
        make: From a shard's number and group to its rows.
        on_shard: Told how many of how many shards are done.
    """
    for shard, group in enumerate(groups):
        path = stem.with_name(f"{stem.name}-{shard:04d}.safetensors")
        if not path.exists():
            write_shard(path, make(shard, group))
        if on_shard is not None:
            on_shard(shard + 1, len(groups))


def read_shards(stem: Path, what: str, *, stage: str) -> dict[str, Tensor]:
    """All shards of a name in a folder and below it, joined along their rows.

    Raises:
        DataError: If there is none.
    """
    from safetensors.torch import load_file

    paths = sorted(stem.parent.rglob(f"{stem.name}-*.safetensors"))
    if not paths:
        raise DataError(f"{stem.parent} holds no {what}", hint=f"run the stage {stage!r}")
    shards = [load_file(path) for path in paths]
    return {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}


def keep_apart(folder: Path, about: dict[str, Any], *, message: str, hint: str) -> None:
    """Note in ``about.json`` what a folder is filled with.

    Raises:
        ConfigError: If it was filled with something else.
    """
    path = folder / "about.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(about, indent=1) + "\n")
    elif json.loads(path.read_text()) != about:
        raise ConfigError(message, hint=hint)
