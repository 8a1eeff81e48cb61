"""Flow matching: the warped noise table, and the ways between flow, clean and noisy latents.

x_t = (1 - sigma) x_0 + sigma eps; the flow is eps - x_0. The table is Self-Forcing's: 1,000 steps
in float32, and lookups take the nearest entry, because checkpoints were trained on these values.
"""

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
