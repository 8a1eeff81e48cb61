"""Named sizes have the published numbers of parameters; impossible sizes are refused."""

import dataclasses

import pytest
import torch
from presets import CONFIGURATIONS, WAN_1_3B

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.config import TINY, TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("wan-1.3b", 1_418_996_800),
        ("avatar-1.3b", 1_421_187_232),
        ("fun-inp-1.3b", 1_564_428_608),
        ("wan-14b", 14_288_491_584),
        ("avatar-14b", 14_293_426_336),
    ],
)
def test_parameter_counts(name, num_parameters):
    with torch.device("meta"):
        model = CausalTransformer(CONFIGURATIONS[name])
    assert sum(p.numel() for p in model.parameters()) == num_parameters


def test_tiny_is_small():
    with torch.device("meta"):
        model = CausalTransformer(TINY)
    assert sum(p.numel() for p in model.parameters()) < 8_000_000


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_round_trip(name):
    config = CONFIGURATIONS[name]
    assert TransformerConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "change",
    [
        {"num_heads": 7},
        {"num_heads": 512},
        {"patch_size": (2, 2, 2)},
        {"in_channels": 8},
        {"freq_dim": 31},
        {"text_dim": None, "image_token_dim": 8},
        {"audio_modulation": True},
    ],
)
def test_impossible_sizes(change):
    with pytest.raises(ConfigError):
        dataclasses.replace(WAN_1_3B, **change)


def test_audio_pack_reaches_layers_two_to_half():
    assert list(CONFIGURATIONS["avatar-1.3b"].audio_pack_layers) == list(range(2, 16))
    assert list(WAN_1_3B.audio_pack_layers) == []


def test_frames_the_patch_does_not_divide():
    assert WAN_1_3B.tokens_per_frame(60, 104) == 1560
    with pytest.raises(ConfigError, match="61"):
        WAN_1_3B.tokens_per_frame(61, 104)
