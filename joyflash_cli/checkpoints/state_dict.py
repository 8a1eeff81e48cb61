"""Safetensors into modules: every name and every shape must agree, or nothing is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn

NUM_NAMED = 5
"""How many differing tensors an error names."""


def load_state_dict(module: "nn.Module", path: Path, *, dtype: "torch.dtype | None" = None) -> None:
    """Fills ``module`` with the weights of a safetensors file, one tensor at a time.

    A module built on the meta device is materialised; otherwise values are copied in place.

    Args:
        module: Its ``state_dict`` names and shapes are what the file must hold.
        path: A safetensors file.
        dtype: Floating-point type to cast to; the module's own (or, on meta, the file's) if absent.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when unreadable, ``E-CHECKPOINT-LAYOUT`` when
            tensors are missing, unknown or of another shape (the first five named).
    """
    import torch
    from safetensors import SafetensorError, safe_open

    expected = module.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            _check_layout(path, {n: tuple(t.shape) for n, t in expected.items()}, shapes)
            for name, target in expected.items():
                value = file.get_tensor(name)
                if value.is_floating_point() and (dtype or not target.is_meta):
                    value = value.to(dtype or target.dtype)
                if not torch.isfinite(value).all():
                    raise CheckpointError(
                        f"{path}: {name} holds values that are not finite",
                        hint="export or download the file again",
                        code="E-CHECKPOINT-DAMAGED",
                    )
                _assign(module, name, value)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}",
            hint="export or download the file again",
            code="E-CHECKPOINT-DAMAGED",
        ) from error


def save_state_dict(module: "nn.Module", path: Path, *, dtype: "torch.dtype | None" = None) -> None:
    """Writes the module's weights as safetensors, replacing ``path`` in one step.

    Args:
        module: Its ``state_dict`` is written.
        path: Target file; its directory must exist.
        dtype: Floating-point type to store; the module's own if absent.
    """
    from safetensors.torch import save_file

    tensors = {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value)
        .detach()
        .cpu()
        .clone()
        .contiguous()
        for name, value in module.state_dict().items()
    }
    temporary = path.with_name(f".{path.name}.part")
    save_file(tensors, temporary)
    temporary.replace(path)


def _check_layout(
    path: Path, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]
) -> None:
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [
        f"{name} is {found[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    problems += [f"{name} is unknown" for name in found if name not in expected]
    if not problems:
        return
    more = f" and {len(problems) - NUM_NAMED} more" if len(problems) > NUM_NAMED else ""
    raise CheckpointError(
        f"{path} has another layout than its checkpoint.json: "
        f"{'; '.join(problems[:NUM_NAMED])}{more}",
        hint="the weights and checkpoint.json must come from the same export",
        code="E-CHECKPOINT-LAYOUT",
    )


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
