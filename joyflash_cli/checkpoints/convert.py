"""Public Wan-style weights to this project's names, and back.

One flat table per layout, ``{}`` standing for the layer. Nothing is guessed: a missing or an
unexpected key is an error.
"""

import hashlib
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from joyflash_cli.errors import CheckpointError
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer

ORIGINAL_NAMES = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "text_embedding.input",
    "text_embedding.2": "text_embedding.output",
    "time_embedding.0": "time_embedding.input",
    "time_embedding.2": "time_embedding.output",
    "time_projection.1": "time_projection",
    "img_emb.proj.0": "image_embedding.input_norm",
    "img_emb.proj.1": "image_embedding.input",
    "img_emb.proj.3": "image_embedding.output",
    "img_emb.proj.4": "image_embedding.output_norm",
    "blocks.{}.self_attn.q": "layers.{}.self_attention.query",
    "blocks.{}.self_attn.k": "layers.{}.self_attention.key",
    "blocks.{}.self_attn.v": "layers.{}.self_attention.value",
    "blocks.{}.self_attn.o": "layers.{}.self_attention.output",
    "blocks.{}.self_attn.norm_q": "layers.{}.self_attention.query_norm",
    "blocks.{}.self_attn.norm_k": "layers.{}.self_attention.key_norm",
    "blocks.{}.norm3": "layers.{}.cross_norm",
    "blocks.{}.cross_attn.q": "layers.{}.cross_attention.query",
    "blocks.{}.cross_attn.k": "layers.{}.cross_attention.key",
    "blocks.{}.cross_attn.v": "layers.{}.cross_attention.value",
    "blocks.{}.cross_attn.o": "layers.{}.cross_attention.output",
    "blocks.{}.cross_attn.norm_q": "layers.{}.cross_attention.query_norm",
    "blocks.{}.cross_attn.norm_k": "layers.{}.cross_attention.key_norm",
    "blocks.{}.cross_attn.k_img": "layers.{}.cross_attention.image_key",
    "blocks.{}.cross_attn.v_img": "layers.{}.cross_attention.image_value",
    "blocks.{}.cross_attn.norm_k_img": "layers.{}.cross_attention.image_key_norm",
    "blocks.{}.ffn.0": "layers.{}.feed_forward.input",
    "blocks.{}.ffn.2": "layers.{}.feed_forward.output",
    "blocks.{}.modulation": "layers.{}.modulation",
    "head.head": "head.projection",
    "head.modulation": "head.modulation",
    "audio_proj.proj": "audio_pack.projection",
    "audio_proj.norm_out": "audio_pack.norm",
    "audio_cond_projs.{}": "audio_pack_projections.{}",
}
"""Wan2.1's own names (also LiveTalk, OmniAvatar, AvatarForcing) to ours."""

DIFFUSERS_NAMES = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.text_embedder.linear_1": "text_embedding.input",
    "condition_embedder.text_embedder.linear_2": "text_embedding.output",
    "condition_embedder.time_embedder.linear_1": "time_embedding.input",
    "condition_embedder.time_embedder.linear_2": "time_embedding.output",
    "condition_embedder.time_proj": "time_projection",
    "condition_embedder.image_embedder.norm1": "image_embedding.input_norm",
    "condition_embedder.image_embedder.ff.net.0.proj": "image_embedding.input",
    "condition_embedder.image_embedder.ff.net.2": "image_embedding.output",
    "condition_embedder.image_embedder.norm2": "image_embedding.output_norm",
    "blocks.{}.attn1.to_q": "layers.{}.self_attention.query",
    "blocks.{}.attn1.to_k": "layers.{}.self_attention.key",
    "blocks.{}.attn1.to_v": "layers.{}.self_attention.value",
    "blocks.{}.attn1.to_out.0": "layers.{}.self_attention.output",
    "blocks.{}.attn1.norm_q": "layers.{}.self_attention.query_norm",
    "blocks.{}.attn1.norm_k": "layers.{}.self_attention.key_norm",
    "blocks.{}.norm2": "layers.{}.cross_norm",
    "blocks.{}.attn2.to_q": "layers.{}.cross_attention.query",
    "blocks.{}.attn2.to_k": "layers.{}.cross_attention.key",
    "blocks.{}.attn2.to_v": "layers.{}.cross_attention.value",
    "blocks.{}.attn2.to_out.0": "layers.{}.cross_attention.output",
    "blocks.{}.attn2.norm_q": "layers.{}.cross_attention.query_norm",
    "blocks.{}.attn2.norm_k": "layers.{}.cross_attention.key_norm",
    "blocks.{}.attn2.add_k_proj": "layers.{}.cross_attention.image_key",
    "blocks.{}.attn2.add_v_proj": "layers.{}.cross_attention.image_value",
    "blocks.{}.attn2.norm_added_k": "layers.{}.cross_attention.image_key_norm",
    "blocks.{}.ffn.net.0.proj": "layers.{}.feed_forward.input",
    "blocks.{}.ffn.net.2": "layers.{}.feed_forward.output",
    "blocks.{}.scale_shift_table": "layers.{}.modulation",
    "proj_out": "head.projection",
    "scale_shift_table": "head.modulation",
    "audio_proj.proj": "audio_pack.projection",
    "audio_proj.norm_out": "audio_pack.norm",
    "audio_cond_projs.{}": "audio_pack_projections.{}",
}
"""The names of diffusers' ``WanTransformer3DModel`` to ours."""

_LEAVES = ("weight", "bias")
_ADAPTER = re.compile(r"^(?P<linear>.+)\.lora_(?P<factor>[AB])(?:\.\w+)?\.weight$")


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
    merged = merge_adapters(strip_prefixes(state_dict), scale=adapter_scale)
    renamed = {}
    unexpected = []
    for name, tensor in merged.items():
        ours = _rename(name, names)
        if ours is None:
            unexpected.append(name)
        else:
            renamed[ours] = _to_our_shape(ours, tensor)
    expected = _expected_shapes(config)
    inverse = {ours: public for public, ours in names.items()}
    unexpected += [_public_name(name, inverse) for name in renamed if name not in expected]
    missing = [_public_name(name, inverse) for name in expected if name not in renamed]
    _refuse("lacks", missing)
    _refuse("has unexpected", unexpected)
    for name, shape in expected.items():
        if renamed[name].shape != shape:
            raise CheckpointError(
                f"{_public_name(name, inverse)} has the shape {tuple(renamed[name].shape)}; "
                f"{tuple(shape)} is needed",
                hint="the checkpoint is of another size than the profile says",
            )
    return renamed


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
    unknown = [name for name in state_dict if _rename(name, inverse) is None]
    _refuse("has parts without a public name:", unknown)
    return {
        _public_name(name, inverse): _to_public_shape(name, tensor, config)
        for name, tensor in state_dict.items()
    }


def select_generator(payload: Mapping[str, object]) -> Mapping[str, Tensor]:
    """The generator inside a training checkpoint, its averaged weights if there are any.

    A payload that is a state dict already comes back as it is.

    Raises:
        CheckpointError: If no generator can be found.
    """
    for entry in ("generator_ema", "generator"):
        part = payload.get(entry)
        if isinstance(part, Mapping):
            return part
    if payload and all(isinstance(value, Tensor) for value in payload.values()):
        return payload  # type: ignore[return-value]
    raise CheckpointError(
        f"No generator among the entries {', '.join(map(str, list(payload)[:5]))}",
        hint="a state dict, or an entry 'generator' or 'generator_ema', is needed",
    )


def strip_prefixes(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the prefixes that training containers add."""
    stripped = {}
    for name, tensor in state_dict.items():
        name = name.replace("_fsdp_wrapped_module.", "")
        stripped[name.removeprefix("model.")] = tensor
    return stripped


def merge_adapters(state_dict: Mapping[str, Tensor], *, scale: float) -> dict[str, Tensor]:
    """The state dict with low-rank adapters merged: ``W + scale * B @ A``.

    The product is computed in float32 or better and cast back to the dtype of the weight.

    Raises:
        CheckpointError: If one factor of an adapter, or its base weight, is missing.
    """
    factors: dict[str, dict[str, Tensor]] = {}
    merged = {}
    for name, tensor in state_dict.items():
        match = _ADAPTER.match(name)
        if match:
            factors.setdefault(match["linear"], {})[match["factor"]] = tensor
        else:
            merged[name.replace(".base_layer.", ".")] = tensor
    for linear, pair in factors.items():
        weight_name = f"{linear}.weight"
        if set(pair) != {"A", "B"} or weight_name not in merged:
            raise CheckpointError(f"The adapter of {linear} is incomplete")
        weight = merged[weight_name]
        dtype = torch.promote_types(weight.dtype, torch.float32)
        update = pair["B"].to(dtype) @ pair["A"].to(dtype)
        merged[weight_name] = (weight.to(dtype) + scale * update).to(weight.dtype)
    return merged


def key_hash(state_dict: Mapping[str, Tensor]) -> str:
    """The md5 by which DiffSynth and LiveTalk recognise a layout: sorted names and shapes."""
    entries = []
    for name, tensor in state_dict.items():
        shape = "_".join(str(size) for size in tensor.shape)
        entries += [f"{name}:{shape}", name]
    return hashlib.md5(",".join(sorted(entries)).encode(), usedforsecurity=False).hexdigest()


def _rename(name: str, names: Mapping[str, str]) -> str | None:
    """``name`` through a table with ``{}`` for a number; ``None`` if it is not in it."""
    stem, leaf = name, ""
    for candidate in _LEAVES:
        if name.endswith(f".{candidate}"):
            stem, leaf = name[: -len(candidate) - 1], f".{candidate}"
    numbers = re.findall(r"(?<=\.)\d+(?=\.|$)", stem)
    if stem in names:
        return names[stem] + leaf
    if numbers:
        template = re.sub(rf"\.{numbers[0]}(?=\.|$)", ".{}", stem, count=1)
        if template in names:
            return names[template].format(numbers[0]) + leaf
    return None


def _public_name(name: str, inverse: Mapping[str, str]) -> str:
    return _rename(name, inverse) or name


def _to_our_shape(name: str, tensor: Tensor) -> Tensor:
    if name == "patch_embedding.weight":
        # A convolution with stride = kernel is a linear map of (channel, row, column).
        return tensor.flatten(1)
    if name.endswith("modulation"):
        return tensor.squeeze(0)
    return tensor


def _to_public_shape(name: str, tensor: Tensor, config: TransformerConfig) -> Tensor:
    if name == "patch_embedding.weight":
        return tensor.unflatten(1, (config.in_channels, *config.patch_size))
    if name.endswith("modulation"):
        return tensor.unsqueeze(0)
    return tensor


def _expected_shapes(config: TransformerConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = CausalTransformer(config)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _refuse(complaint: str, names: list[str]) -> None:
    if names:
        first = ", ".join(names[:5])
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise CheckpointError(
            f"The checkpoint {complaint} {first}{more}",
            hint="it has another layout than the profile says",
        )
