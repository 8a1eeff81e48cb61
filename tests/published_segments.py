"""Small random files in the layouts in which FlashHead and LeapTalk are published."""

import json
from pathlib import Path

import torch
from public_layouts import to_public
from published import WAV2VEC2, random_transformer, write_audio_encoder, write_vae
from safetensors.torch import save_file

from joyflash_cli.codec.taehv import TaehvConfig, TaehvDecoder, TaehvEncoder
from joyflash_cli.model.config import AudioProjectorConfig, TransformerConfig
from joyflash_cli.weights.convert_names import ONLY_AUDIO_NAMES, ONLY_AUDIO_UNUSED
from joyflash_cli.weights.manifest import find_profile

FLASHHEAD, LEAPTALK = "soulx-flashhead-1.3b", "leaptalk-1.3b"
RANK, ALPHA = 4, 8
AUDIO_DIM = WAV2VEC2["hidden_size"] * WAV2VEC2["num_hidden_layers"]
SMALL = TransformerConfig(
    dim=128, num_layers=2, num_heads=1, ffn_dim=48, freq_dim=32, in_channels=32,
    audio_projector=AudioProjectorConfig(
        audio_dim=AUDIO_DIM, hidden_dim=8, num_tokens=4, output_dim=128
    ),
)  # fmt: skip


def write_segment_profile(folder: Path, profile: str) -> Path:
    """All files of a profile under their published names; returns the folder."""
    torch.manual_seed(5)
    writers = {
        "transformer": write_network,
        "adapter": write_adapter,
        "projector": write_projector,
        "codec": write_vae,
        "audio_encoder": write_audio_encoder,
        "fast_codec": write_taehv,
    }
    for file in find_profile(profile).files:
        path = folder / file.repo.partition("/")[2] / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        writers[file.role](path)
    return folder


def network_state() -> dict[str, torch.Tensor]:
    """The network under its public names, with the tensors that nobody reads."""
    public = to_public(random_transformer(SMALL).state_dict(), SMALL, names=ONLY_AUDIO_NAMES)
    public |= {name: torch.ones(3) for name in ONLY_AUDIO_UNUSED}
    return {name: tensor.contiguous() for name, tensor in public.items()}


def write_network(path: Path) -> None:
    """FlashHead's file and the configuration beside it."""
    if path.suffix == ".json":
        path.write_text(json.dumps({"dim": SMALL.dim, "num_heads": SMALL.num_heads}))
        return
    save_file(network_state(), path)


def write_adapter(path: Path) -> None:
    """LeapTalk's adapter as peft saves it, or its configuration."""
    if path.suffix == ".json":
        stated = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["q", "k", "v", "o"]}
        path.write_text(json.dumps(stated | {"bias": "none", "use_dora": False}))
        return
    factors = {}
    for layer in range(SMALL.num_layers):
        for attention in ("self_attn", "cross_attn"):
            for linear in "qkvo":
                name = f"base_model.model.blocks.{layer}.{attention}.{linear}"
                factors[f"{name}.lora_A.weight"] = torch.randn(RANK, SMALL.dim) * 0.05
                factors[f"{name}.lora_B.weight"] = torch.randn(SMALL.dim, RANK) * 0.05
    save_file(factors, path)


def write_projector(path: Path) -> None:
    """LeapTalk's projector: a bfloat16 pickle whose names have nothing in front."""
    state = {
        name.removeprefix("audio_proj."): (torch.randn(tensor.shape) * 0.2).bfloat16()
        for name, tensor in network_state().items()
        if name.startswith("audio_proj.")
    }
    torch.save(state, path)


def write_taehv(path: Path) -> None:
    """TAEHV both ways, as the pickle or as safetensors."""
    decoder = TaehvDecoder(TaehvConfig(widths=(16, 12, 8, 8)))
    state = decoder.state_dict() | TaehvEncoder(8, 16).state_dict()
    save = save_file if path.suffix == ".safetensors" else torch.save
    save(state, path)
