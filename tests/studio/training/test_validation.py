"""Validation: sampled as the product samples, decoded, beside the truth, as a picture."""

import dataclasses

import numpy as np
import pytest
import torch
from presets import AVATARFORCING
from toy_distillation import CLEAN_CONFIG, SHAPE, toy_clips, toy_model

from joyflash_cli.errors import DataError
from joyflash_cli.media.inputs.picture import read_picture
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.settings import TINY
from joyflash_cli.sampler.stream import Stream
from joyflash_cli.studio.training.batches import rollout_batch
from joyflash_cli.studio.training.dmd import student_profile
from joyflash_cli.studio.training.scores import Guidance
from joyflash_cli.studio.training.validation import (
    Validation,
    ValidationConfig,
    cached_clips,
    comparison_sheet,
    stream_sampler,
    teacher_sampler,
)

PROFILE = student_profile(TINY)
CONFIG = ValidationConfig(num_blocks=3, teacher_steps=8, guidance=Guidance(1.0, 1.0), seed=3)


class GreyCodec:
    """Every latent is four frames (the first one) whose grey is the first latent number."""

    latent_channels, spatial_stride = SHAPE[0], 16

    def start_decoding(self, reference, *, seed=None):
        return 0

    def decode(self, latents, state):
        repeats = torch.tensor([1 if state + i == 0 else 4 for i in range(latents.shape[1])])
        levels = latents[0, :, 0, 0, 0].repeat_interleave(repeats)
        size = (3, 16 * SHAPE[1], 16 * SHAPE[2])
        return levels.view(1, -1, 1, 1, 1).expand(1, -1, *size), state + latents.shape[1]


PICTURES = torch.zeros(2, 3, 32, 32)


def validation_clips():
    return toy_clips(4, num_frames=13).chosen(torch.tensor([0, 2]))


def test_streams_are_the_samplers():
    model, clips = toy_model(CLEAN_CONFIG), toy_clips(4, num_frames=13)
    with torch.no_grad():
        sampled = stream_sampler(PROFILE, CONFIG)(model, validation_clips())
    chosen = np.array([0, 2])
    batch = rollout_batch(clips, chosen, clips.audio[chosen][:, :9], 3)
    stream = Stream.start(
        model, PROFILE, source=batch, latent_shape=SHAPE, batch_size=2,
        noise=SeededNoise(3, SHAPE, streams=(0, 1)), reference_latent=batch.reference_latent,
    )  # fmt: skip
    expected = torch.cat([block.latents for block in stream.blocks()], dim=1)
    torch.testing.assert_close(sampled, expected)
    assert not sampled.is_inference()


def test_a_given_frame_in_front_is_shown():
    profile = dataclasses.replace(AVATARFORCING, block_frames=3)
    with torch.no_grad():
        sampled = stream_sampler(profile, CONFIG)(toy_model(), validation_clips())
    assert sampled.shape[1] == 10
    assert torch.equal(sampled[:, 0], validation_clips().latents[:, 0])


@torch.no_grad()
def test_the_place_of_the_reference_is_seen():
    model, clips = toy_model(), validation_clips()
    every, first = (
        stream_sampler(PROFILE, CONFIG)(model, dataclasses.replace(clips, place=place))
        for place in ("every-frame", "first-frame")
    )
    assert (every - first).abs().max() > 1e-3


def test_a_sheet_and_figures(tmp_path):
    validation = Validation(
        validation_clips(),
        PICTURES,
        GreyCodec(),
        teacher_sampler(PROFILE, CONFIG),
        columns=5,
    )
    model = toy_model().train()
    figures = validation(model, tmp_path, 40)
    assert model.training
    sheet = read_picture(tmp_path / "validation" / "step-0000040.png").pixels
    assert sheet.shape == (4 * 34 + 2, 5 * 34 + 2, 3)
    assert 0 < figures["validation_psnr_db"] < 60
    assert figures["validation_motion"] > 0
    silent = dataclasses.replace(validation, is_first=False)
    assert silent(model, tmp_path / "second", 40) == figures
    assert not (tmp_path / "second").exists()


def test_the_truth_itself_is_perfect(tmp_path):
    clips = validation_clips()
    validation = Validation(
        clips, PICTURES, GreyCodec(), lambda network, given: given.latents[:, :9]
    )
    figures = validation(toy_model(), tmp_path, 1)
    assert figures["validation_motion"] == 1.0
    assert figures["validation_psnr_db"] > 100


def test_rows_of_a_sheet_are_pairs():
    made = np.zeros((1, 7, 4, 4, 3), np.uint8)
    true = np.broadcast_to(np.arange(7, dtype=np.uint8)[None, :, None, None, None] * 10, made.shape)
    sheet = comparison_sheet(made, true, columns=3)
    assert sheet[8 + 2, [4, 10, 16], 0].tolist() == [0, 30, 60]
    assert sheet[4, [4, 10, 16], 0].tolist() == [0, 0, 0]


def test_a_data_set_without_held_out_clips_is_named(tmp_path):
    with pytest.raises(DataError, match="held_out_every"):
        cached_clips(tmp_path, num_clips=2)
