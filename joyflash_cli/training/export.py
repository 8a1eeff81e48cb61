"""From trained parts to a checkpoint folder that ``render`` loads."""

import json
from pathlib import Path

import torch
from torch import nn

from joyflash_cli.codec.tiny import TinyCodec
from joyflash_cli.config import to_dict
from joyflash_cli.encoders.front_end import FrontEnd
from joyflash_cli.media.framing import FramingRule
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.profile import SamplerProfile


def export_checkpoint(
    out_dir: Path,
    *,
    transformer: CausalTransformer,
    codec: TinyCodec,
    front_end: FrontEnd,
    sampler: SamplerProfile,
    framing: FramingRule,
    version: str,
    half: bool = True,
) -> None:
    """Write ``*.safetensors`` and ``checkpoint.json``; floats as float16 when ``half``."""
    from safetensors.torch import save_file

    out_dir.mkdir(parents=True, exist_ok=True)
    parts: dict[str, nn.Module] = {
        "transformer": transformer,
        "codec": codec,
        "front_end": front_end,
    }
    for name, module in parts.items():
        tensors = {
            key: (value.half() if half and value.dtype == torch.float32 else value)
            .detach()
            .contiguous()
            for key, value in module.state_dict().items()
        }
        save_file(tensors, out_dir / f"{name}.safetensors")
    about = {
        "format": 1,
        "name": "tiny",
        "version": version,
        "licence": "Apache-2.0",
        "transformer": to_dict(transformer.config),
        "codec": codec.config.to_dict(),
        "front_end": to_dict(front_end.config),
        "sampler": to_dict(sampler),
        "framing": to_dict(framing),
    }
    (out_dir / "checkpoint.json").write_text(json.dumps(about, indent=1) + "\n")
