"""Safetensors files of one part of a checkpoint: which they are, what they hold, and into modules.

A part is a single file or shards with an index, in the layout of the Hub: ``part.safetensors``, or
``part-00001-of-00003.safetensors`` and a ``part.safetensors.index.json`` that says which file holds
which tensor. A weight may be stored in eight bits: half of float16, off by 1/254 of an output's
largest. Loading gives floats again, so nothing that runs knows of it.
"""

import errno
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn


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


def tensor_shapes(paths: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a part, whether it is one file or several; no weights are read.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when a header cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        try:
            with safe_open(path, framework="np") as file:
                names = list(file.keys())
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in names}
        except (SafetensorError, OSError) as error:
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


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is no readable safetensors file",
        hint="export or download the file again",
        code="E-CHECKPOINT-DAMAGED",
    )


SCALE_SUFFIX = ".int8_scale"
LARGEST = 127
MIN_NUMBERS = 2048
"""Smaller tensors stay floats: norms and biases weigh nothing and are felt most."""


def as_eight_bit(tensors: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The same tensors with every large floating-point matrix as int8 beside its scales."""
    import torch

    stored: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        if value.ndim < 2 or value.numel() < MIN_NUMBERS or not value.is_floating_point():
            stored[name] = value
            continue
        rows = value.detach().float().flatten(1)
        scale = rows.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / LARGEST
        rounded = (rows / scale[:, None]).round().to(torch.int8)
        stored[name] = rounded.reshape(value.shape).contiguous()
        stored[name + SCALE_SUFFIX] = scale
    return stored


def from_eight_bit(value: "torch.Tensor", scale: "torch.Tensor") -> "torch.Tensor":
    """Floats ``(O, ...)`` of whole numbers and one scale for each of the O outputs.

    Raises:
        ValueError: If there are not as many scales as outputs.
    """
    if tuple(scale.shape) != tuple(value.shape[:1]):
        raise ValueError(f"{tuple(scale.shape)} scales for a weight of {tuple(value.shape)}")
    return value.float() * scale.float().reshape(-1, *[1] * (value.ndim - 1))


NUM_NAMED = 5
"""How many differing tensors an error names."""


def load_state_dict(
    module: "nn.Module",
    path: Path | Sequence[Path],
    *,
    dtype: "torch.dtype | None" = None,
) -> None:
    """Fills ``module`` with the weights of safetensors files, one tensor at a time.

    A module built on the meta device is materialised; otherwise values are copied in place.

    Args:
        module: Its ``state_dict`` names and shapes are what the files must hold together.
        path: A safetensors file, or the shards of one part.
        dtype: Floating-point type to cast to; the module's own (or, on meta, the file's) if absent.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when unreadable, ``E-CHECKPOINT-LAYOUT`` when
            tensors are missing, unknown or of another shape (the first five named).
    """
    import torch
    from safetensors import SafetensorError, safe_open

    paths = [path] if isinstance(path, Path) else list(path)
    expected = {
        name: (tuple(tensor.shape), tensor.is_meta, tensor.dtype)
        for name, tensor in module.state_dict().items()
    }
    _check_layout(paths, {name: shape for name, (shape, _, _) in expected.items()})
    current = paths[0]
    try:
        for current in paths:
            # A file is closed before the next is opened, so that its pages can be given back.
            with safe_open(current, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    if name not in expected:
                        continue  # the scale of an eight-bit weight
                    _, is_meta, target_dtype = expected[name]
                    value = file.get_tensor(name)
                    if value.dtype == torch.int8 and target_dtype.is_floating_point:
                        value = from_eight_bit(value, file.get_tensor(name + SCALE_SUFFIX))
                    if value.is_floating_point() and (dtype or not is_meta):
                        value = value.to(dtype or target_dtype)
                    if not torch.isfinite(value).all():
                        raise CheckpointError(
                            f"{current}: {name} holds values that are not finite",
                            hint="export or download the file again",
                            code="E-CHECKPOINT-DAMAGED",
                        )
                    _assign(module, name, value)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{current} cannot be read: {error}",
            hint="export or download the file again",
            code="E-CHECKPOINT-DAMAGED",
        ) from error


def check_state_dict(module: "nn.Module", path: Path | Sequence[Path]) -> None:
    """Refuses a module that the files do not fill exactly; no weights are read.

    Built on the meta device it costs nothing, whatever sizes its description asks for, and files
    of that layout exist only in the size that is really there.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` or ``E-CHECKPOINT-LAYOUT``.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    _check_layout(paths, expected)


def _check_layout(paths: list[Path], expected: dict[str, tuple[int, ...]]) -> None:
    scales = {name + SCALE_SUFFIX for name in expected}
    found = {name: shape for name, shape in tensor_shapes(paths).items() if name not in scales}
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [
        f"{name} is {str(found[name])[:80]} instead of {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    problems += [f"{_shown(name)} is unknown" for name in found if name not in expected]
    if not problems:
        return
    more = f" and {len(problems) - NUM_NAMED} more" if len(problems) > NUM_NAMED else ""
    raise CheckpointError(
        f"{paths[0]} has another layout than its checkpoint.json: "
        f"{'; '.join(problems[:NUM_NAMED])}{more}",
        hint="the weights and checkpoint.json must come from the same export",
        code="E-CHECKPOINT-LAYOUT",
    )


def _shown(name: str) -> str:
    """A tensor's name as an error tells it; a file may call its tensors anything."""
    return name if name.isprintable() and len(name) <= 120 else f"{name!r:.120}"


def _assign(module: "nn.Module", name: str, value: "torch.Tensor") -> None:
    import torch

    owner_name, _, leaf = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    target = getattr(owner, leaf)
    if isinstance(target, torch.nn.Parameter):
        if target.is_meta or target.dtype != value.dtype:
            setattr(owner, leaf, torch.nn.Parameter(value, requires_grad=target.requires_grad))
        else:
            target.data.copy_(value)
    elif target.is_meta or target.dtype != value.dtype:
        owner.register_buffer(leaf, value)
    else:
        target.copy_(value)
