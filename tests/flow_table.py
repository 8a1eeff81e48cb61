"""What recordings of other samplers look up in the table of noise levels."""

import torch
from torch import Tensor

from joyflash_cli.sampler.solver import NUM_TRAIN_TIMESTEPS, FlowMatchTable


def nearest_index(table: FlowMatchTable, timesteps: Tensor) -> Tensor:
    """Index of the entry nearest to each timestep."""
    distances = (table.timesteps - timesteps[..., None].to(table.timesteps)).abs()
    return distances.argmin(dim=-1)


def nearest_sigma(table: FlowMatchTable, timesteps: Tensor) -> Tensor:
    """Sigma of the entry nearest to each timestep; timestep 0 gives the last entry, not 0."""
    return table.sigmas[nearest_index(table, timesteps)]


def training_weights(table: FlowMatchTable) -> Tensor:
    """Bell-shaped loss weight of each entry (Self-Forcing's flow-matching loss)."""
    half, full = NUM_TRAIN_TIMESTEPS / 2, NUM_TRAIN_TIMESTEPS
    bell = torch.exp(-2 * ((table.timesteps - half) / full) ** 2)
    raised = bell - bell.min()
    return raised * (full / raised.sum())
