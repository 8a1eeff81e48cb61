"""Training of the generator: targets in the head's order, resuming, hearing the sound."""

import dataclasses

import pytest
import torch

from joyflash_cli.model.config import AudioAttentionConfig, TransformerConfig
from joyflash_cli.model.embeddings import head_patches, unpatchify
from joyflash_cli.sampler.settings import TINY
from joyflash_cli.studio.training.generator import (
    build_generator,
    measure_denoising,
    output_scale,
    train_generator,
)
from joyflash_cli.studio.training.generator_batches import GeneratorTrainingConfig, StepKind
from joyflash_cli.studio.training.latents import LatentClips, token_weights
from joyflash_cli.studio.training.session import Session
from joyflash_cli.studio.training.trainer import OptimiserConfig, learning_rate_scale

TRANSFORMER = TransformerConfig(
    dim=32,
    num_layers=2,
    num_heads=2,
    ffn_dim=64,
    freq_dim=32,
    in_channels=9,
    out_channels=4,
    audio_attention=AudioAttentionConfig(audio_dim=3, tokens_per_latent=8, projection_dim=16),
    audio_modulation=True,
    prediction="clean",
    position_embedding=16,
)


def _clips(count=8):
    """Latents that the sound alone decides: the first audio number sets the first channel."""
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(count, 21, 8, 3, generator=generator)
    latents = torch.randn(count, 21, 4, 8, 8, generator=generator) * 0.1
    latents[:, :, 0] += 2 * audio[:, :, 3, 0, None, None]
    latents[:, 0] = 0
    return LatentClips(
        latents=latents,
        references=torch.randn(count, 4, 8, 8, generator=generator),
        audio=audio,
        token_weights=torch.ones(count, 16) + 2 * (torch.arange(16) < 4),
        is_start=torch.ones(count, dtype=torch.bool),
        clip_weights=torch.ones(count),
    )


def _config(steps, **optimiser):
    return GeneratorTrainingConfig(
        transformer=TRANSFORMER,
        sampler=TINY,
        optimiser=OptimiserConfig(steps=steps, flat_share=1.0, warmup_steps=1, **optimiser),
        steps=(
            StepKind("clip", batch=8, num_frames=4, num_tokens=8),
            StepKind("clip", batch=8, num_frames=4, num_tokens=0),
            StepKind("rolling", batch=2, num_tokens=8, share_first=0.2, share_last=0.2),
        ),
    )


def test_targets_are_in_the_order_of_the_head():
    latents = torch.randn(2, 3, 4, 8, 8)
    assert torch.equal(unpatchify(head_patches(latents, (2, 2)), (4, 4), (2, 2)), latents)


def test_a_fresh_generator_copies_the_reference_at_unit_scale():
    clips = _clips()
    model = build_generator(_config(1), clips)
    assert torch.equal(model.output_scale, output_scale(clips, (2, 2)))
    figures = measure_denoising(model, clips, num_clips=4)
    assert figures["mouth_1.0"] == pytest.approx(1.0)  # a prediction of zeros


def test_resuming_gives_the_same_weights_as_one_run(tmp_path):
    clips = _clips()
    whole = train_generator(_config(6), clips=clips, held_out=clips, out_dir=tmp_path / "whole")
    train_generator(_config(3), clips=clips, held_out=clips, out_dir=tmp_path / "parts")
    resumed = train_generator(
        _config(6),
        clips=clips,
        held_out=clips,
        out_dir=tmp_path / "parts",
        session=Session(resumes=True),
    )
    for name, expected in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], expected), name


def test_a_short_training_hears_the_sound(tmp_path):
    clips = _clips(16)
    config = dataclasses.replace(_config(150, learning_rate=4e-3, ema_decay=0.9))
    model = train_generator(config, clips=clips, held_out=clips, out_dir=tmp_path)
    figures = measure_denoising(model, clips, num_clips=8)
    assert figures["mouth_1.0"] < 0.6
    assert figures["mouth_1.0_wrong"] > figures["mouth_1.0"] + 0.4


def test_token_weights_follow_the_boxes():
    weights = token_weights([((16, 16, 32, 32), 8.0)], (64, 64), 16).view(4, 4)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[1, 1] / weights[0, 0] == pytest.approx(9.0)
    assert (weights.flatten() == weights[0, 0]).sum() == 15


def test_the_learning_rate_rises_holds_and_falls_to_zero():
    config = OptimiserConfig(steps=100, warmup_steps=10, flat_share=0.5)
    scales = [learning_rate_scale(step, config) for step in range(101)]
    assert scales[0] == pytest.approx(0.1)
    assert scales[9:50] == [1.0] * 41
    assert scales[75] == pytest.approx(0.5)
    assert scales[100] == 0.0
