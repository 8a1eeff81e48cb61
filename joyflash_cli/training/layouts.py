"""What one training sequence looks like: which latents, at which noise, who sees whom.

The rolling layouts are the sampler's own windows, laid out in one masked pass: sink and recent
context at timestep 0, the condition frame (MCI), then the window at the levels of PSB. The clip
layout is the bidirectional teacher's: one noise level for all frames.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.sampler.profile import SamplerProfile
from joyflash_cli.sampler.schedule import noise_levels


@dataclass(frozen=True)
class Layout:
    """One sequence of T latent frames.

    Attributes:
        frames: Index of each latent frame in its clip, ``(T,)``; also its rotary position.
        sigmas: Noise level of each, 0..1, ``(T,)``.
        timesteps: What the transformer is told, 0..1000, ``(T,)``.
        learns: Whether the frame's prediction enters the loss, ``(T,)``.
        mask: Frame-level attention mask ``(T, T)``, ``None`` when all see all.
    """

    frames: Tensor
    sigmas: Tensor
    timesteps: Tensor
    learns: Tensor
    mask: Tensor | None


def clip_layout(start: int, num_frames: int, sigma: float, *, has_still_first: bool) -> Layout:
    """Frames ``start ..`` at one noise level; a still first frame is given, not learnt."""
    frames = torch.arange(start, start + num_frames)
    sigmas = torch.full((num_frames,), sigma)
    given = (frames == 0) & has_still_first
    timesteps = 1000 * sigmas.clone()
    return Layout(frames, torch.where(given, 0.0, sigmas), timesteps, ~given, None)


def rolling_layout(
    rng: np.random.Generator, profile: SamplerProfile, *, num_blocks: int, mci_noise: float
) -> Layout:
    """A random window of the sampler's schedule over a clip that starts at its reference.

    Args:
        rng: Source of the choices.
        profile: Block length, window, steps, sink and context of the sampler.
        num_blocks: Blocks of the clip.
        mci_noise: Share of sequences whose condition frame is noised (0.7 in the paper).
    """
    block, width = profile.block_frames, len(profile.main_steps)
    if rng.random() < 0.25:
        count = int(rng.integers(1, width + 1))
        first, offset = 0, int(rng.integers(0, 2))
        grid = [2 * (count - 1 - j) + offset for j in range(count)]
    else:
        first = int(rng.integers(1, num_blocks))
        count = min(width, num_blocks - first)
        grid = [2 * (width - 1 - j) for j in range(count)]
    levels = noise_levels(profile)
    window_sigma = [levels[g].sigma for g in grid]
    past = list(range(max(1, first - profile.context_frames // block), first))
    context = ([0] if first > 0 else []) + past
    frames = [i for b in context for i in range(b * block, (b + 1) * block)]
    num_context = len(frames)
    groups = [b for b in context for _ in range(block)]
    sigmas = [0.0] * num_context
    if first > 0 and profile.mci:
        frames.append(first * block - 1)
        sigmas.append(window_sigma[0] if rng.random() < mci_noise else 0.0)
    given_frames = len(frames)
    for j in range(count):
        frames += list(range((first + j) * block, (first + j + 1) * block))
        sigmas += [window_sigma[j]] * block
    frames_tensor, sigma_tensor = torch.tensor(frames), torch.tensor(sigmas)
    learns = torch.arange(len(frames)) >= given_frames
    timesteps = 1000 * sigma_tensor.clone()
    if first == 0:  # the reference itself stands at latent 0, at its block's timestep
        learns[0] = False
        sigma_tensor[0] = 0.0
    mask = torch.ones(len(frames), len(frames), dtype=torch.bool)
    group = torch.tensor(groups)
    mask[:num_context, :num_context] = group[:, None] >= group[None, :]
    mask[:num_context, num_context:] = False
    return Layout(frames_tensor, sigma_tensor, timesteps, learns, mask if first else None)
