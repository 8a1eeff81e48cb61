"""Rotary position embedding in time, rows and columns, from explicit positions.

Positions are data: a fixed sink, the unbounded reset (§3.5) and another model's policy are other
numbers handed in here, not other code. Angles are computed from the positions, so there is no
table that ends.
"""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from joyflash_cli.types import in_float64

ROPE_THETA = 10_000.0


def rope_pair_split(head_dim: int) -> tuple[int, int, int]:
    """Rotated pairs of one head that carry time, rows and columns (as in Wan2.1)."""
    num_pairs = head_dim // 2
    spatial = num_pairs // 3
    return num_pairs - 2 * spatial, spatial, spatial


def rope_tables(
    positions: Num[Tensor, " T"], grid: tuple[int, int], *, head_dim: int
) -> tuple[Float[Tensor, "T P K2"], Float[Tensor, "T P K2"]]:
    """Cosine and sine of every pair's angle, for all tokens of the given frames.

    Args:
        positions: Temporal index of each latent frame; may be any number.
        grid: Token rows and columns of a frame.
        head_dim: Width of one head.

    Returns:
        Two float32 tensors ``(T, P, head_dim / 2)``, tokens of a frame in row-major order.
    """
    num_rows, num_columns = grid
    # float64 because a long stream has large indices and float32 would lose the small angles.
    exact = in_float64(positions)
    rows = torch.arange(num_rows, device=exact.device, dtype=torch.float64)
    columns = torch.arange(num_columns, device=exact.device, dtype=torch.float64)
    pairs = rope_pair_split(head_dim)
    time_angles = _angles(exact, pairs[0])
    row_angles = _angles(rows, pairs[1])
    column_angles = _angles(columns, pairs[2])
    shape = (len(positions), num_rows, num_columns, -1)
    angles = torch.cat(
        (
            time_angles[:, None, None].expand(shape),
            row_angles[None, :, None].expand(shape),
            column_angles[None, None, :].expand(shape),
        ),
        dim=-1,
    ).flatten(1, 2)
    device = positions.device
    return angles.cos().float().to(device), angles.sin().float().to(device)


def rotate(
    x_BLNK: Float[Tensor, "B L N K"],
    cos_LK: Float[Tensor, "L K2"],
    sin_LK: Float[Tensor, "L K2"],
) -> Float[Tensor, "B L N K"]:
    """``x`` with adjacent pairs (2i, 2i+1) turned by their angle, in float32, cast back."""
    even, odd = x_BLNK.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos_LK[:, None], sin_LK[:, None]
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x_BLNK.dtype)


def _angles(positions: Float[Tensor, " n"], num_pairs: int) -> Float[Tensor, "n pairs"]:
    exponents = torch.arange(num_pairs, device=positions.device, dtype=torch.float64) / num_pairs
    return positions[:, None] * ROPE_THETA**-exponents
