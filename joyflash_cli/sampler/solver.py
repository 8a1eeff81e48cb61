"""Flow matching: the warped noise table, and the ways between flow, clean and noisy latents.

x_t = (1 - sigma) x_0 + sigma eps; the flow is eps - x_0. The table is Self-Forcing's: 1,000 steps
in float32, and lookups take the nearest entry, because checkpoints were trained on these values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.errors import ConfigError
from joyflash_cli.types import finest_dtype

NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class FlowMatchTable:
    """Noise levels from the noisiest to the cleanest; zero is not among them.

    Attributes:
        sigmas: ``(n,)`` float32, decreasing from 1.
        timesteps: ``1000 * sigmas``.
    """

    sigmas: Tensor
    timesteps: Tensor

    def step_index(self, nominal_step: int) -> int:
        """Table index of a nominal step 1..1000, as in ``timesteps[1000 - step]``.

        Raises:
            ConfigError: If the step is outside the table.
        """
        if not 1 <= nominal_step <= len(self.timesteps):
            raise ConfigError(f"Denoising step {nominal_step} is outside 1..{len(self.timesteps)}")
        return len(self.timesteps) - nominal_step


def flow_match_table(shift: float, *, num_steps: int = NUM_TRAIN_TIMESTEPS) -> FlowMatchTable:
    """The table of ``num_steps`` levels, warped by ``shift`` (Wan2.1 and Self-Forcing use 5)."""
    linear = torch.linspace(1.0, 0.0, num_steps + 1)[:-1]
    sigmas = shift * linear / (1 + (shift - 1) * linear)
    return FlowMatchTable(sigmas, sigmas * NUM_TRAIN_TIMESTEPS)


def add_noise(
    clean: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], sigma: Tensor | float
) -> Float[Tensor, "*shape"]:
    """``(1 - sigma) * clean + sigma * noise``; ``sigma`` broadcasts."""
    return (1 - sigma) * clean + sigma * noise


def clean_from_flow(
    noisy: Float[Tensor, "*shape"], flow: Float[Tensor, "*shape"], sigma: Tensor | float
) -> Float[Tensor, "*shape"]:
    """``noisy - sigma * flow``, computed in float64 (where there is) and cast back."""
    fine = finest_dtype(noisy.device)
    sigma = sigma.to(fine) if isinstance(sigma, Tensor) else sigma
    return (noisy.to(fine) - sigma * flow.to(fine)).to(noisy.dtype)


def flow_from_clean(
    noisy: Float[Tensor, "*shape"], clean: Float[Tensor, "*shape"], sigma: Tensor | float
) -> Float[Tensor, "*shape"]:
    """``(noisy - clean) / sigma``, as ``clean_from_flow``; sigma must not be 0."""
    fine = finest_dtype(noisy.device)
    sigma = sigma.to(fine) if isinstance(sigma, Tensor) else sigma
    return ((noisy.to(fine) - clean.to(fine)) / sigma).to(noisy.dtype)


def euler_step(
    noisy: Float[Tensor, "*shape"],
    flow: Float[Tensor, "*shape"],
    sigma: Tensor | float,
    next_sigma: Tensor | float,
) -> Float[Tensor, "*shape"]:
    """One step of the probability-flow ODE, for teachers and ODE pairs."""
    return noisy + flow * (next_sigma - sigma)


def warped_timesteps(steps: Sequence[float], shift: float) -> Float[Tensor, " n"]:
    """Nominal steps 1..1000 warped without a table, float32 as the references compute them."""
    linear = torch.tensor(steps, dtype=torch.float32) / NUM_TRAIN_TIMESTEPS
    return shift * linear / (1 + (shift - 1) * linear) * NUM_TRAIN_TIMESTEPS


BRIDGE_END = -1.0
"""Timestep that the last bridge step goes to."""


def bridge_weights(timestep: float, next_timestep: float) -> tuple[float, float]:
    """Weights of the flow and of fresh noise in a step of the bridge from reference to clip.

    The noise vanishes in the step to ``BRIDGE_END`` (LeapTalk).
    """
    current = (timestep + 1) / NUM_TRAIN_TIMESTEPS
    change = (next_timestep - timestep) / NUM_TRAIN_TIMESTEPS
    rest = (next_timestep + 1) / NUM_TRAIN_TIMESTEPS
    return change, math.sqrt(max(0.0, -change * rest / current))
