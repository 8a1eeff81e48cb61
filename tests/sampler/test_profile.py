"""Profiles come back from JSON; settings that contradict each other are refused."""

import dataclasses

import pytest

from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.profile import (
    AVATARFORCING,
    LIVETALK,
    PAPER,
    ROLLINGFORCING,
    TINY,
    SamplerProfile,
)


@pytest.mark.parametrize("profile", [PAPER, TINY, LIVETALK, AVATARFORCING, ROLLINGFORCING])
def test_round_trip(profile):
    assert SamplerProfile.from_dict(profile.to_dict()) == profile


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"main_steps": ()}, "main_steps"),
        ({"main_steps": (500, 750), "sub_steps": (), "psb": False}, "decrease"),
        ({"main_steps": (1200,), "sub_steps": (), "psb": False}, "1..1000"),
        ({"sub_steps": (875, 625, 375)}, "sub_steps"),
        ({"sub_steps": (875, 625, 375, 300)}, "sub_steps"),
        ({"sub_steps": ()}, "psb"),
        ({"block_frames": 0}, "block_frames"),
        ({"context_frames": -1}, "context_frames"),
        ({"attention_span_frames": 11}, "attention_span_frames is 11; at least 12"),
        ({"window_blocks": 0}, "window_blocks"),
        ({"shift": 0.0}, "shift"),
        ({"reset_threshold": 20}, "21 indices"),
        ({"reset_threshold": 27, "position_policy": "absolute"}, "reset_threshold"),
    ],
)
def test_contradictions(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(PAPER, **change)


def test_unknown_key_suggests_the_right_one():
    with pytest.raises(ConfigError, match="sink_frames"):
        SamplerProfile.from_dict({"sinc_frames": 3})


def test_window_is_as_long_as_the_steps():
    longer = dataclasses.replace(
        PAPER, main_steps=(1000, 800, 600, 400, 200), sub_steps=(900, 700, 500, 300, 100)
    )
    assert longer.num_window_blocks == 5
    assert longer.entry_level == 2
