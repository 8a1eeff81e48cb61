"""Safetensors into modules: every name and every shape must agree, or nothing is loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.eight_bit import SCALE_SUFFIX, from_eight_bit, without_scales
from joyflash_cli.weights.tensors import tensor_shapes

if TYPE_CHECKING:
    import torch
    from torch import nn

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
    current = paths[0]
    try:
        shapes: dict[str, tuple[int, ...]] = {}
        for current in paths:
            with safe_open(current, framework="pt") as file:
                names = list(file.keys())
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in names}
        _check_layout(paths, {name: shape for name, (shape, _, _) in expected.items()}, shapes)
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
    _check_layout(paths, expected, tensor_shapes(paths))


def _check_layout(
    paths: list[Path], expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]
) -> None:
    found = without_scales(expected, found)
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
