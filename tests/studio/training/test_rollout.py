"""Rollouts: they are the sampler, and gradients flow exactly where they should."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint
from toy_distillation import CLEAN_CONFIG, NO_RULE, PLAIN, SHAPE, toy_model, toy_stream

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.attention import block_causal_mask
from joyflash_cli.model.transformer import Context
from joyflash_cli.model.transformer_layer import TransformerLayer
from joyflash_cli.sampler.psb import noise_levels, scheduled_iterations
from joyflash_cli.sampler.settings import PAPER, TINY
from joyflash_cli.sampler.solver import add_noise, clean_from_flow
from joyflash_cli.sampler.stream import Stream
from joyflash_cli.studio.training.rollout import (
    Ablation,
    RolloutConfig,
    RolloutPlan,
    auxiliary_levels,
    draw_plan,
    gradient_iterations,
    roll_out,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def run(stream, plan, **changes):
    return roll_out(stream, plan, changes.pop("rng", rng()), **changes)


def main_plan(profile, num_blocks, phase, late=False):
    learning = gradient_iterations(profile, num_blocks, phase, late=late)
    return RolloutPlan("main", num_blocks, learning=learning)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("phase", range(4))
@pytest.mark.parametrize("num_blocks", [1, 2, 3, 4, 5, 7, 8, 9, 12])
def test_learning_iterations_tile_the_blocks(num_blocks, phase, late):
    learning = gradient_iterations(PAPER, num_blocks, phase, late=late)
    later = {9 + phase + 4 * j for j in range(9)}
    stop = num_blocks + 7
    assert learning == {n for n in {2 * phase + 1 + late} | later if n <= stop}
    covered = [
        block
        for iteration in scheduled_iterations(num_blocks, PAPER)
        if iteration.index in learning
        for block in iteration.levels
    ]
    assert sorted(covered) == list(range(num_blocks))


@pytest.mark.parametrize("phase", range(4))
def test_without_sub_steps_it_is_rolling_forcings_rule(phase):
    learning = gradient_iterations(PLAIN, 9, phase, late=False)
    assert learning == {n for n in range(1, 13) if (n - 1) % 4 == phase}


class Recorder:
    """The joint passes of a rollout: which blocks, with or without gradients, from what state."""

    def __init__(self, monkeypatch):
        self.passes = []
        true_pass = Stream.window_pass

        def recorded(stream, *, mci_noise, cache):
            kept = cache.snapshot()
            frozen = dataclasses.replace(stream, window=list(stream.window), cache=kept)
            again = partial(true_pass, frozen, mci_noise=mci_noise)
            self.passes.append((torch.is_grad_enabled(), frozen, again))
            return true_pass(stream, mci_noise=mci_noise, cache=cache)

        monkeypatch.setattr(Stream, "window_pass", recorded)

    def learnt_blocks(self):
        return sorted(b.index for learns, s, _ in self.passes if learns for b in s.window)


@pytest.mark.parametrize("phase", range(4))
@pytest.mark.parametrize("num_blocks", [7, 8, 9])
def test_every_block_learns_from_exactly_one_pass(num_blocks, phase, monkeypatch):
    stream = toy_stream(TINY, num_blocks)
    recorder = Recorder(monkeypatch)
    result = run(stream, main_plan(TINY, num_blocks, phase, late=phase % 2 == 1))
    assert recorder.learnt_blocks() == list(range(num_blocks))
    assert result.shape == (1, 3 * num_blocks, *SHAPE)
    for block in range(num_blocks):
        (gradient,) = torch.autograd.grad(
            result[:, 3 * block + 1].sum(),
            stream.transformer.head.projection.weight,
            retain_graph=True,
        )
        assert gradient.abs().sum() > 0
    assert (result[:, 0] == stream.reference_latent).all()


@pytest.mark.parametrize("branch", ["main", "auxiliary"])
def test_nothing_carried_forward_has_a_gradient(branch, monkeypatch):
    """The last block's gradient is that of its own pass with everything before it a constant."""
    model = toy_model()
    stream = toy_stream(TINY, 7, model=model)
    plan = (
        main_plan(TINY, 7, 1)
        if branch == "main"
        else RolloutPlan("auxiliary", 7, levels=(0, 1, 2, 4))
    )
    recorder = Recorder(monkeypatch)
    result = run(stream, plan)
    result[:, -3:].square().sum().backward()
    got = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    learning = [again for learns, _, again in recorder.passes if learns]
    for _, state, _ in recorder.passes:
        carried = [*(b.latents for b in state.window), *sum(state.cache._layers, ())]
        assert not any(tensor.requires_grad for tensor in carried)
        assert state.clean_block is None or not state.clean_block.requires_grad
    alone = learning[-1]().clean[:, -3:]
    torch.testing.assert_close(alone, result[:, -3:])
    alone.square().sum().backward()
    for gradient, parameter in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


@torch.no_grad()
def test_the_main_branch_is_the_sampler():
    """Blocks that learn at their last step are the blocks the sampler hands out."""
    stream = toy_stream(TINY, 8)
    sampled = list(toy_stream(TINY, 8).blocks())
    result = run(stream, main_plan(TINY, 8, 3, late=True), mci_noise_share=1.0)
    for block in (0, 4):
        got = result[:, 3 * block : 3 * block + 3]
        assert (got == sampled[block].latents).all()


def test_nine_blocks_evict_and_move_the_sink(monkeypatch):
    recorder = Recorder(monkeypatch)
    with torch.no_grad():
        result = run(toy_stream(TINY, 9), RolloutPlan("auxiliary", 9, levels=(0, 2)))
    assert not result.requires_grad
    cache = recorder.passes[-1][1].cache
    assert cache.sink == [0, 1, 2]
    assert cache.context == [18, 19, 20, 21, 22, 23]


@pytest.mark.parametrize("exit_level", [0, 2, 6])
def test_the_auxiliary_branch_is_self_forcing(exit_level):
    """A plain loop with its own cache gives the same blocks and the same gradients."""
    stream = toy_stream(PLAIN, 3)
    model, noise, levels = stream.transformer, stream.noise, noise_levels(PLAIN)
    visited = tuple(range(0, exit_level + 1, 2))
    result = run(stream, RolloutPlan("auxiliary", 3, levels=visited))
    result.square().sum().backward()
    expected_gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()

    blocks, cache = [], []
    for b in range(3):
        x, own = noise.initial(b, 3), torch.arange(3 * b, 3 * b + 3)
        conditioning = stream.source.frames(3 * b, 3 * b + 3)
        layers = [[torch.cat(kv, 1) for kv in zip(*past, strict=True)]
                  for past in zip(*cache, strict=True)]  # fmt: skip
        context = Context(tuple(map(tuple, layers)), torch.arange(3 * b)) if b else None
        for g in visited:
            with torch.set_grad_enabled(g == exit_level):
                t = torch.full((1, 3), levels[g].timestep)
                flow = model(x, t, conditioning, positions=own, context=context).prediction
                x0 = clean_from_flow(x, flow, levels[g].sigma)
            if g != exit_level:
                x = add_noise(x0, noise.renoise(b, g + 2, 3), levels[g + 2].sigma)
        blocks.append(x0)
        with torch.no_grad():
            cache.append(model(x0.detach(), torch.zeros(1, 3), conditioning, positions=own,
                               context=context).keys_values)  # fmt: skip
    loop = torch.cat(blocks, dim=1)
    torch.testing.assert_close(result, loop, atol=1e-5, rtol=1e-4)
    loop.square().sum().backward()
    for gradient, parameter in zip(expected_gradients, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_the_cached_rollout_equals_one_masked_forward_at_timestep_zero():
    profile = dataclasses.replace(PLAIN, context_frames=12)
    stream = toy_stream(profile, 4)
    latents = torch.randn(1, 12, *SHAPE, generator=torch.Generator().manual_seed(8))
    parts = []
    for start in range(0, 12, 3):
        parts.append(stream.clean_pass(latents[:, start : start + 3], start))
        stream.cache.append(parts[-1], start)

    def forward(mask):
        return stream.transformer(
            latents, torch.zeros(1, 12), stream.source.frames(0, 12),
            positions=torch.arange(12), mask=mask,
        ).keys_values  # fmt: skip

    masked, unmasked = forward(block_causal_mask(12, 3, 1)), forward(None)
    for layer in range(stream.transformer.config.num_layers):
        for kind in (0, 1):
            cached = torch.cat([part[layer][kind] for part in parts], dim=1)
            torch.testing.assert_close(cached, masked[layer][kind], atol=1e-5, rtol=1e-4)
    assert (unmasked[-1][0] - masked[-1][0]).abs().max() > 1e-3


def test_every_level_is_the_exit_equally_often():
    draws = [auxiliary_levels(PAPER, rng(seed), 0.5) for seed in range(2000)]
    exits = np.bincount([levels[-1] for levels in draws], minlength=8) / len(draws)
    assert np.abs(exits - 1 / 8).max() < 0.03
    for levels in draws:
        assert list(levels) == sorted(set(levels))
        assert {0, 2, 4, 6} & set(range(levels[-1])) <= set(levels)
    passed = [1 in levels for levels in draws if levels[-1] > 1]
    assert np.mean(passed) == pytest.approx(0.5, abs=0.04)
    assert all(level % 2 == 0 for level in auxiliary_levels(PLAIN, rng(), 0.5))


def test_the_coin_between_the_branches_is_fair():
    config = RolloutConfig()
    plans = [draw_plan(rng(seed), PAPER, config) for seed in range(600)]
    assert np.mean([plan.branch == "main" for plan in plans]) == pytest.approx(0.5, abs=0.07)
    assert {plan.num_blocks for plan in plans} == {7, 8, 9}
    for name in ("main", "auxiliary"):
        off = dataclasses.replace(config, **{f"{name}_branch": False})
        branches = {draw_plan(rng(seed), PAPER, off).branch for seed in range(40)}
        assert branches == {"main", "auxiliary"} - {name}


@pytest.mark.parametrize("share", [0.0, 0.7])
@torch.no_grad()
def test_a_share_of_the_condition_frames_is_noised(share):
    """A clean condition frame says timestep 0, a noised one the timestep of the first block."""
    model, seen = toy_model(), []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[1][0]))
    for seed in range(8):
        levels = auxiliary_levels(NO_RULE, rng(seed), 0.5)
        plan = RolloutPlan("auxiliary", 7, levels=levels)
        stream = toy_stream(NO_RULE, 7, model=model)
        run(stream, plan, rng=rng(seed), mci_noise_share=share)
    fronts = [(float(t[0]), float(t[1])) for t in seen if len(t) == 4]
    assert all(front in (0.0, own) for front, own in fronts)
    noised = np.mean([front == own for front, own in fronts])
    assert noised == (share if share in (0.0, 1.0) else pytest.approx(share, abs=0.1))


@pytest.mark.parametrize(
    ("ablation", "changed"),
    [
        (Ablation(), {}),
        (Ablation(sub_steps=False), {"psb": False, "sub_steps": ()}),
        (Ablation(mci=False), {"mci": False}),
        (Ablation(mci_noise=False), {"mci_noise": False}),
        (Ablation(sink=False), {"sink_frames": 0}),
        (Ablation(relative_sink=False), {"position_policy": "absolute"}),
        (Ablation(reset_threshold=100), {"reset_threshold": 100}),
    ],
)
@torch.no_grad()
def test_a_variant_changes_its_switch_only_and_rolls_out(ablation, changed):
    profile = ablation.profile(NO_RULE)
    assert profile == dataclasses.replace(NO_RULE, **changed)
    stream = toy_stream(profile, 9)
    latents = run(stream, main_plan(profile, 9, 2))
    full = run(toy_stream(NO_RULE, 9), main_plan(NO_RULE, 9, 2))
    assert latents.shape == full.shape
    if ablation in (Ablation(), Ablation(reset_threshold=100)):
        torch.testing.assert_close(latents, full, atol=1e-4, rtol=1e-4)
    else:
        assert (latents - full).abs().max() > 1e-3


def test_bfloat16_reaches_every_weight():
    """Casts of weights made without gradients must not be used by the passes with gradients."""
    model = toy_model(CLEAN_CONFIG)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        run(toy_stream(TINY, 7, model=model), main_plan(TINY, 7, 1)).square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_recomputed_layers_see_the_cache_of_their_pass(monkeypatch):
    """Gradient checkpointing runs layers again after the cache has moved on."""

    def gradients():
        model = toy_model()
        plan = RolloutPlan("auxiliary", 6, levels=(0,))
        run(toy_stream(PLAIN, 6, model=model), plan).square().sum().backward()
        return [parameter.grad for parameter in model.parameters()]

    stored = gradients()
    true_forward = TransformerLayer.forward

    def recomputed(layer, x, time, **rest):
        if not torch.is_grad_enabled():
            return true_forward(layer, x, time, **rest)
        return checkpoint(partial(true_forward, layer, **rest), x, time, use_reentrant=False)

    monkeypatch.setattr(TransformerLayer, "forward", recomputed)
    for ours, theirs in zip(gradients(), stored, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_impossible_settings_are_named():
    with pytest.raises(ConfigError, match="Both branches"):
        RolloutConfig(main_branch=False, auxiliary_branch=False)
    with pytest.raises(ConfigError, match="num_blocks"):
        RolloutConfig(num_blocks=(9, 7))
    with pytest.raises(ConfigError, match="mci_noise_share"):
        RolloutConfig(mci_noise_share=1.5)
    with pytest.raises(ConfigError, match="fewer than 9"):
        run(toy_stream(TINY, 7), main_plan(TINY, 9, 0))
    with pytest.raises(ConfigError, match="relative_sink"):
        Ablation(relative_sink=False, reset_threshold=100)
