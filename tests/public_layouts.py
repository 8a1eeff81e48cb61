"""Our state dicts under public names and back, whole in memory; and a module as one file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from joyflash_cli.errors import CheckpointError
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.weights.convert_names import ORIGINAL_NAMES, rename
from joyflash_cli.weights.convert_transformer import transformer_outputs


def from_public(
    state_dict: Mapping[str, Tensor],
    config: TransformerConfig,
    *,
    names: Mapping[str, str] = ORIGINAL_NAMES,
    adapter_scale: float = 0.5,
) -> dict[str, Tensor]:
    """A public state dict under our names and shapes, checked against ``config``.

    Container prefixes (``model.``, ``_fsdp_wrapped_module.``) are removed and low-rank adapters
    merged.

    Args:
        state_dict: As the checkpoint holds it.
        config: The architecture it must fit.
        names: ``ORIGINAL_NAMES`` or ``DIFFUSERS_NAMES``.
        adapter_scale: Alpha / rank of the adapters; AvatarForcing's is 64 / 128.

    Raises:
        CheckpointError: If keys are missing or unexpected, or a shape differs.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    outputs = transformer_outputs(shapes, config, names=names, adapter_scale=adapter_scale)
    return {
        output.name: output.build(*(state_dict[name] for name in output.sources))
        for output in outputs
    }


def to_public(
    state_dict: Mapping[str, Tensor],
    config: TransformerConfig,
    *,
    names: Mapping[str, str] = ORIGINAL_NAMES,
) -> dict[str, Tensor]:
    """Our state dict under public names and shapes.

    Raises:
        CheckpointError: If a key has no public name.
    """
    inverse = {ours: public for public, ours in names.items()}
    unknown = [name for name in state_dict if rename(name, inverse) is None]
    if unknown:
        raise CheckpointError(
            f"The checkpoint has parts without a public name: {', '.join(unknown[:5])}",
            hint="only models of a public architecture have public names",
        )
    return {
        rename(name, inverse): _to_public_shape(name, tensor, config)
        for name, tensor in state_dict.items()
    }


def key_hash(state_dict: Mapping[str, Tensor]) -> str:
    """The md5 by which DiffSynth and LiveTalk recognise a layout: sorted names and shapes."""
    entries = []
    for name, tensor in state_dict.items():
        shape = "_".join(str(size) for size in tensor.shape)
        entries += [f"{name}:{shape}", name]
    return hashlib.md5(",".join(sorted(entries)).encode(), usedforsecurity=False).hexdigest()


def _to_public_shape(name: str, tensor: Tensor, config: TransformerConfig) -> Tensor:
    if name == "patch_embedding.weight":
        return tensor.unflatten(1, (config.in_channels, *config.patch_size))
    if name.endswith("modulation"):
        return tensor.unsqueeze(0)
    return tensor


def save_state_dict(module: nn.Module, path: Path, *, dtype: torch.dtype | None = None) -> None:
    """The module's weights as safetensors, floats in ``dtype`` if there is one."""
    tensors = {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value)
        .detach()
        .clone()
        .contiguous()
        for name, value in module.state_dict().items()
    }
    save_file(tensors, path)
