"""Audio windows of models that denoise whole segments: rows around every video frame of a segment.

A segment of T latent frames has 4T-3 video frames. Frame r hears the rows r-2 .. r+2. The audio
projector takes five of them for the first latent frame and eight for every later one: the first
half of the window of its first video frame, the middles of the inner ones, and the last half of the
window of its last. Where no window is cut at an end these are the rows 4f-5 .. 4f+2 in order.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from joyflash_cli.types import FRAMES_PER_LATENT


def window_indices(start: int, stop: int, *, end: int, width: int) -> Int[Tensor, "F W"]:
    """Rows that video frames ``start <= r < stop`` hear.

    Args:
        start: First row.
        stop: Row after the last.
        end: Rows that there are; the last and the first one stand in for those beyond.
        width: Rows of a window, an odd number.
    """
    around = torch.arange(width) - width // 2
    return (torch.arange(start, stop)[:, None] + around).clamp(0, end - 1)


def latent_rows(windows: Float[Tensor, "B F W *D"]) -> Float[Tensor, "B T A *D"]:
    """The windows of a segment's video frames as the rows of its latent frames.

    Args:
        windows: Of ``4T-3`` video frames, W rows each.

    Returns:
        ``W + 3`` rows for each latent frame; of the first only W count, the others are zero.
    """
    half = windows.shape[2] // 2
    first = windows[:, :1]
    later = windows[:, 1:].unflatten(1, (-1, FRAMES_PER_LATENT))
    rows = torch.cat(
        (later[:, :, 0, : half + 1], later[:, :, 1:-1, half], later[:, :, -1, half:]), dim=2
    )
    filled = torch.cat(
        (first, torch.zeros_like(first[:, :, : rows.shape[2] - 2 * half - 1])), dim=2
    )
    return torch.cat((filled, rows), dim=1)
