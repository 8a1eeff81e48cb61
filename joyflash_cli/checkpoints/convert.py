"""Downloaded weights of a profile to a checkpoint directory that ``render`` loads.

Pickles are opened here and nowhere else (``convert_sources``), everything is planned from names and
shapes before a value is read (``convert_transformer``, ``convert_encoders``), and the result is
written shard by shard, so that memory stays far below one copy of the model.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from joyflash_cli import __version__
from joyflash_cli.checkpoints.convert_encoders import (
    PartPlan,
    plan_audio_encoder,
    plan_codec,
    plan_image_encoder,
    plan_text_encoder,
)
from joyflash_cli.checkpoints.convert_inputs import ProfileSources, find_sources
from joyflash_cli.checkpoints.convert_names import DIFFUSERS_NAMES, ORIGINAL_NAMES
from joyflash_cli.checkpoints.convert_outputs import OutputTensor, take
from joyflash_cli.checkpoints.convert_sources import (
    Generator,
    TensorSource,
    read_stated_config,
    select_generator,
)
from joyflash_cli.checkpoints.convert_transformer import (
    detect_config,
    detect_names,
    from_public,
    key_hash,
    merge_adapters,
    strip_prefixes,
    to_public,
    transformer_outputs,
)
from joyflash_cli.checkpoints.manifest import find_profile
from joyflash_cli.checkpoints.publishing import published_directory
from joyflash_cli.checkpoints.shards import TensorSize, plan_shards, shard_names, write_shards
from joyflash_cli.config import from_dict, to_dict
from joyflash_cli.errors import CheckpointError, OutputError, UsageError
from joyflash_cli.model.config import TransformerConfig

__all__ = [
    "DIFFUSERS_NAMES",
    "ORIGINAL_NAMES",
    "convert_weights",
    "from_public",
    "key_hash",
    "merge_adapters",
    "read_template",
    "select_generator",
    "strip_prefixes",
    "to_public",
]

DTYPES = {
    "bf16": torch.bfloat16, "bfloat16": torch.bfloat16, "fp16": torch.float16,
    "float16": torch.float16, "fp32": torch.float32, "float32": torch.float32,
}  # fmt: skip

ADAPTER_SCALE = 0.5
"""Alpha / rank of AvatarForcing's adapters: 64 / 128."""

MIN_SHARD_BYTES = 8 << 20
MAX_SHARD_BYTES = 1 << 30
SHARDS_PER_MODEL = 8
"""A part is written in about so many pieces, and one piece is in memory at a time."""

TOKENIZER_FILE = "tokenizer.json"

Progress = Callable[[str], None]
"""Called with a line of text whenever a step begins."""


@dataclass(frozen=True)
class _Part:
    """One part ready to be written."""

    name: str
    source: TensorSource
    plan: PartPlan
    dtype: torch.dtype

    def num_bytes(self, output: OutputTensor) -> int:
        size = 1
        for length in output.shape:
            size *= length
        return size * self.stored_dtype(output).itemsize

    def stored_dtype(self, output: OutputTensor) -> torch.dtype:
        stored = self.source.dtypes[output.sources[0]]
        if not stored.is_floating_point:
            return stored
        return torch.float32 if self.plan.in_float32 else self.dtype

    @property
    def total_bytes(self) -> int:
        return sum(self.num_bytes(output) for output in self.plan.outputs)


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
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} cannot be stored", hint="one of bf16, fp16, fp32")
    template = read_template(profile_name)
    sources = find_sources(profile_name, source)
    parts, description = _plan(profile_name, template, sources, DTYPES[dtype], generator)
    _check_room(out_dir, parts)
    with published_directory(out_dir, overwrite=overwrite) as staging:
        _write(staging, parts, on_progress)
        for path in sources.get("tokenizer"):
            if path.name == TOKENIZER_FILE:
                shutil.copyfile(path, staging / TOKENIZER_FILE)
        for path in sources.get("prompt_embedding"):
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
    sources: ProfileSources,
    dtype: torch.dtype,
    generator: Generator,
) -> tuple[list[_Part], dict[str, Any]]:
    """Every part that the sources give, and the description of the result."""
    parts = [_plan_transformer(template, sources, dtype, generator)]
    parts += _plan_encoders(template, sources, dtype)
    conditioning = dict(template.get("conditioning", {}))
    for part in parts:
        if part.name == "text_encoder":
            conditioning["text_encoder"] = _fingerprint(part)
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
    embedding = sources.get("prompt_embedding")
    if embedding:
        # Copied as it is: its own header says which prompt and which encoder it belongs to.
        stated = _stated_embedding(embedding[0])
        description["prompt_embedding"] = {"prompt": stated["prompt"]}
        conditioning["default_prompt"] = stated["prompt"]
        conditioning.setdefault("text_encoder", stated["encoder"])
    return parts, description | {"conditioning": conditioning}


def _plan_transformer(
    template: Mapping[str, Any], sources: ProfileSources, dtype: torch.dtype, generator: Generator
) -> _Part:
    paths = sources.weights("transformer")
    source = TensorSource(paths, generator=generator)
    names = detect_names(source.shapes)
    base = from_dict(TransformerConfig, template["transformer"], path="transformer")
    config = detect_config(source.shapes, base, names=names, stated=read_stated_config(paths[0]))
    outputs = transformer_outputs(source.shapes, config, names=names, adapter_scale=ADAPTER_SCALE)
    return _Part("transformer", source, PartPlan(to_dict(config), outputs), dtype)


def _plan_encoders(
    template: Mapping[str, Any], sources: ProfileSources, dtype: torch.dtype
) -> Iterator[_Part]:
    """The parts beside the transformer that the profile has and the sources give."""
    options = template.get("front_end", {}).get("options", {})
    planners: dict[str, tuple[str, Callable[..., PartPlan]]] = {
        "codec": ("codec", plan_codec),
        "audio_encoder": ("front_end", lambda s, c: plan_audio_encoder(s, c, options)),
        "text_encoder": ("text_encoder", plan_text_encoder),
        "image_encoder": ("image_encoder", plan_image_encoder),
        "fast_codec": ("fast_codec", _plan_fast_codec),
    }
    for role, (part, planner) in planners.items():
        if not sources.has(role):
            continue
        paths = sources.weights(role)
        source = TensorSource(paths)
        plan = planner(source.shapes, read_stated_config(paths[0]))
        yield _Part(part, source, plan, dtype)


def _plan_fast_codec(shapes: Mapping[str, tuple[int, ...]], _stated: Mapping[str, Any]) -> PartPlan:
    """The tiny decoder keeps its published layout, without the encoder that nobody uses."""
    outputs = [take(n, n, s) for n, s in shapes.items() if not n.startswith("encoder.")]
    return PartPlan({"kind": "taehv"}, outputs)


def _write(directory: Path, parts: list[_Part], on_progress: Progress | None) -> None:
    for part in parts:
        write_shards(directory, part.name, _shards(part, on_progress))


def _shards(
    part: _Part, on_progress: Progress | None
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """File name and tensors of each shard of a part, made when they are asked for."""
    outputs = {output.name: output for output in part.plan.outputs}
    limit = min(max(part.total_bytes // SHARDS_PER_MODEL, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
    groups = plan_shards(
        [TensorSize(name, part.num_bytes(output)) for name, output in outputs.items()], limit
    )
    files = shard_names(part.name, len(groups))
    for index, (file, group) in enumerate(zip(files, groups, strict=True), start=1):
        if on_progress is not None:
            size = f"{part.total_bytes / 1e9:.2f} GB"
            on_progress(f"{part.name} ({size}), file {index} of {len(files)}")
        yield file, _made(part, [outputs[name] for name in group])


def _made(part: _Part, outputs: list[OutputTensor]) -> dict[str, torch.Tensor]:
    """Tensors of one shard. When this returns, nothing refers to the source's mapped pages."""
    tensors = {}
    with part.source.opened() as read:
        for output in outputs:
            made = output.build(*(read(source) for source in output.sources))
            # A copy: the file behind the tensor is closed before the shard is written.
            tensors[output.name] = made.to(part.stored_dtype(output), copy=True).contiguous()
    return tensors


def _fingerprint(part: _Part) -> str:
    """A hash that tells one text encoder from another: names, shapes and some values."""
    digest = hashlib.sha256()
    with part.source.opened() as read:
        for output in sorted(part.plan.outputs, key=lambda output: output.name):
            values = read(output.sources[0]).flatten()[:64].float()
            digest.update(f"{output.name} {output.shape}".encode())
            digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def _stated_embedding(path: Path) -> dict[str, str]:
    """Prompt and encoder of a prompt embedding's file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            stated = file.metadata() or {}
        return {"prompt": stated["prompt"], "encoder": stated["encoder"]}
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(
            f"{path} is no prompt embedding: {error}",
            hint="fetch it again",
            code="E-CHECKPOINT-DAMAGED",
        ) from error


def _check_room(out_dir: Path, parts: list[_Part]) -> None:
    """Refuse before anything is written when the disk is too small."""
    needed = sum(part.total_bytes for part in parts)
    existing = next(parent for parent in (out_dir, *out_dir.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise OutputError(
            f"{out_dir} needs {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free on its disk",
            hint="give a directory on another disk",
            code="E-OUTPUT-SPACE",
        )
