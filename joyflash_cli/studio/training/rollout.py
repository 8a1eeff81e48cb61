"""Rollouts of the generator by the sampler's own passes; only where gradients flow is new here.

Two branches (paper §3.3): the main branch is the sampler's joint window with its PSB ramp; the
auxiliary branch denoises block by block over main and sub-levels. Each block's output comes from
exactly one pass with gradients, and everything that is carried forward (noisy window, cache,
condition frame) is cut off from them, so memory does not grow with the length. What of this a row
of Tables 2, 3 and 4 leaves out is an ``Ablation``.

All choices come from one numpy generator. Ranks that share its seed run the same number of passes
with and without gradients, as sharded models need; noise has its own source and may differ.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.psb import noise_levels, scheduled_iterations
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.stream import PassResult, Stream
from joyflash_cli.sampler.window import WindowBlock, split_blocks
from joyflash_cli.studio.training.trainer import check_shares


@dataclass(frozen=True)
class RolloutConfig:
    """What is rolled out in training.

    Attributes:
        num_blocks: Least and greatest length, drawn anew for every rollout. Nine blocks are 27
            latent frames, more than the attention span: eviction and the moving sink take part.
        main_branch: Whether the joint branch takes part (Table 2, without main branch).
        auxiliary_branch: Whether the block-wise branch takes part (Table 2); with both, a fair
            coin decides.
        sub_step_share: Chance of each sub-step before the exit in the auxiliary branch.
        mci_noise_share: Chance that a pass noises its condition frame (§3.4: 0.7).
    """

    num_blocks: tuple[int, int] = (7, 9)
    main_branch: bool = True
    auxiliary_branch: bool = True
    sub_step_share: float = 0.5
    mci_noise_share: float = 0.7

    def __post_init__(self) -> None:
        """Refuse what cannot be rolled out."""
        least, greatest = self.num_blocks
        if not 1 <= least <= greatest:
            raise ConfigError(f"num_blocks is {self.num_blocks}; a range from 1 on is needed")
        if not (self.main_branch or self.auxiliary_branch):
            raise ConfigError("Both branches are switched off; a rollout needs one of them")
        check_shares(self, "sub_step_share", "mci_noise_share")


@dataclass(frozen=True)
class RolloutPlan:
    """The choices of one rollout.

    Attributes:
        branch: Joint window or block by block.
        num_blocks: Length.
        learning: Main branch: iterations, from 1, whose pass carries gradients.
        levels: Auxiliary branch: fine levels every block visits; the last is the exit.
    """

    branch: Literal["main", "auxiliary"]
    num_blocks: int
    learning: frozenset[int] = frozenset()
    levels: tuple[int, ...] = ()


def gradient_iterations(
    profile: SamplerSettings, num_blocks: int, exit_phase: int, *, late: bool
) -> frozenset[int]:
    """Iterations of the main branch that carry gradients.

    Time is counted in main steps of the window. With K main steps every block lives through K
    consecutive ones, so taking each one whose count is ``exit_phase`` modulo K tiles the blocks.
    While the stream warms up (PSB) a main step is two iterations, and one of the pair is taken:
    for the paper's profile {one of 2e + 1, 2e + 2} and 9 + e + 4j.

    Args:
        profile: Its schedule is walked; nothing is assumed about it.
        num_blocks: Blocks of the stream.
        exit_phase: 0..K - 1.
        late: Which of the pair: the sub-step or the main step before it.
    """
    num_steps = len(profile.main_steps)
    taken, moved = set(), 0
    for iteration in scheduled_iterations(num_blocks, profile):
        before, after = next(iter(iteration.levels.values()))
        in_phase = (moved // 2) % num_steps == exit_phase
        if in_phase and (after - before == 2 or moved % 2 == late):
            taken.add(iteration.index)
        moved += after - before
    return frozenset(taken)


def auxiliary_levels(
    profile: SamplerSettings, rng: np.random.Generator, sub_step_share: float
) -> tuple[int, ...]:
    """Levels that the blocks of an auxiliary rollout visit: every level is equally often the exit.

    Main levels before the exit are always visited, sub-levels each by a coin (§3.3: main steps
    are always applied, sub-steps stochastically selected).
    """
    levels = [level for level in sorted(noise_levels(profile)) if level < profile.clean_level]
    last = int(rng.integers(len(levels)))
    coins = rng.random(len(levels)) < sub_step_share
    before = zip(levels[:last], coins[:last], strict=True)
    return (*(level for level, coin in before if level % 2 == 0 or coin), levels[last])


def draw_plan(
    rng: np.random.Generator, profile: SamplerSettings, config: RolloutConfig
) -> RolloutPlan:
    """A random plan."""
    least, greatest = config.num_blocks
    num_blocks = int(rng.integers(least, greatest + 1))
    use_main = rng.random() < 0.5 if config.auxiliary_branch else True
    if config.main_branch and use_main:
        phase = int(rng.integers(len(profile.main_steps)))
        late = bool(rng.integers(2))
        learning = gradient_iterations(profile, num_blocks, phase, late=late)
        return RolloutPlan("main", num_blocks, learning=learning)
    levels = auxiliary_levels(profile, rng, config.sub_step_share)
    return RolloutPlan("auxiliary", num_blocks, levels=levels)


def roll_out(
    stream: Stream, plan: RolloutPlan, rng: np.random.Generator, *, mci_noise_share: float = 0.7
) -> Tensor:
    """Latents ``(B, T, C, H, W)`` of ``plan.num_blocks`` blocks, with gradients where enabled.

    Args:
        stream: Fresh, with the conditioning of exactly these blocks. Under autocast keys and
            values are bfloat16 anyway, and a cache of that dtype loses nothing.
        plan: From ``draw_plan``.
        rng: For the coins of the condition frame.
        mci_noise_share: Chance that a pass noises its condition frame.

    Raises:
        ConfigError: If the conditioning is shorter than the plan.
        DeviceError: If latents stop being finite.
    """
    if not stream.source.has_block(plan.num_blocks - 1):
        raise ConfigError(f"The conditioning has fewer than {plan.num_blocks} blocks")
    if stream.settings.clean_kv == "next-pass":
        # The same numbers, there as soon as a block is clean.
        stream.settings = replace(stream.settings, clean_kv="extra-pass")
    branch = _roll_main if plan.branch == "main" else _roll_auxiliary
    blocks = branch(stream, plan, lambda: rng.random() < mci_noise_share)
    if stream.finite is not None:
        stream.finite.confirm()
    return torch.cat(blocks, dim=1)


Coin = Callable[[], bool]
"""Whether the condition frame of the next pass is noised."""


def _training_pass(stream: Stream, coin: Coin, *, learns: bool) -> PassResult:
    """The sampler's joint pass, with gradients or without."""
    is_noised = coin() and stream.settings.mci_noise
    learns = learns and torch.is_grad_enabled()
    cache = stream.cache.snapshot() if learns else stream.cache
    with torch.set_grad_enabled(learns):
        return stream.window_pass(mci_noise=is_noised, cache=cache)


def _roll_main(stream: Stream, plan: RolloutPlan, coin: Coin) -> list[Tensor]:
    """The sampler's loop, and the blocks of the learning iterations collected on the way."""
    outputs: dict[int, Tensor] = {}
    while len(outputs) < plan.num_blocks:
        with torch.no_grad():
            stream.admit_block()
        learns = stream.iteration + 1 in plan.learning
        result = _training_pass(stream, coin, learns=learns)
        if learns:
            parts = split_blocks(result.clean, len(stream.window))
            for block, x0 in zip(stream.window, parts, strict=True):
                start = stream.settings.block_start(block.index)
                outputs[block.index] = stream.with_first_frame(start, x0)
        with torch.no_grad():
            stream.finish_iteration(replace(result, clean=result.clean.detach()))
    return [outputs[i] for i in sorted(outputs)]


def _roll_auxiliary(stream: Stream, plan: RolloutPlan, coin: Coin) -> list[Tensor]:
    """Block by block, a window of one; all blocks leave at the same level (Self-Forcing)."""
    settings, outputs = stream.settings, []
    for index in range(plan.num_blocks):
        block = WindowBlock(index, stream.noise.initial(index, settings.block_frames), level=0)
        for next_level in plan.levels[1:]:
            stream.window = [block]
            clean = _training_pass(stream, coin, learns=False).clean
            block = stream.moved(block, clean, next_level)
        stream.window = [block]
        result = _training_pass(stream, coin, learns=True)
        stream.check_finite(result.clean.detach())
        outputs.append(stream.with_first_frame(settings.block_start(index), result.clean))
        stream.base = result.positions.base
        if index + 1 < plan.num_blocks:
            with torch.no_grad():
                clean_block = stream.moved(block, result.clean.detach(), settings.clean_level)
                stream.store_clean_block(clean_block, result)
    return outputs


@dataclass(frozen=True)
class Ablation:
    """A variant of the method; the defaults are the full method.

    A variant may be trained so, sampled so, or both: ``rollout`` and ``profile`` give the two
    halves, and the caller decides where it uses the changed profile. In the paper rows 2 and the
    first of 3 are about training, "without added noise" and the rows of 4 about inference.

    Attributes:
        main_branch: Joint rollouts in training (Table 2).
        auxiliary_branch: Block-wise rollouts in training (Table 2).
        sub_steps: PSB's sub-steps, in both branches and in the ramp (Table 2).
        mci: The condition frame (Table 3).
        mci_noise: Noise on the condition frame (Table 3).
        sink: Sink frames in the cache (Table 4).
        relative_sink: Whether the sink moves along; otherwise it stays at index 0 (Table 4).
        reset_threshold: The paper's N (Table 4); ``None`` keeps the profile's.
    """

    main_branch: bool = True
    auxiliary_branch: bool = True
    sub_steps: bool = True
    mci: bool = True
    mci_noise: bool = True
    sink: bool = True
    relative_sink: bool = True
    reset_threshold: int | None = None

    def __post_init__(self) -> None:
        """Refuse a threshold for a sink that never moves."""
        if self.reset_threshold is not None and not self.relative_sink:
            raise ConfigError("reset_threshold needs relative_sink")

    def profile(self, full: SamplerSettings) -> SamplerSettings:
        """The sampler's profile without what is switched off."""
        changes: dict[str, object] = {}
        if not self.sub_steps:
            changes = {"psb": False, "sub_steps": ()}
        if not self.relative_sink:
            changes |= {"position_policy": "absolute", "reset_threshold": None}
        if not self.sink:
            changes["sink_frames"] = 0
        if self.reset_threshold is not None:
            changes["reset_threshold"] = self.reset_threshold
        changes["mci"] = full.mci and self.mci
        changes["mci_noise"] = full.mci_noise and self.mci_noise
        return replace(full, **changes)  # type: ignore[arg-type]

    def rollout(self, full: RolloutConfig) -> RolloutConfig:
        """The rollout without the branches that are switched off."""
        return replace(
            full,
            main_branch=full.main_branch and self.main_branch,
            auxiliary_branch=full.auxiliary_branch and self.auxiliary_branch,
        )
