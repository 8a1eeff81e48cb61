"""Public Wan-style transformers to this project's names and shapes.

Nothing is guessed: a missing or an unexpected key is an error.
"""

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from joyflash_cli.config import from_dict
from joyflash_cli.errors import CheckpointError
from joyflash_cli.model.config import (
    AudioPackConfig,
    AudioProjectorConfig,
    TransformerConfig,
)
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.weights.convert_adapter import AdapterRule, check_adapter, check_brought
from joyflash_cli.weights.convert_names import (
    DIFFUSERS_NAMES,
    ONLY_AUDIO_NAMES,
    ONLY_AUDIO_UNUSED,
    ORIGINAL_NAMES,
    PROJECTOR_NAMES,
    rename,
)
from joyflash_cli.weights.convert_plan import (
    OutputTensor,
    Shape,
    check_outputs,
    merged_adapter,
    meta_shapes,
    refuse_quantised,
)
from joyflash_cli.weights.convert_sources import (
    OVERLAY_MARK,
    Generator,
    LayeredSource,
    TensorSource,
    read_stated_config,
)

CONTAINER_PREFIXES = ("model.", "module.", "diffusion_model.", "base_model.", "_orig_mod.")
"""What training containers and tools put in front of every name."""

WRAPPER = "_fsdp_wrapped_module."
"""What sharded training puts anywhere into a name."""

ADAPTER_SCALE = 0.5
"""Alpha / rank of AvatarForcing's adapters: 64 / 128."""

HEAD_WIDTH = 128
"""Of every published Wan model; shapes do not tell it."""

_ADAPTER = re.compile(r"^(?P<linear>.+)\.lora_(?P<factor>[AB])(?:\.\w+)?\.weight$")


def plan_transformer(
    paths: tuple[Path, ...],
    template: Mapping[str, Any],
    generator: Generator = "auto",
    *,
    adapter: tuple[TensorSource, AdapterRule] | None = None,
    projector: tuple[Path, ...] = (),
) -> tuple[TensorSource, TransformerConfig, list[OutputTensor]]:
    """The transformer in these files: its tensors, the sizes that they show, and the plan.

    Args:
        paths: Its shards, or a pickle.
        template: What the profile says of itself.
        generator: Which weights of a training checkpoint.
        adapter: What was trained on them, from ``read_adapter``: its factors are merged, and its
            whole tensors win.
        projector: Files of a trained audio projector, which replaces all of the base's.

    Raises:
        CheckpointError: When they are damaged, unsafe, quantised or of another layout.
    """
    source, rule = TensorSource(paths, generator=generator), None
    if adapter is not None:
        overlay, rule = adapter
        source = LayeredSource(source, overlay)
    if projector:
        source = LayeredSource(source, TensorSource(projector), module="audio_proj.")
    refuse_quantised(source.shapes, "transformer")
    names = detect_names(source.shapes)
    base = from_dict(TransformerConfig, template["transformer"], path="transformer")
    stated = read_stated_config(paths[0])
    if rule is not None:
        plain, factors = _split_adapters(source.shapes)
        check_brought(plain, template.get("adapter", {}).get("brings", ()))
        check_adapter(rule, plain, factors, source.shapes)
    config = detect_config(source.shapes, base, names=names, stated=stated)
    if rule is not None and config.image_channels != base.image_channels:
        raise CheckpointError(
            f"the adapter's network takes {config.image_channels} image channels; the profile's "
            f"takes {base.image_channels}",
            hint="the adapter belongs to another profile",
            code="E-CHECKPOINT-LAYOUT",
        )
    scale = ADAPTER_SCALE if rule is None else rule.scale
    outputs = transformer_outputs(source.shapes, config, names=names, adapter_scale=scale)
    return source, config, outputs


def transformer_outputs(
    shapes: Mapping[str, Shape],
    config: TransformerConfig,
    *,
    names: Mapping[str, str],
    adapter_scale: float = ADAPTER_SCALE,
) -> list[OutputTensor]:
    """What a transformer is made of, from a source with these names and shapes.

    Container prefixes (``model.``, ``_fsdp_wrapped_module.``) are removed and low-rank adapters
    merged.

    Args:
        shapes: Of the source.
        config: The architecture it must fit.
        names: The source's table, from ``detect_names``.
        adapter_scale: Alpha / rank of the adapters.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` when it does not give exactly the transformer.
    """
    plain, adapters = _split_adapters(shapes)
    unexpected = [linear for linear in adapters if f"{linear}.weight" not in plain]
    for linear, factors in adapters.items():
        if set(factors) != {"A", "B"} or linear in unexpected:
            raise CheckpointError(
                f"The adapter of {linear} is incomplete",
                hint="it needs lora_A, lora_B and the weight they are added to",
                code="E-CHECKPOINT-LAYOUT",
            )
    outputs = []
    unused = ONLY_AUDIO_UNUSED if names is ONLY_AUDIO_NAMES else frozenset()
    for name, source in plain.items():
        if name in unused:
            continue
        ours = rename(name, names)
        if ours is None:
            unexpected.append(name)
            continue
        factors = adapters.get(name.removesuffix(".weight"), {}) if name.endswith(".weight") else {}
        outputs.append(_output(ours, source, shapes, factors, adapter_scale))
    inverse = {ours: public for public, ours in names.items()}
    check_outputs(
        outputs,
        meta_shapes(CausalTransformer, config),
        unexpected=unexpected,
        public_name=lambda name: rename(name, inverse) or name,
    )
    return outputs


def detect_names(shapes: Mapping[str, Shape]) -> Mapping[str, str]:
    """Which of the tables a source is named by."""
    modules = {clean_name(name).removesuffix(".weight") for name in shapes}
    if "audio_proj.proj1" in modules:
        has_own = "blocks.0.audio_cross_attn.kv_linear" in modules
        return PROJECTOR_NAMES if has_own else ONLY_AUDIO_NAMES
    is_diffusers = any(module.startswith("condition_embedder.") for module in modules)
    return DIFFUSERS_NAMES if is_diffusers else ORIGINAL_NAMES


def detect_config(
    shapes: Mapping[str, Shape],
    base: TransformerConfig,
    *,
    names: Mapping[str, str],
    stated: Mapping[str, Any],
) -> TransformerConfig:
    """The architecture that a source's shapes show; ``base`` gives what shapes do not tell.

    Heads are not visible in any shape: ``stated`` decides, then the width of 128 that every
    published model has, then ``base``.

    Args:
        shapes: Of the source, under its own names.
        base: The profile's published architecture.
        names: The source's table.
        stated: The ``config.json`` beside the source, empty without one.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` when a part that every model has is missing.
    """
    plain, _ = _split_adapters(shapes)
    ours = {}
    for name, source in plain.items():
        new = rename(name, names)
        if new is not None:
            ours[new] = shapes[source]
    try:
        # A convolution or a linear map: its width, and what it sees of a patch.
        dim, *patch = ours["patch_embedding.weight"]
        area = base.patch_area
        # A configuration beside the file may be another model's: Wan's own states the width, that
        # of diffusers the width of a head.
        if stated.get("dim") != dim and "attention_head_dim" not in stated:
            stated = {}
        image = ours.get("image_embedding.input_norm.weight")
        projector = _audio_projector(ours, base)
        has_text = projector is None or projector.own_attention
        return replace(
            base,
            dim=dim,
            num_layers=1 + max(int(n.split(".")[1]) for n in ours if n.startswith("layers.")),
            num_heads=_num_heads(dim, base, stated),
            ffn_dim=ours["layers.0.feed_forward.input.weight"][0],
            in_channels=math.prod(patch) // area,
            out_channels=ours["head.projection.weight"][0] // area,
            freq_dim=ours["time_embedding.input.weight"][1],
            text_dim=ours["text_embedding.input.weight"][1] if has_text else None,
            text_len=int(stated.get("text_len", base.text_len)),
            image_token_dim=None if image is None else image[0],
            audio_pack=_audio_pack(ours, base),
            audio_projector=projector,
            eps=float(stated.get("eps", base.eps)),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"the source is no Wan-style transformer: {error} is not in it",
            hint="check that the file is the profile's transformer",
            code="E-CHECKPOINT-LAYOUT",
        ) from error


def clean_name(name: str) -> str:
    """One name without container prefixes."""
    name = name.replace(WRAPPER, "")
    while name.startswith(CONTAINER_PREFIXES):
        name = name.partition(".")[2]
    return name


def _split_adapters(
    shapes: Mapping[str, Shape],
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Plain name to source name, and per linear map the source names of its adapter's factors.

    Of names that a base and what lies over it both have, the upper one is taken.
    """
    plain: dict[str, str] = {}
    adapters: dict[str, dict[str, str]] = {}
    for source in shapes:
        is_over = source.startswith(OVERLAY_MARK)
        name = clean_name(source.removeprefix(OVERLAY_MARK))
        match = _ADAPTER.match(name)
        if match:
            adapters.setdefault(match["linear"], {})[match["factor"]] = source
            continue
        name = name.replace(".base_layer.", ".")
        if name in plain and is_over == plain[name].startswith(OVERLAY_MARK):
            raise CheckpointError(
                f"The checkpoint has {name} twice: as {plain[name]} and as {source}",
                hint="give one that holds a single model",
                code="E-CHECKPOINT-LAYOUT",
            )
        plain[name] = source
    return plain, adapters


def _output(
    ours: str,
    source: str,
    shapes: Mapping[str, Shape],
    factors: Mapping[str, str],
    adapter_scale: float,
) -> OutputTensor:
    build = functools.partial(_to_our_shape, ours)
    shape = tuple(torch.empty(shapes[source], device="meta").shape)
    our_shape = tuple(build(torch.empty(shape, device="meta")).shape)
    if not factors:
        return OutputTensor(ours, our_shape, (source,), build)
    down, up = shapes[factors["A"]], shapes[factors["B"]]
    if len(down) != 2 or len(up) != 2 or (up[0], down[1]) != shape or up[1] != down[0]:
        raise CheckpointError(
            f"The adapter of {clean_name(source)} has the shapes {up} and {down}; its weight is "
            f"{shape}",
            hint="the adapter belongs to another model",
            code="E-CHECKPOINT-LAYOUT",
        )

    def merge(weight: Tensor, lora_down: Tensor, lora_up: Tensor) -> Tensor:
        return build(merged_adapter(weight, lora_down, lora_up, scale=adapter_scale))

    return OutputTensor(ours, our_shape, (source, factors["A"], factors["B"]), merge)


def _num_heads(dim: int, base: TransformerConfig, stated: Mapping[str, Any]) -> int:
    heads = stated.get("num_heads", stated.get("num_attention_heads"))
    if heads is not None:
        return int(heads)
    if dim % HEAD_WIDTH == 0:
        return dim // HEAD_WIDTH
    # No published model has such a width; the nearest number that fits is stated in the result.
    fitting = (n for n in range(base.num_heads, 0, -1) if dim % n == 0 and dim // n % 2 == 0)
    return next(fitting, 1)


def _audio_pack(ours: Mapping[str, Shape], base: TransformerConfig) -> AudioPackConfig | None:
    projection = ours.get("audio_pack.projection.weight")
    if projection is None:
        return None
    rows = (base.audio_pack or AudioPackConfig()).rows_per_latent
    return AudioPackConfig(
        audio_dim=projection[1] // rows, rows_per_latent=rows, hidden_dim=projection[0]
    )


def _audio_projector(
    ours: Mapping[str, Shape], base: TransformerConfig
) -> AudioProjectorConfig | None:
    first = ours.get("audio_projection.first.weight")
    if first is None:
        return None
    (output_dim,) = ours["audio_projection.norm.weight"]
    rows = AudioProjectorConfig.window_rows
    if base.audio_projector is not None:
        rows = base.audio_projector.window_rows
    return AudioProjectorConfig(
        audio_dim=first[1] // rows,
        window_rows=rows,
        hidden_dim=first[0],
        num_tokens=ours["audio_projection.output.weight"][0] // output_dim,
        output_dim=output_dim,
        own_attention="layers.0.audio_attention.key_value.weight" in ours,
    )


def _to_our_shape(name: str, tensor: Tensor) -> Tensor:
    if name == "patch_embedding.weight":
        # A convolution with stride = kernel is a linear map of (channel, row, column).
        return tensor.flatten(1)
    if name.endswith("modulation"):
        return tensor.squeeze(0)
    return tensor
