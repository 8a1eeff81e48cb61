"""A checkpoint of small random weights, with every part of a real one."""

import json
from pathlib import Path

TOY_SIZE_PX = 64


def write_toy_checkpoint(folder: Path) -> None:
    """Fills a folder with small random weights: 64 px, two layers, every part real."""
    import torch
    from public_layouts import save_state_dict

    from joyflash_cli.codec.tiny import TinyCodec, TinyCodecConfig
    from joyflash_cli.config import to_dict
    from joyflash_cli.encoders.front_end import FrontEnd, FrontEndConfig
    from joyflash_cli.media.inputs.framing import FramingRule
    from joyflash_cli.model.config import AudioAttentionConfig, TransformerConfig
    from joyflash_cli.model.transformer import CausalTransformer
    from joyflash_cli.sampler.settings import SamplerSettings

    front_end = FrontEndConfig(num_mels=8, stem_width=8, hidden=10, num_blocks=1)
    codec = TinyCodecConfig(
        latent_channels=4, encoder_dim=16, latent_dim=16, num_latent_layers=1, decoder_dim=16,
        reference_dim=8,
    )  # fmt: skip
    transformer = TransformerConfig(
        dim=32,
        num_layers=2,
        num_heads=2,
        ffn_dim=64,
        in_channels=9,
        out_channels=4,
        audio_attention=AudioAttentionConfig(audio_dim=16, tokens_per_latent=8, projection_dim=32),
        audio_modulation=True,
        prediction="clean",
    )
    description = {
        "format": 1,
        "name": "toy",
        "version": "1",
        "licence": "CC0-1.0",
        "transformer": to_dict(transformer),
        "codec": to_dict(codec),
        "front_end": to_dict(front_end),
        "sampler": to_dict(SamplerSettings(fps=25)),
        "framing": to_dict(FramingRule(TOY_SIZE_PX, 0.5, 0.42, 0.25)),
    }
    (folder / "checkpoint.json").write_text(json.dumps(description))
    torch.manual_seed(0)
    modules = {
        "transformer": CausalTransformer(transformer),
        "codec": TinyCodec(codec),
        "front_end": FrontEnd(front_end),
    }
    for part, module in modules.items():
        for parameter in module.parameters():
            # Zero-initialised ends would make every output a copy of the reference.
            if parameter.abs().max() == 0:
                torch.nn.init.normal_(parameter, std=0.05)
        save_state_dict(module, folder / f"{part}.safetensors")
