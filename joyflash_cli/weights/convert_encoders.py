"""Plans for everything beside the transformer: text, picture and audio encoder, and the VAE.

Sizes are read from the shapes of the source, so that the published files and small ones of the same
layout take the same way; the published value stands where no shape tells.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.convert_names import (
    IMAGE_ENCODER_NAMES,
    TEXT_ENCODER_NAMES,
    rename,
)
from joyflash_cli.weights.convert_plan import (
    OutputTensor,
    Shape,
    check_outputs,
    keep,
    meta_shapes,
    split_scales,
    take,
    take_scaled,
)
from joyflash_cli.weights.convert_sources import TensorSource

PUBLISHED_CLIP_HEAD_WIDTH = 80
"""Of the ViT-H picture tower: 1280 / 16."""


VAE_FIELDS = ("dim_mult", "num_res_blocks", "temperal_downsample", "latents_mean", "latents_std")
"""Settings of a diffusers ``config.json`` that shapes do not tell."""


@dataclass(frozen=True)
class PartPlan:
    """One part of a checkpoint, planned.

    Attributes:
        section: Its settings in ``checkpoint.json``.
        outputs: Its tensors.
        in_float32: Whether it keeps float32: parts that compute in it would only lose.
    """

    section: dict[str, Any]
    outputs: list[OutputTensor]
    in_float32: bool = False


def plan_text_encoder(shapes: Mapping[str, Shape], stated: Mapping[str, Any]) -> PartPlan:
    """Wan2.1's umT5 encoder, or transformers' own, for ``encoders.text``.

    Repackaged files with 8-bit weights and scales come out as the products of both.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` when it is neither.
    """
    outputs: list[OutputTensor] = []
    unexpected = []
    plain, scales = split_scales(shapes)
    for name, shape in plain.items():
        ours = _text_name(name)
        if ours is None:
            unexpected.append(name)
        elif ours and not any(output.name == ours for output in outputs):
            outputs.append(take_scaled(ours, name, shape, scales))
    sizes = {output.name: output.shape for output in outputs}
    with _needed("a umT5 text encoder"):
        vocabulary, dim = sizes["embed_tokens.weight"]
        attention = "block.0.layer.0.SelfAttention"
        buckets, heads = sizes[f"{attention}.relative_attention_bias.weight"]
        config = {
            "vocab_size": vocabulary,
            "d_model": dim,
            "num_heads": heads,
            "d_kv": sizes[f"{attention}.q.weight"][0] // heads,
            "d_ff": sizes["block.0.layer.1.DenseReluDense.wi_0.weight"][0],
            "num_layers": 1 + max(int(n.split(".")[1]) for n in sizes if n.startswith("block.")),
            "relative_attention_num_buckets": buckets,
        }
    from joyflash_cli.encoders.text import text_encoder_module

    check_outputs(outputs, meta_shapes(text_encoder_module, config), unexpected=unexpected)
    return PartPlan({"kind": "umt5", "config": config}, outputs)


def fingerprint(source: TensorSource, outputs: Sequence[OutputTensor]) -> str:
    """A hash that tells one text encoder from another: names, shapes and some values."""
    digest = hashlib.sha256()
    with source.opened() as read:
        for output in sorted(outputs, key=lambda output: output.name):
            values = read(output.sources[0]).flatten()[:64].float()
            digest.update(f"{output.name} {output.shape}".encode())
            digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def plan_image_encoder(shapes: Mapping[str, Shape], stated: Mapping[str, Any]) -> PartPlan:
    """The picture tower of Wan2.1's CLIP, or transformers' own, for ``encoders.image``.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` when it is neither.
    """
    is_original = any(name.startswith("visual.") for name in shapes)
    if not str(stated.get("model_type", "")).startswith("clip"):
        stated = {}
    outputs: list[OutputTensor] = []
    unexpected = []
    for name, shape in shapes.items():
        planned = _original_image(name, shape) if is_original else _hub_image(name, shape)
        if planned is None:
            unexpected.append(name)
        else:
            outputs += planned
    sizes = {output.name: output.shape for output in outputs}
    with _needed("a CLIP picture encoder"):
        dim, _, patch, _ = sizes["embeddings.patch_embedding.weight"]
        tokens = sizes["embeddings.position_embedding.weight"][0]
        stated_heads = stated.get("num_attention_heads")
        usual_heads = dim // PUBLISHED_CLIP_HEAD_WIDTH
        if dim % PUBLISHED_CLIP_HEAD_WIDTH:
            usual_heads = next(heads for heads in (4, 2, 1) if dim % heads == 0)
        config = {
            "hidden_size": dim,
            "intermediate_size": sizes["encoder.layers.0.mlp.fc1.weight"][0],
            "num_hidden_layers": 1
            + max(int(n.split(".")[2]) for n in sizes if n.startswith("encoder.layers.")),
            "num_attention_heads": int(stated_heads or usual_heads),
            "image_size": patch * round((tokens - 1) ** 0.5),
            "patch_size": patch,
            "hidden_act": str(stated.get("hidden_act", "gelu")),
        }
    from joyflash_cli.encoders.image import image_encoder_module

    check_outputs(outputs, meta_shapes(image_encoder_module, config), unexpected=unexpected)
    return PartPlan({"kind": "clip", "config": config}, outputs)


def plan_audio_encoder(
    shapes: Mapping[str, Shape], stated: Mapping[str, Any], options: Mapping[str, Any]
) -> PartPlan:
    """A wav2vec2 model with or without its CTC head, for ``encoders.wav2vec2``.

    Args:
        shapes: Of the source.
        stated: The ``config.json`` beside it; the base model's numbers without one.
        options: The profile's rules for turning sound into rows.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` when it is another model.
    """
    from joyflash_cli.encoders.wav2vec2 import (
        CONFIG_FIELDS,
        current_name,
        is_training_only,
        wav2vec2_module,
    )

    is_its_own = stated.get("model_type") == "wav2vec2"
    config = {key: stated[key] for key in CONFIG_FIELDS if is_its_own and key in stated}
    outputs = [
        take(current_name(name), name, shape)
        for name, shape in shapes.items()
        if not is_training_only(name)
    ]
    check_outputs(outputs, meta_shapes(wav2vec2_module, config))
    section = {"kind": "wav2vec2", "config": config, "options": dict(options)}
    return PartPlan(section, outputs, in_float32=True)


def plan_codec(shapes: Mapping[str, Shape], stated: Mapping[str, Any]) -> PartPlan:
    """The Wan 2.1 VAE in its original or in diffusers' layout, for ``codec.wan``.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` when it is another VAE.
    """
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    from joyflash_cli.codec.wan import wan_vae_module

    sources = {name: name for name in shapes}
    if any(name.startswith("decoder.middle.") for name in shapes):
        # The library only moves values to new names, so names can stand for the values.
        sources = convert_wan_vae_to_diffusers(dict(sources))
    outputs = [take(name, source, shapes[source]) for name, source in sources.items()]
    with _needed("a Wan 2.1 VAE"):
        base_dim = shapes[sources["encoder.conv_in.weight"]][0]
        z_dim = shapes[sources["post_quant_conv.weight"]][0]
    config = {"base_dim": base_dim, "z_dim": z_dim}
    if stated.get("_class_name") != "AutoencoderKLWan":
        stated = {}
    config |= {key: stated[key] for key in VAE_FIELDS if key in stated}
    check_outputs(outputs, meta_shapes(wan_vae_module, config))
    return PartPlan({"kind": "wan", **config}, outputs, in_float32=True)


def _text_name(name: str) -> str | None:
    """Our name of a text encoder's tensor; empty for a copy, ``None`` for a stranger."""
    ours = rename(name, TEXT_ENCODER_NAMES)
    if ours is not None:
        return ours
    if name in ("shared.weight", "encoder.embed_tokens.weight"):
        return "embed_tokens.weight"
    if name == "spiece_model":  # repackaged files carry the tokenizer as bytes
        return ""
    if name.startswith(("encoder.block.", "encoder.final_layer_norm.")):
        return name.removeprefix("encoder.")
    return None


def _original_image(name: str, shape: Shape) -> list[OutputTensor] | None:
    """What is made of a tensor of Wan's CLIP file; nothing of its text half."""
    if not name.startswith("visual.") or name == "visual.head":
        return []
    own = name.removeprefix("visual.")
    if ".attn.to_qkv." in own:
        layer, leaf = own.split(".")[1], own.rpartition(".")[2]
        third = (shape[0] // 3, *shape[1:])
        return [
            OutputTensor(
                f"encoder.layers.{layer}.self_attn.{letter}_proj.{leaf}",
                third,
                (name,),
                lambda tensor, index=index: tensor.chunk(3)[index],
            )
            for index, letter in enumerate("qkv")
        ]
    ours = rename(own, IMAGE_ENCODER_NAMES)
    if ours is None:
        return None
    if own == "cls_embedding":
        return [OutputTensor(ours, shape[-1:], (name,), torch.flatten)]
    if own == "pos_embedding":
        return [OutputTensor(ours, shape[1:], (name,), lambda tensor: tensor.squeeze(0))]
    return [OutputTensor(ours, shape, (name,), keep)]


def _hub_image(name: str, shape: Shape) -> list[OutputTensor] | None:
    """A tensor of transformers' layout; its text half, where a file has one, is left out."""
    if name.startswith(("text_model.", "text_projection", "visual_projection", "logit_scale")):
        return []
    own = name.removeprefix("vision_model.")
    if own == "embeddings.position_ids":
        return []
    return [take(own, name, shape)]


@contextmanager
def _needed(what: str) -> Iterator[None]:
    """Turn a missing name into an error that says what the file should have been."""
    try:
        yield
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"the source is not {what}: {error} is not in it",
            hint="check that the file is the profile's own",
            code="E-CHECKPOINT-LAYOUT",
        ) from error
