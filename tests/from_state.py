"""Encoders and codecs with the weights of the state dicts that recordings come with."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from joyflash_cli.codec.wan import WanCodec, wan_vae_module
from joyflash_cli.encoders.wav2vec2 import Wav2Vec2Encoder, Wav2Vec2Options, current_name


def wan_codec_from_state(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> WanCodec:
    """A codec, from names of diffusers or of the original Wan file (``decoder.middle.*``)."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    weights = dict(state)
    if any(key.startswith("decoder.middle.") for key in weights):
        weights = convert_wan_vae_to_diffusers(weights)
    vae = wan_vae_module(config)
    vae.load_state_dict(weights, strict=True)
    return WanCodec(vae)


def wav2vec2_from_state(
    config: Mapping[str, Any], state: Mapping[str, Tensor], options: Wav2Vec2Options
) -> Wav2Vec2Encoder:
    """An encoder, from names of the Hugging Face model, with or without a CTC head."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    model: Any = Wav2Vec2Model(Wav2Vec2Config(**config))
    weights = {
        current_name(key): value for key, value in state.items() if not key.startswith("lm_head.")
    }
    # Only masked training reads this vector; checkpoints may or may not carry it.
    weights.setdefault("masked_spec_embed", torch.zeros(model.config.hidden_size))
    model.load_state_dict(weights, strict=True)
    return Wav2Vec2Encoder(model, options)
