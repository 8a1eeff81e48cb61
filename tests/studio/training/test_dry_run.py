"""Costs from shapes: they are the passes that rollouts really make."""

import dataclasses
import functools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_distillation import CONFIG, toy_model, toy_stream

from joyflash_cli.model.config import FaceAttentionConfig
from joyflash_cli.sampler.settings import TINY
from joyflash_cli.studio.training.dmd import DmdConfig, student_profile
from joyflash_cli.studio.training.dry_run import (
    PassShape,
    average_rollout,
    describe_costs,
    estimate_costs,
)
from joyflash_cli.studio.training.generator_batches import GeneratorTrainingConfig
from joyflash_cli.studio.training.rollout import (
    RolloutConfig,
    RolloutPlan,
    gradient_iterations,
    roll_out,
)
from joyflash_cli.studio.training.run_config import RunConfig, load_run_config
from joyflash_cli.studio.training.scores import Guidance

PROFILE = student_profile(TINY)


def real_passes(plans):
    """Average number of passes by shape, with and without gradients, of rollouts that are run."""
    quiet, learning = Counter(), Counter()
    for plan in plans:
        stream = toy_stream(PROFILE, plan.num_blocks)

        def note(module, args, kwargs):
            context = kwargs.get("context")
            shape = PassShape(args[0].shape[1], 0 if context is None else len(context.positions))
            (learning if torch.is_grad_enabled() else quiet)[shape] += 1 / len(plans)

        hook = stream.transformer.register_forward_pre_hook(note, with_kwargs=True)
        roll_out(stream, plan, np.random.default_rng(0))
        hook.remove()
    return quiet, learning


def assert_same(ours, theirs):
    theirs = {shape: times for shape, times in theirs.items() if times}
    assert {shape for shape, times in ours.items() if times} == set(theirs)
    for shape, times in theirs.items():
        assert ours[shape] == pytest.approx(times), shape


def test_the_main_branch_makes_these_passes():
    plans = [
        RolloutPlan("main", n, learning=gradient_iterations(PROFILE, n, phase, late=late))
        for n in (7, 8)
        for phase in range(4)
        for late in (False, True)
    ]
    rollout = RolloutConfig(num_blocks=(7, 8), auxiliary_branch=False)
    shapes = average_rollout(DmdConfig(rollout=rollout), PROFILE)
    quiet, learning = real_passes(plans)
    assert_same(shapes.learning, learning)
    assert_same(shapes.quiet, quiet)


def test_the_auxiliary_branch_makes_these_passes():
    plans = [
        RolloutPlan("auxiliary", 4, levels=tuple(range(exit_level + 1))) for exit_level in range(8)
    ]
    rollout = RolloutConfig(num_blocks=(4, 4), main_branch=False, sub_step_share=1.0)
    shapes = average_rollout(DmdConfig(rollout=rollout), PROFILE)
    quiet, learning = real_passes(plans)
    assert_same(shapes.learning, learning)
    assert_same(shapes.quiet, quiet)


SIZES = dataclasses.replace(
    CONFIG, text_dim=6, text_len=4, face_attention=FaceAttentionConfig(face_dim=5)
)


def toy_costs(gpus=4, **changes):
    dmd = DmdConfig(batch=8, guidance=Guidance(2.0, 2.0), **changes.pop("dmd", {}))
    run = RunConfig(
        "nowhere", "nowhere", "1", gpus=gpus, latent_size=(2, 2), dmd=dmd,
        generator=GeneratorTrainingConfig(transformer=SIZES, sampler=TINY), **changes,
    )  # fmt: skip
    return estimate_costs(run)


@functools.cache
def plain_costs():
    return toy_costs()


def test_parameters_are_those_of_the_networks():
    costs = plain_costs()
    count = sum(p.numel() for p in toy_model(SIZES).parameters())
    assert set(costs.parameters.values()) == {count}
    assert costs.memory_bytes["generator"] == 20 * count / 4
    assert costs.samples_per_gpu == 2


def test_what_makes_a_step_cheaper():
    full = plain_costs()
    assert toy_costs(gpus=8).total_flops == pytest.approx(full.total_flops / 2)
    frugal = toy_costs(recompute_layers=True)
    assert frugal.memory_bytes["activations"] < full.memory_bytes["activations"]
    assert frugal.flops["generator backward"] == pytest.approx(
        1.5 * full.flops["generator backward"]
    )
    rare = toy_costs(dmd={"generator_every": 10})
    assert rare.flops["real score"] == pytest.approx(full.flops["real score"] / 2)


@pytest.mark.parametrize("recipe", ["paper-1.3b.toml", "paper-1.3b-from-wan.toml"])
def test_the_full_size_recipes_are_the_papers(repository: Path, recipe: str):
    run = load_run_config(repository / "runs" / recipe)
    dmd, sampler = run.dmd, run.generator.sampler
    assert (dmd.steps, dmd.batch, run.gpus) == (10_000, 64, 64)
    assert (dmd.generator.learning_rate, dmd.fake_score.learning_rate) == (2e-6, 4e-7)
    assert dmd.generator.betas == dmd.fake_score.betas == (0.9, 0.999)
    assert dmd.rollout.num_blocks[1] * sampler.block_frames == 27
    assert dmd.rollout.mci_noise_share == 0.7
    assert (sampler.num_window_blocks, sampler.block_frames) == (4, 3)
    assert sampler.main_steps == (1000, 750, 500, 250)
    assert sampler.sub_steps == (875, 625, 375, 125)
    assert run.ode_pairs.num_pairs == 10_000
    assert (dmd.generator_every, dmd.critic_every) == (5, 1)


def test_the_description_has_all_three():
    text = describe_costs(plain_costs())
    for word in ("parameters", "memory per GPU of 4", "operations per step", "real score"):
        assert word in text
