"""How far a block hears: nothing beyond the window it left in reaches it."""

import dataclasses

import pytest
import torch
from toy_distillation import SHAPE, toy_batch, toy_model

from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.settings import TINY
from joyflash_cli.sampler.stream import Stream
from joyflash_cli.studio.training.dmd import student_profile

PROFILE = student_profile(TINY)
NUM_BLOCKS = 9


def blocks(source):
    batch = toy_batch(NUM_BLOCKS)
    made = Stream.start(
        toy_model(), PROFILE, source=source, latent_shape=SHAPE, noise=SeededNoise(0, SHAPE),
        reference_latent=batch.reference_latent,
    )  # fmt: skip
    return [block.latents.clone() for block in made.blocks()]


@pytest.mark.parametrize("changed", [4, 6])
def test_sound_reaches_the_blocks_that_share_a_window_with_it(changed):
    """Block k leaves a window whose last block is k + 3: later sound cannot have reached it."""
    source = toy_batch(NUM_BLOCKS)
    audio = source.conditioning.audio.clone()
    audio[:, 3 * changed :] += 1
    conditioning = dataclasses.replace(source.conditioning, audio=audio)
    before = blocks(source)
    after = blocks(dataclasses.replace(source, conditioning=conditioning))
    untouched = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert untouched == [index < changed - 3 for index in range(NUM_BLOCKS)]
