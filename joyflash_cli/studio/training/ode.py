"""ODE initialisation: the student learns where the teacher's ODE ends, under the causal mask.

Every block of a clip gets its own level, clean included, and the student sees whole blocks up to
its own (paper §4.1; Self-Forcing's ODE regression). What comes out is causal and few-step; the
window's exchange between noisy blocks is left to DMD.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.model.attention import block_causal_mask
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.psb import noise_levels
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.solver import clean_from_flow
from joyflash_cli.studio.training.scores import given_frames
from joyflash_cli.studio.training.tensors import map_tensors
from joyflash_cli.studio.training.trainer import NetworkStage, OptimiserConfig
from joyflash_cli.types import Conditioning


@dataclass(frozen=True)
class OdeConfig(NetworkStage):
    """How the ODE initialisation is trained; Self-Forcing's rate is the default."""

    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            steps=2000,
            learning_rate=2e-6,
            betas=(0.9, 0.999),
            weight_decay=0.01,
            flat_share=1.0,
            clip_norm=10.0,
            ema_decay=0.99,
        )
    )


def draw_levels(
    num_levels: int, num_frames: int, batch: int, profile: SamplerSettings, rng: np.random.Generator
) -> Tensor:
    """Index of a random level for every block, clean (the last) included, ``(batch, T)`` per frame.

    Frames before the first block are always clean.
    """
    prefix = profile.first_block_frame
    num_blocks = (num_frames - prefix) // profile.block_frames
    drawn = torch.from_numpy(rng.integers(num_levels, size=(batch, num_blocks)))
    chosen = drawn.repeat_interleave(profile.block_frames, dim=1)
    return torch.cat([torch.full((batch, prefix), num_levels - 1), chosen], dim=1)


def states_at(states: Tensor, drawn: Tensor) -> Tensor:
    """Noisy latents ``(B, T, C, H, W)``: of every frame the state of its level.

    Args:
        states: ``(B, S, T, C, H, W)``, noisiest first, clean last.
        drawn: From ``draw_levels``.
    """
    index = drawn[:, None, :, None, None, None].expand(-1, 1, -1, *states.shape[3:])
    return states.gather(1, index)[:, 0]


def causal_clean(
    model: CausalTransformer,
    noisy: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    profile: SamplerSettings,
) -> Tensor:
    """Clean prediction of a whole clip under the block-causal mask, without a cache."""
    num_frames = noisy.shape[1]
    mask = block_causal_mask(
        num_frames,
        profile.block_frames,
        model.config.tokens_per_frame(*noisy.shape[-2:]),
        prefix_frames=profile.first_block_frame,
        device=noisy.device,
    )
    positions = torch.arange(num_frames, device=noisy.device)
    output = model(noisy, timesteps, conditioning, positions=positions, mask=mask)
    prediction = output.prediction.to(noisy.dtype)
    if model.config.prediction == "clean":
        return prediction
    return clean_from_flow(noisy, prediction, timesteps[..., None, None, None] / 1000)


@dataclass(frozen=True)
class OdeLoss:
    """The student's loss as a function of network, step and samples.

    Attributes:
        config: Batch and seed.
        states: Of all pairs, ``(N, levels + 1, T, C, H, W)``, noisiest first, clean last.
        conditioning: Of all pairs.
        profile: Whose levels these are.
    """

    config: OdeConfig
    states: Tensor
    conditioning: Conditioning
    profile: SamplerSettings

    def __call__(self, network: CausalTransformer, step: int, streams: Sequence[int]) -> Tensor:
        """Squared error of the clean prediction, over frames that are neither clean nor given.

        The sum over these samples is divided by their share of all frames that count in the whole
        batch: different samples learn at different numbers of frames, and parts have to average
        to the whole.
        """
        batch, own = self.config.batch, list(streams)
        num_pairs, num_levels, num_frames = self.states.shape[:3]
        rng = np.random.default_rng([self.config.seed, step])
        chosen = torch.from_numpy(rng.integers(num_pairs, size=batch))
        drawn = draw_levels(num_levels, num_frames, batch, self.profile, rng)
        levels = noise_levels(self.profile)
        timesteps = torch.tensor([levels[level].timestep for level in sorted(levels)])[drawn]
        learnt = (timesteps != 0) & ~given_frames(self.profile, num_frames)
        device, rows = next(network.parameters()).device, chosen[own]
        states = self.states[rows].float().to(device)
        noisy = states_at(states, drawn[own].to(device))
        conditioning = map_tensors(self.conditioning, lambda x: x[rows].float().to(device))
        clean = causal_clean(network, noisy, timesteps[own].to(device), conditioning, self.profile)
        error = (clean - states[:, -1]).square().mean(dim=(2, 3, 4))
        counted = (error * learnt[own].to(device)).sum()
        return counted * (batch / len(own)) / learnt.sum().clamp(min=1)
