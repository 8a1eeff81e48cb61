"""ODE initialisation: the student learns where the teacher's ODE ends, under the causal mask.

Every block of a clip gets its own level, clean included, and the student sees whole blocks up to
its own (paper §4.1; Self-Forcing's ODE regression). What comes out is causal and few-step; the
window's exchange between noisy blocks is left to DMD.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.model.attention import block_causal_mask
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.profile import SamplerProfile
from joyflash_cli.sampler.schedule import noise_levels
from joyflash_cli.sampler.solver import clean_from_flow
from joyflash_cli.training.losses import masked_mean
from joyflash_cli.training.ode_pairs import OdePairs, given_frames
from joyflash_cli.training.trainer import OptimiserConfig, TrainingRun
from joyflash_cli.types import Conditioning


@dataclass(frozen=True)
class OdeConfig:
    """How the ODE initialisation is trained.

    Attributes:
        optimiser: Steps and rates; Self-Forcing's rate is the default.
        batch: Pairs per step.
        seed: Of order and levels.
        bf16: Whether the student runs in bfloat16.
        log_every: Steps between two lines of the log.
    """

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
    batch: int = 4
    seed: int = 0
    bf16: bool = True
    log_every: int = 50


def draw_block_states(
    states: Tensor, profile: SamplerProfile, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """One state per block at a random level, and the index of that level per frame.

    Args:
        states: ``(B, S, T, C, H, W)``, noisiest first, clean last.
        profile: Length of a block; frames before the first block are always clean.
        rng: Source of the levels.

    Returns:
        Noisy latents ``(B, T, C, H, W)`` and state indices ``(B, T)``.
    """
    batch, num_states, num_frames = states.shape[:3]
    prefix = profile.first_block_frame
    num_blocks = (num_frames - prefix) // profile.block_frames
    drawn = torch.from_numpy(rng.integers(num_states, size=(batch, num_blocks)))
    chosen = drawn.repeat_interleave(profile.block_frames, dim=1)
    chosen = torch.cat([torch.full((batch, prefix), num_states - 1), chosen], dim=1)
    index = chosen[:, None, :, None, None, None].expand(-1, 1, -1, *states.shape[3:])
    return states.gather(1, index)[:, 0], chosen


def causal_clean(
    model: CausalTransformer,
    noisy: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    profile: SamplerProfile,
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
        noisy, timesteps, conditioning, positions=torch.arange(num_frames), mask=mask
    ).prediction.to(noisy.dtype)
    if model.config.prediction == "clean":
        return prediction
    return clean_from_flow(noisy, prediction, timesteps[..., None, None, None] / 1000)


def ode_loss(
    model: CausalTransformer,
    states: Tensor,
    conditioning: Conditioning,
    profile: SamplerProfile,
    rng: np.random.Generator,
) -> Tensor:
    """Mean squared error of the clean prediction, over frames that are neither clean nor given."""
    levels = noise_levels(profile)
    grid = torch.tensor([levels[level].timestep for level in sorted(levels)])
    noisy, chosen = draw_block_states(states, profile, rng)
    timesteps = grid[chosen]
    learnt = (timesteps != 0) & ~given_frames(profile, noisy.shape[1])
    clean = causal_clean(model, noisy, timesteps, conditioning, profile)
    error = (clean - states[:, -1]).square()
    return masked_mean(error, learnt[..., None, None, None].expand_as(error))


def train_ode(
    config: OdeConfig,
    *,
    student: CausalTransformer,
    pairs: OdePairs,
    profile: SamplerProfile,
    out_dir: Path,
    resume: bool = False,
    on_log: Callable[[dict], None] | None = None,
) -> CausalTransformer:
    """Train the student, and return its average."""
    run = TrainingRun(out_dir, student, config.optimiser, seed=config.seed)
    if resume:
        run.resume()
    while run.step < config.optimiser.steps:
        rng = np.random.default_rng([config.seed, run.step])
        chosen = torch.from_numpy(rng.integers(len(pairs), size=config.batch))
        conditioning = Conditioning(
            image=pairs.image[chosen].float(), audio=pairs.audio[chosen].float()
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            loss = ode_loss(student, pairs.states[chosen].float(), conditioning, profile, rng)
        run.update(loss)
        if run.step % config.log_every == 0 or run.step == config.optimiser.steps:
            line = run.log()
            if on_log is not None:
                on_log(line)
    run.save()
    return run.averaged
