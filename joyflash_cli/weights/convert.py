"""Downloaded weights of a profile to a checkpoint directory that ``render`` loads.

Pickles are opened here and nowhere else (``convert_sources``), everything is planned from names and
shapes before a value is read (``convert_transformer``, ``convert_encoders``), and the result is
written shard by shard, so that memory stays far below one copy of the model.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from joyflash_cli import __version__
from joyflash_cli.config import to_dict
from joyflash_cli.description import parse_description
from joyflash_cli.errors import CheckpointError, UsageError
from joyflash_cli.weights.convert_adapter import read_adapter
from joyflash_cli.weights.convert_encoders import (
    PartPlan,
    fingerprint,
    plan_audio_encoder,
    plan_codec,
    plan_image_encoder,
    plan_text_encoder,
)
from joyflash_cli.weights.convert_plan import refuse_quantised, take
from joyflash_cli.weights.convert_sources import (
    Generator,
    TensorSource,
    read_stated_config,
)
from joyflash_cli.weights.convert_transformer import plan_transformer
from joyflash_cli.weights.convert_write import (
    Part,
    Progress,
    check_dtype,
    check_room,
    write_parts,
)
from joyflash_cli.weights.manifest import find_profile
from joyflash_cli.weights.prompt_cache import read_embedding
from joyflash_cli.weights.publishing import published_directory
from joyflash_cli.weights.sources import find_sources, weight_files

TOKENIZER_FILE = "tokenizer.json"


def convert_weights(
    profile_name: str,
    *,
    source: Path | None,
    out_dir: Path,
    dtype: str = "bf16",
    on_progress: Progress | None = None,
    generator: Generator = "auto",
    overwrite: bool = False,
) -> Path:
    """The downloaded files of a profile as a checkpoint directory, complete or not at all.

    Transformer, text and picture encoder are written in ``dtype``; the VAE and the audio encoder
    stay in float32, in which they compute. A text encoder that was not downloaded is left out:
    then only prompts whose embedding is at hand can be used.

    Args:
        profile_name: Of ``weights.toml``.
        source: A directory of the profile's files, or the transformer's file. What is not there,
            or everything for ``None``, is taken from what ``joyflash weights fetch`` downloaded.
        out_dir: The checkpoint directory to make.
        dtype: ``bf16``, ``fp16`` or ``fp32``.
        on_progress: Called with a line of text before every shard.
        generator: Which weights of a training checkpoint: ``auto`` prefers averaged ones.
        overwrite: Whether an existing directory is replaced.

    Returns:
        ``out_dir``.

    Raises:
        UsageError: For an unknown profile or dtype.
        CheckpointError: When files are missing, damaged, unsafe or of another layout.
        OutputError: When the result exists, or there is no room for it.
    """
    kind = check_dtype(dtype)
    template = read_template(profile_name)
    sources = find_sources(profile_name, source)
    parts, description = _plan(profile_name, template, sources, kind, generator)
    check_room(out_dir, parts)
    with published_directory(out_dir, overwrite=overwrite) as staging:
        write_parts(staging, parts, on_progress)
        for path in sources.get("tokenizer", ()):
            if path.name == TOKENIZER_FILE:
                shutil.copyfile(path, staging / TOKENIZER_FILE)
        for path in sources.get("prompt_embedding", ()):
            shutil.copyfile(path, staging / "prompt_embedding.safetensors")
        (staging / "checkpoint.json").write_text(json.dumps(description, indent=1) + "\n")
    return out_dir


def read_template(profile_name: str) -> dict[str, Any]:
    """What a profile's checkpoint says of itself beyond what the weights' shapes tell.

    Raises:
        UsageError: When the profile is not one that is converted.
    """
    path = Path(__file__).resolve().parents[1] / "assets" / "profiles" / f"{profile_name}.json"
    find_profile(profile_name)
    if not path.is_file():
        raise UsageError(
            f"profile {profile_name} is not converted from public files",
            hint="joyflash weights list shows where each comes from",
        )
    return json.loads(path.read_text(encoding="utf-8"))


def _plan(
    profile_name: str,
    template: Mapping[str, Any],
    sources: Mapping[str, tuple[Path, ...]],
    dtype: torch.dtype,
    generator: Generator,
) -> tuple[list[Part], dict[str, Any]]:
    """Every part that the sources give, and the description of the result."""
    paths = weight_files(sources, "transformer")
    adapter = read_adapter(sources.get("adapter", ()))
    source, config, outputs = plan_transformer(
        paths, template, generator, adapter=adapter, projector=weight_files(sources, "projector")
    )
    parts = [Part("transformer", source, PartPlan(to_dict(config), outputs), dtype)]
    parts += _plan_encoders(template, sources, dtype)
    conditioning = dict(template.get("conditioning", {}))
    for part in parts:
        if part.name == "text_encoder":
            conditioning["text_encoder"] = fingerprint(part.source, part.plan.outputs)
    description: dict[str, Any] = {
        "format": 1,
        "name": profile_name,
        "version": f"converted by JoyFlash {__version__}",
        "licence": find_profile(profile_name).licence,
        **{part.name: part.plan.section for part in parts},
    }
    for section in ("sampler", "framing"):
        if section in template:
            description[section] = template[section]
    embedding = sources.get("prompt_embedding", ())
    if embedding:
        # Copied as it is: its own header says which prompt and which encoder it belongs to.
        stated = read_embedding(embedding[0])
        description["prompt_embedding"] = {"prompt": stated.prompt}
        conditioning["default_prompt"] = stated.prompt
        conditioning.setdefault("text_encoder", stated.encoder)
    description["conditioning"] = conditioning
    if find_profile(profile_name).kind != "base":
        parse_description(description, name=profile_name)  # refuses before anything is written
    return parts, description


def _plan_encoders(
    template: Mapping[str, Any], sources: Mapping[str, tuple[Path, ...]], dtype: torch.dtype
) -> Iterator[Part]:
    """The parts beside the transformer that the profile has and the sources give."""
    options = template.get("front_end", {}).get("options", {})
    is_usual = bool(template.get("fast_codec", {}).get("encodes"))

    def codec(shapes: Mapping[str, tuple[int, ...]], stated: Mapping[str, Any]) -> PartPlan:
        plan = plan_codec(shapes, stated)
        return replace(plan, section=plan.section | template.get("codec", {}))

    planners: dict[str, tuple[str, Callable[..., PartPlan]]] = {
        "codec": ("codec", codec),
        "audio_encoder": ("front_end", lambda s, c: plan_audio_encoder(s, c, options)),
        "text_encoder": ("text_encoder", plan_text_encoder),
        "image_encoder": ("image_encoder", plan_image_encoder),
        "fast_codec": ("fast_codec", lambda s, _: _plan_fast_codec(s, is_usual)),
    }
    for role, (part, planner) in planners.items():
        paths = weight_files(sources, role)
        if not paths:
            continue
        source = TensorSource(paths)
        if role != "text_encoder":
            refuse_quantised(source.shapes, role.replace("_", " "))
        plan = planner(source.shapes, read_stated_config(paths[0]))
        yield Part(part, source, plan, dtype)


def _plan_fast_codec(shapes: Mapping[str, tuple[int, ...]], encodes: bool) -> PartPlan:
    """The tiny codec in its published layout, without the encoder where nobody uses it.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` when the encoder is needed and not there.
    """
    if encodes and not any(n.startswith("encoder.") for n in shapes):
        raise CheckpointError(
            "the fast codec has no encoder, which this profile needs",
            hint="give the original taew2_1 file",
            code="E-CHECKPOINT-LAYOUT",
        )
    outputs = [take(n, n, s) for n, s in shapes.items() if encodes or not n.startswith("encoder.")]
    return PartPlan({"kind": "taehv", **({"encodes": True} if encodes else {})}, outputs)
