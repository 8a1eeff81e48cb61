"""What one training sequence looks like: which latents, at which noise, who sees whom.

The rolling layouts are the sampler's own iterations, laid out in one masked pass: sink and recent
context at timestep 0, the condition frame (MCI), then the window at the levels of PSB, all at the
indices of the sampler (URCR). The clip layout is the bidirectional teacher's: one noise level for
all frames.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.sampler.psb import CLEAN, noise_levels, scheduled_iterations
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.urcr import PassKind, attended_frames, pass_positions

WARM_UP_SHARE = 0.25
"""Share of rolling layouts from the time before the first block is clean."""


@dataclass(frozen=True)
class Layout:
    """One sequence of T latent frames.

    Attributes:
        frames: Index of each latent frame in its clip, ``(T,)``.
        positions: Temporal index at which it is seen, ``(T,)``.
        sigmas: Noise level of each, 0..1, ``(T,)``.
        timesteps: What the transformer is told, 0..1000, ``(T,)``.
        learns: Whether the frame's prediction enters the loss, ``(T,)``.
        mask: Frame-level attention mask ``(T, T)``, ``None`` when all see all.
    """

    frames: Tensor
    positions: Tensor
    sigmas: Tensor
    timesteps: Tensor
    learns: Tensor
    mask: Tensor | None


def clip_layout(start: int, num_frames: int) -> Layout:
    """Frames ``start ..`` at noise level 1, to be scaled; frame 0 is given, not learnt."""
    frames = torch.arange(start, start + num_frames)
    given = frames == 0
    timesteps = torch.full((num_frames,), 1000.0)
    return Layout(frames, frames, (~given).float(), timesteps, ~given, None)


def rolling_layout(
    rng: np.random.Generator, profile: SamplerSettings, *, num_blocks: int, mci_noise: float
) -> Layout:
    """A random iteration of the sampler over a clip that starts at its reference.

    Args:
        rng: Source of the choices.
        profile: Of the sampler.
        num_blocks: Blocks of the clip.
        mci_noise: Share of sequences whose condition frame is noised (0.7 in the paper).
    """
    levels = noise_levels(profile)
    window = _draw_window(rng, profile, num_blocks)
    first = min(window)
    start, block = profile.block_start(first), profile.block_frames
    noise = [levels[window[index]] for index in sorted(window) for _ in range(block)]
    sink, context = seen_frames(profile, "window", start, num_own=len(noise))
    num_condition = int(profile.mci and first > 0)
    if num_condition:
        is_noised = bool(rng.random() < mci_noise) and profile.mci_noise
        noise.insert(0, noise[0] if is_noised else CLEAN)
    own = range(start - num_condition, start - num_condition + len(noise))
    positions = pass_positions(profile, "window", sink=sink, context=context, own=own, start=start)
    num_cached = len(sink) + len(context)
    noise = [CLEAN] * num_cached + noise
    frames = torch.tensor([*sink, *context, *own])
    sigmas = torch.tensor([level.sigma for level in noise])
    learns = torch.arange(len(frames)) >= num_cached + num_condition
    if profile.first_frame_rule == "replace":  # the reference itself, at its block's timestep
        given = frames == 0
        sigmas, learns = torch.where(given, 0.0, sigmas), learns & ~given
    return Layout(
        frames=frames,
        positions=torch.tensor([*positions.context, *positions.own]),
        sigmas=sigmas,
        timesteps=torch.tensor([level.timestep for level in noise]),
        learns=learns,
        mask=_cache_mask(frames, num_cached, profile) if num_cached else None,
    )


def _draw_window(
    rng: np.random.Generator, profile: SamplerSettings, num_blocks: int
) -> dict[int, int]:
    """Block to level of an iteration of the schedule; one in four is from the warm-up (PSB)."""
    iterations = tuple(scheduled_iterations(num_blocks, profile))
    is_warm_up = rng.random() < WARM_UP_SHARE
    pool = [i for i in iterations if (min(i.levels) == 0) == is_warm_up] or iterations
    drawn = pool[int(rng.integers(len(pool)))]
    return {block: before for block, (before, _) in drawn.levels.items()}


def seen_frames(
    profile: SamplerSettings, kind: PassKind, start: int, *, num_own: int
) -> tuple[range, range]:
    """Sink and context frames that a pass from latent frame ``start`` on finds and attends."""
    past = range(start)
    sink, rest = past[: profile.sink_frames], past[profile.sink_frames :]
    num_sink, num_context = attended_frames(
        profile,
        kind,
        num_own=num_own,
        num_sink=len(sink),
        num_context=min(len(rest), profile.context_frames),
    )
    return sink[len(sink) - num_sink :], rest[len(rest) - num_context :]


def _cache_mask(frames: Tensor, num_cached: int, profile: SamplerSettings) -> Tensor:
    """All see all, but clean frames in front see only clean frames up to their own block."""
    blocks = (frames - profile.first_block_frame).div(profile.block_frames, rounding_mode="floor")
    mask = torch.ones(len(frames), len(frames), dtype=torch.bool)
    mask[:num_cached] = blocks[:num_cached, None] >= blocks[None, :]
    mask[:num_cached, num_cached:] = False
    return mask
