"""Guidance distillation: what the student is taught, and that it learns it."""

import copy
import dataclasses

import numpy as np
import torch
from test_generator import TRANSFORMER, _clips, _config

from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.studio.training.generator import build_generator, noised, predicted_tokens
from joyflash_cli.studio.training.generator_batches import read_batch
from joyflash_cli.studio.training.guidance import GuidanceConfig, guided_tokens, train_guidance
from joyflash_cli.studio.training.trainer import OptimiserConfig


def _teacher(clips) -> CausalTransformer:
    """A network that hears: its weights are random, none is zero."""
    teacher = build_generator(_config(1), clips)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in teacher.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return teacher.eval().requires_grad_(False)


def _rolling(clips, seed):
    config = dataclasses.replace(_config(1), audio_dropout=0.0)
    kind = next(kind for kind in config.steps if kind.layout == "rolling")
    batch = read_batch(clips, kind, config, np.random.default_rng(seed))
    noisy = noised(batch, context_noise=0.1, generator=torch.Generator().manual_seed(seed))
    return batch, noisy


@torch.no_grad()
def test_the_target_is_what_the_sampler_makes_of_two_passes():
    clips = _clips()
    teacher, (batch, noisy) = _teacher(clips), _rolling(clips, 3)
    heard = predicted_tokens(teacher, batch, noisy, batch.conditioning)
    torch.testing.assert_close(guided_tokens(teacher, batch, noisy, 1.0), heard)
    silent = batch.conditioning.with_frames(audio=torch.zeros_like(batch.conditioning.audio))
    deaf = predicted_tokens(teacher, batch, noisy, silent)
    assert not torch.allclose(deaf, heard, atol=1e-3)
    assert torch.equal(guided_tokens(teacher, batch, noisy, 0.0), deaf)
    torch.testing.assert_close(guided_tokens(teacher, batch, noisy, 2.0), 2 * heard - deaf)


def test_a_short_training_comes_closer_to_the_guided_teacher(tmp_path):
    clips = _clips()
    teacher = _teacher(clips)
    student = CausalTransformer(TRANSFORMER)
    student.load_state_dict(copy.deepcopy(teacher.state_dict()))
    trained = train_guidance(
        GuidanceConfig(
            optimiser=OptimiserConfig(
                steps=25, learning_rate=1e-3, warmup_steps=1, flat_share=1.0, ema_decay=0.8
            ),
            weight=2.0,
        ),
        _config(1),
        student=student,
        teacher=teacher,
        clips=clips,
        held_out=clips,
        out_dir=tmp_path,
    )
    with torch.no_grad():
        before, after = 0.0, 0.0
        for seed in range(100, 103):
            batch, noisy = _rolling(clips, seed)
            target = guided_tokens(teacher, batch, noisy, 2.0)
            plain = predicted_tokens(teacher, batch, noisy, batch.conditioning)
            learnt = predicted_tokens(trained, batch, noisy, batch.conditioning)
            before += float((plain - target).square().mean())
            after += float((learnt - target).square().mean())
    assert after < 0.6 * before, (before, after)
