"""Profiles come back from JSON; settings that contradict each other are refused."""

import dataclasses

import pytest
from presets import AVATARFORCING, LIVETALK, ROLLINGFORCING

from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.psb import scheduled_iterations
from joyflash_cli.sampler.settings import PAPER, TINY, SamplerSettings


@pytest.mark.parametrize("profile", [PAPER, TINY, LIVETALK, AVATARFORCING, ROLLINGFORCING])
def test_round_trip(profile):
    assert SamplerSettings.from_dict(profile.to_dict()) == profile


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
        ({"attention_span_frames": 12}, "attention_span_frames is 12; at least 15"),
        ({"attention_span_frames": 14}, "attention_span_frames is 14; at least 15"),
        ({"sink_frames": 12}, "at least 24 is needed for the sink"),
        ({"context_frames": 19}, "context_frames is 19; .* no pass sees more than 18"),
        ({"context_frames": 16, "clean_kv": "last-pass"}, "no pass sees more than 15"),
        ({"window_blocks": 0}, "window_blocks"),
        ({"window_blocks": 3}, "window_blocks is 3; with 4 main steps, windows of 1, 2, 4 blocks"),
        ({"window_blocks": 5}, "window_blocks is 5"),
        ({"window_blocks": 8}, "window_blocks is 8"),
        ({"reset_rule": "periodic"}, "reset_threshold"),
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
        SamplerSettings.from_dict({"sinc_frames": 3})


def test_window_is_as_long_as_the_steps():
    longer = dataclasses.replace(
        PAPER, main_steps=(1000, 800, 600, 400, 200), sub_steps=(900, 700, 500, 300, 100)
    )
    assert longer.num_window_blocks == 5
    assert longer.entry_level == 2


@pytest.mark.parametrize("window_blocks", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("psb", [False, True])
def test_every_window_that_is_accepted_is_filled(window_blocks, psb):
    steps = tuple(range(1000, 40, -80))
    profile = SamplerSettings(
        main_steps=steps,
        sub_steps=tuple(step - 40 for step in steps),
        psb=psb,
        window_blocks=window_blocks,
        attention_span_frames=60,
    )
    sizes = [len(iteration.levels) for iteration in scheduled_iterations(60, profile)]
    assert max(sizes) == window_blocks
    middle = len(sizes) // 2
    assert set(sizes[middle : middle + 12]) == {window_blocks}
