"""A base model as the first weights of a network to train: its own weights, and fresh paths.

The network may hear sound, see a face and take a wider input than the base. What the base has is
copied. Input channels that it lacks start at zero, and so do the keys and values of new attention
paths: before its first step the network computes what the base computes.
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from joyflash_cli.config import to_dict
from joyflash_cli.errors import CheckpointError
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.initialisation import initialise
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.weights.convert import read_template
from joyflash_cli.weights.convert_adapter import read_adapter
from joyflash_cli.weights.convert_encoders import PartPlan
from joyflash_cli.weights.convert_plan import OutputTensor, check_outputs, meta_shapes
from joyflash_cli.weights.convert_transformer import plan_transformer
from joyflash_cli.weights.convert_write import (
    Part,
    Progress,
    check_dtype,
    check_room,
    write_parts,
)
from joyflash_cli.weights.manifest import find_profile
from joyflash_cli.weights.publishing import published_directory
from joyflash_cli.weights.sources import find_sources, weight_files

DESCRIPTION = "transformer.json"
"""What the weights are: sizes, base, licence and the seed of what is fresh."""

SAME_SIZES = (
    "dim", "num_layers", "num_heads", "ffn_dim", "out_channels", "freq_dim", "patch_size",
    "text_dim", "image_token_dim", "cross_attn_norm", "prediction",
)  # fmt: skip
"""What the base and the network must agree in; the rest may be new."""


def convert_start(
    profile_name: str,
    networks: Sequence[TransformerConfig],
    *,
    source: Path | None,
    out_dir: Path,
    dtype: str = "fp32",
    seed: int = 0,
    on_progress: Progress | None = None,
    overwrite: bool = False,
) -> Path:
    """The transformer of a base profile with the names, the shapes and the parts of a network.

    The weights are written shard by shard; the fresh ones are drawn from ``seed``.

    Args:
        profile_name: Of ``weights.toml``.
        networks: What a recipe trains; the one of the base's sizes is made.
        source: As in ``convert_weights``.
        out_dir: The directory to make: ``transformer*.safetensors`` and ``transformer.json``.
        dtype: ``bf16``, ``fp16`` or ``fp32``.
        seed: Of the fresh weights.
        on_progress: Called with a line of text before every shard.
        overwrite: Whether an existing directory is replaced.

    Returns:
        ``out_dir``.

    Raises:
        UsageError: For an unknown profile or dtype.
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` when the base is not of the network's sizes; when
            files are missing, damaged or unsafe.
        OutputError: When the result exists, or there is no room for it.
    """
    kind = check_dtype(dtype)
    template = read_template(profile_name)
    present = find_profile(profile_name).roles
    roles = tuple(role for role in ("transformer", "adapter") if role in present)
    sources = find_sources(profile_name, source, roles=roles)
    adapter = read_adapter(sources.get("adapter", ()))
    weights, base, outputs = plan_transformer(
        weight_files(sources, "transformer"), template, adapter=adapter
    )
    network = _network_of_size(profile_name, base, networks)
    plan = PartPlan(to_dict(network), _widened(outputs, base, network, seed))
    part = Part("transformer", weights, plan, kind)
    check_room(out_dir, [part])
    description: dict[str, Any] = {
        "base": profile_name,
        "licence": find_profile(profile_name).licence,
        "seed": seed,
        "transformer": plan.section,
    }
    with published_directory(out_dir, overwrite=overwrite) as staging:
        write_parts(staging, [part], on_progress)
        (staging / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
    return out_dir


def _network_of_size(
    name: str, base: TransformerConfig, networks: Sequence[TransformerConfig]
) -> TransformerConfig:
    """The network that the base can become."""
    differences = {
        network: [f for f in SAME_SIZES if getattr(base, f) != getattr(network, f)]
        for network in networks
    }
    nearest = min(networks, key=lambda network: len(differences[network]))
    if differences[nearest]:
        field = differences[nearest][0]
        raise CheckpointError(
            f"{name} has {field} = {getattr(base, field)}; the network to train has "
            f"{getattr(nearest, field)}",
            hint="joyflash weights list shows other bases; or change the recipe's network",
            code="E-CHECKPOINT-LAYOUT",
        )
    if base.in_channels > nearest.in_channels:
        raise CheckpointError(
            f"{name} takes {base.in_channels} input channels; the network to train only "
            f"{nearest.in_channels}",
            hint="start from a base without image channels, or give the network as many",
            code="E-CHECKPOINT-LAYOUT",
        )
    return nearest


def _widened(
    outputs: list[OutputTensor], base: TransformerConfig, network: TransformerConfig, seed: int
) -> list[OutputTensor]:
    """The base's tensors at the network's shapes, and fresh ones for what it lacks."""
    expected = meta_shapes(CausalTransformer, network)
    extra_columns = (network.in_channels - base.in_channels) * base.patch_area
    widened = [
        replace(
            output,
            shape=expected[output.name],
            build=functools.partial(_with_zero_columns, output.build, extra_columns),
        )
        if output.name == "patch_embedding.weight"
        else output
        for output in outputs
    ]
    given = {output.name for output in outputs}
    fresh = _fresh_tensors(network, seed)
    for name, shape in expected.items():
        if name not in given:
            widened.append(OutputTensor(name, shape, (), _fresh(fresh, name, shape)))
    check_outputs(widened, expected)
    return widened


def _with_zero_columns(build: Callable[..., Tensor], extra: int, *sources: Tensor) -> Tensor:
    """A patch embedding that does not see the new channels yet; they come last in a patch."""
    return torch.nn.functional.pad(build(*sources), (0, extra))


def _fresh_tensors(network: TransformerConfig, seed: int) -> dict[str, Tensor]:
    """Initial values of the new parts: those of one layer stand for all layers."""
    # Nothing new depends on the feed-forward width, which would be most of the memory.
    small = replace(network, num_layers=1, ffn_dim=1, audio_pack=None)
    model = initialise(CausalTransformer(small), torch.Generator().manual_seed(seed))
    fresh = {n: t.detach() for n, t in model.state_dict().items()}
    if network.audio_pack is not None:
        # The pack itself is drawn; what it adds to the layers begins at zero.
        pack = CausalTransformer(replace(small, audio_pack=network.audio_pack)).audio_pack
        generator = torch.Generator().manual_seed(seed)
        torch.nn.init.xavier_uniform_(pack.projection.weight, generator=generator)
        torch.nn.init.zeros_(pack.projection.bias)
        fresh |= {f"audio_pack.{n}": t.detach() for n, t in pack.state_dict().items()}
    return fresh


def _fresh(fresh: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Callable[[], Tensor]:
    key = name
    if name.startswith("layers."):
        key = f"layers.0.{name.split('.', 2)[2]}"

    def build() -> Tensor:
        if name.startswith("audio_pack_projections."):
            return torch.zeros(shape)
        return fresh[key]

    return build
