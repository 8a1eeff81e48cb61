"""From trained parts to a checkpoint folder that ``render`` loads."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from joyflash_cli.codec.tiny import TinyCodec
from joyflash_cli.config import to_dict
from joyflash_cli.encoders.front_end import FrontEnd
from joyflash_cli.media.inputs.framing import FramingRule
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.training.dataset_latents import resolve_encoders
from joyflash_cli.studio.training.dmd import student_profile
from joyflash_cli.studio.training.latents import IMAGE_CONVENTIONS
from joyflash_cli.studio.training.run_config import RunConfig
from joyflash_cli.studio.training.run_parts import read_geometry
from joyflash_cli.weights.integrity import write_checksums
from joyflash_cli.weights.tensors import as_eight_bit


def export_checkpoint(
    out_dir: Path,
    *,
    transformer: CausalTransformer,
    codec: TinyCodec,
    front_end: FrontEnd,
    sampler: SamplerSettings,
    framing: FramingRule,
    version: str,
) -> None:
    """Write ``*.safetensors``, ``checkpoint.json`` and the hashes of both.

    Floats are stored as float16, and the large weights of the codec in eight bits:
    its rounding is far below what the codec itself gets wrong.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    save_file(_halved(transformer.state_dict()), out_dir / "transformer.safetensors")
    save_file(as_eight_bit(_halved(codec.state_dict())), out_dir / "codec.safetensors")
    save_file(_halved(front_end.state_dict()), out_dir / "front_end.safetensors")
    about = {
        "format": 1,
        "name": "tiny",
        "version": version,
        "licence": "Apache-2.0",
        "transformer": to_dict(transformer.config),
        "codec": to_dict(codec.config),
        "front_end": to_dict(front_end.config),
        "sampler": to_dict(sampler),
        "framing": to_dict(framing),
    }
    _describe(out_dir, about)


def _halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    half = {name: x.half() if x.is_floating_point() else x for name, x in tensors.items()}
    return {name: x.contiguous() for name, x in half.items()}


def _describe(out_dir: Path, about: dict[str, Any]) -> None:
    (out_dir / "checkpoint.json").write_text(json.dumps(about, indent=1) + "\n")
    write_checksums(out_dir)


def exported_sampler(run: RunConfig) -> SamplerSettings:
    """The profile that goes with the exported weights: a distilled generator needs no guidance."""
    sampler = read_geometry(run).sampler
    return student_profile(sampler) if run.weights.exports_distilled else sampler


def export_around(run: RunConfig, weights: Path, sampler: SamplerSettings, out_dir: Path) -> None:
    """Write a checkpoint of some weights.

    Codec, encoders and framing are copied from the checkpoint that encoded the clips; without
    them the weights mean nothing.
    """
    files = resolve_encoders(run.dataset.checkpoint)
    out_dir.mkdir(parents=True, exist_ok=True)
    for path in files.directory.iterdir():
        if path.is_file() and not path.name.startswith(("transformer", "checkpoint.json")):
            shutil.copyfile(path, out_dir / path.name)
    save_file(_halved(load_file(weights)), out_dir / "transformer.safetensors")
    about = json.loads((files.directory / "checkpoint.json").read_text())
    conditioning = about.get("conditioning", {})
    about |= {
        "version": run.version,
        "transformer": to_dict(read_geometry(run).student),
        "sampler": to_dict(sampler),
        "conditioning": conditioning | {"image_convention": IMAGE_CONVENTIONS[run.reference]},
    }
    # What only a teacher in segments needs: a stream is not decoded in tiles, and not guided.
    about["codec"].pop("tiled", None)
    about["conditioning"].pop("negative_prompt", None)
    _describe(out_dir, about)
