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
from joyflash_cli.studio.training.ode_pairs import OdePairs
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
    shape: Sequence[int], batch: int, profile: SamplerSettings, rng: np.random.Generator
) -> Tensor:
    """Index of a random level for every block, clean included, as ``(batch, T)`` per frame.

    Args:
        shape: Of the pairs' states, ``(N, S, T, ...)``.
        batch: Samples.
        profile: Length of a block; frames before the first block are always clean.
        rng: Source of the levels.
    """
    num_states, num_frames = shape[1:3]
    prefix = profile.first_block_frame
    num_blocks = (num_frames - prefix) // profile.block_frames
    drawn = torch.from_numpy(rng.integers(num_states, size=(batch, num_blocks)))
    chosen = drawn.repeat_interleave(profile.block_frames, dim=1)
    return torch.cat([torch.full((batch, prefix), num_states - 1), chosen], dim=1)


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
    prediction = model(
        noisy,
        timesteps,
        conditioning,
        positions=torch.arange(num_frames, device=noisy.device),
        mask=mask,
    ).prediction.to(noisy.dtype)
    if model.config.prediction == "clean":
        return prediction
    return clean_from_flow(noisy, prediction, timesteps[..., None, None, None] / 1000)


@dataclass(frozen=True)
class OdeLoss:
    """The student's loss as a function of network, step and samples."""

    config: OdeConfig
    pairs: OdePairs
    profile: SamplerSettings

    def __call__(self, network: CausalTransformer, step: int, streams: Sequence[int]) -> Tensor:
        """Squared error of the clean prediction, over frames that are neither clean nor given.

        The sum over these samples is divided by their share of all frames that count in the whole
        batch: different samples learn at different numbers of frames, and parts have to average
        to the whole.
        """
        batch, own = self.config.batch, list(streams)
        rng = np.random.default_rng([self.config.seed, step])
        chosen = torch.from_numpy(rng.integers(len(self.pairs), size=batch))
        drawn = draw_levels(self.pairs.states.shape, batch, self.profile, rng)
        levels = noise_levels(self.profile)
        timesteps = torch.tensor([levels[level].timestep for level in sorted(levels)])[drawn]
        learnt = (timesteps != 0) & ~given_frames(self.profile, timesteps.shape[1])
        device = next(network.parameters()).device
        rows = chosen[own]
        states = self.pairs.states[rows].float().to(device)
        noisy = states_at(states, drawn[own].to(device))
        conditioning = map_tensors(self.pairs.conditioning, lambda x: x[rows].float().to(device))
        clean = causal_clean(network, noisy, timesteps[own].to(device), conditioning, self.profile)
        error = (clean - states[:, -1]).square().mean(dim=(2, 3, 4))
        counted = (error * learnt[own].to(device)).sum()
        return counted * (batch / len(own)) / learnt.sum().clamp(min=1)
