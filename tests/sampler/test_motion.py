"""The condition frame: which latent, at which noise, and where it stands."""

import dataclasses

import torch
from toy_stream import SHAPE, ToySource, toy_stream, watched

from joyflash_cli.sampler.mci import condition_frame
from joyflash_cli.sampler.psb import NoiseLevel
from joyflash_cli.sampler.settings import PAPER


def test_last_frame_at_the_level_of_the_window():
    block = torch.arange(3.0)[None, :, None, None, None].expand(1, 3, *SHAPE)
    noise = torch.full((1, 1, *SHAPE), 8.0)
    latents, level = condition_frame(block, NoiseLevel(625.0, 0.625), noise)
    assert torch.allclose(latents, torch.full((1, 1, *SHAPE), 0.375 * 2 + 0.625 * 8))
    assert level.timestep == 625.0
    latents, level = condition_frame(block, NoiseLevel(625.0, 0.625), None)
    assert (latents == 2).all()
    assert level.timestep == 0.0


@torch.inference_mode()
def test_absent_until_a_block_is_clean_then_always_there():
    source = ToySource(6)
    profile = dataclasses.replace(PAPER, clean_kv="last-pass")
    stream = toy_stream(profile, 6, source=source)
    for inputs, result, _ in watched(stream):
        window = [ask for ask in source.asked if ask[1] - ask[0] != 3]
        first = 3 * inputs[0].index
        positions = result.positions
        num_frames = 3 * len(inputs)
        has_condition = len(positions.own) == num_frames + 1
        assert has_condition == (stream.iteration > 8)
        if has_condition:
            # One latent frame earlier, and the conditioning of that frame.
            assert positions.own[0] == positions.own[1] - 1 == positions.context[-1]
            assert (first - 1, first + num_frames) in window
        assert result.clean.shape[1] == num_frames
        assert result.keys_values[0][0].shape[1] == num_frames * 2


@torch.inference_mode()
def test_condition_frame_steers_the_window():
    outputs = []
    for changes in ({}, {"mci": False}, {"mci_noise": False}):
        stream = toy_stream(dataclasses.replace(PAPER, **changes), 3)
        blocks = [block.latents for block in stream.blocks()]
        outputs.append(torch.cat(blocks, dim=1))
    with_noise, without, clean = outputs
    assert torch.equal(with_noise[:, :3], without[:, :3])
    assert not torch.allclose(with_noise[:, 3:], without[:, 3:], atol=1e-3)
    assert not torch.allclose(with_noise[:, 3:], clean[:, 3:], atol=1e-3)
