"""Rotary position embedding in time, rows and columns, from explicit positions.

Positions are data: a fixed sink, the unbounded reset (§3.5) and another model's policy are other
numbers handed in here, not other code. Angles are computed from the positions, so there is no
table that ends.
"""

import functools

import torch
from jaxtyping import Complex, Float, Num
from torch import Tensor

from joyflash_cli.types import in_float64, on_device

ROPE_THETA = 10_000.0

Positions = Num[Tensor, " T"] | tuple[int, ...]
"""Temporal index of each latent frame."""


def rope_pair_split(head_dim: int) -> tuple[int, int, int]:
    """Rotated pairs of one head that carry time, rows and columns (as in Wan2.1)."""
    num_pairs = head_dim // 2
    spatial = num_pairs // 3
    return num_pairs - 2 * spatial, spatial, spatial


def rope_rotations(
    positions: Positions,
    grid: tuple[int, int],
    *,
    head_dim: int,
    device: torch.device | None = None,
) -> Complex[Tensor, "T P K2"]:
    """The rotation of every pair as a complex number of length 1, for all tokens of the frames.

    Args:
        positions: Temporal index of each latent frame; may be any number. On the CPU nothing waits
            for the device. Rotations of the last few tuples are kept: in a stream whose indices
            stay (URCR) they are always the same.
        grid: Token rows and columns of a frame.
        head_dim: Width of one head.
        device: Where they are put; where the positions are by default.

    Returns:
        complex64, ``(T, P, head_dim / 2)``, tokens of a frame in row-major order.
    """
    if isinstance(positions, tuple):
        # What is made in inference mode is of no use outside it.
        is_inference = torch.is_inference_mode_enabled()
        return _kept(positions, grid, head_dim, device or torch.device("cpu"), is_inference)
    return _computed(positions, grid, head_dim, device or positions.device)


@functools.lru_cache(maxsize=4)
def _kept(
    positions: tuple[int, ...],
    grid: tuple[int, int],
    head_dim: int,
    device: torch.device,
    _is_inference: bool,
) -> Complex[Tensor, "T P K2"]:
    return _computed(torch.tensor(positions), grid, head_dim, device)


def _computed(
    positions: Num[Tensor, " T"], grid: tuple[int, int], head_dim: int, device: torch.device
) -> Complex[Tensor, "T P K2"]:
    num_rows, num_columns = grid
    exact = in_float64(positions)
    axes = (
        exact,
        torch.arange(num_rows, device=exact.device),
        torch.arange(num_columns, device=exact.device),
    )
    pairs = rope_pair_split(head_dim)
    time, rows, columns = (
        on_device(_rotations(axis, num), device) for axis, num in zip(axes, pairs, strict=True)
    )
    shape = (len(positions), num_rows, num_columns, -1)
    parts = (time[:, None, None], rows[None, :, None], columns[None, None, :])
    return torch.cat([part.expand(shape) for part in parts], dim=-1).flatten(1, 2)


def rotate(
    x_BLNK: Float[Tensor, "B L N K"], rotations_LK: Complex[Tensor, "L K2"]
) -> Float[Tensor, "B L N K"]:
    """``x`` with adjacent pairs (2i, 2i+1) turned, in float32, cast back."""
    pairs = torch.view_as_complex(x_BLNK.float().unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(pairs * rotations_LK[:, None])
    return turned.flatten(-2).to(x_BLNK.dtype)


def _rotations(positions: Num[Tensor, " n"], num_pairs: int) -> Complex[Tensor, "n pairs"]:
    """Computed in float64: a long stream has large indices, and float32 would lose small angles."""
    exponents = torch.arange(num_pairs, device=positions.device, dtype=torch.float64) / num_pairs
    angles = positions[:, None] * ROPE_THETA**-exponents
    return torch.complex(angles.cos().float(), angles.sin().float())
