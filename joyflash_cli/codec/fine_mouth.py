"""Mouths at twice the density: what the networks' own pixels are too coarse to show.

Teeth, the line between the lips and their edges are a pixel or two on the grid on which the rest is
drawn. A small network draws what that grid lacks, on the window of the square where framed mouths
are, at twice its density. It sees the same features as the coarse drawing, the moved reference at
its own density, and remembers nothing: what it adds follows the coarse drawing in time.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.codec.layers import ResidualLayer, start_at_zero
from joyflash_cli.codec.warp import (
    DRAWING_SCALE,
    FOLD,
    FRAMES_PER_LATENT,
    Drawing,
    move_reference,
)

SCALE = 2
"""Its pixels for one of the coarse drawing."""

WINDOW = (0.53125, 0.25, 0.90625, 0.75)
"""Top, left, bottom and right of the window, as shares of the square's side."""

FADE = 0.05
"""Width of its border over which what is drawn fades, in sides of the square."""


def window_of(fields: Tensor) -> Tensor:
    """The window's part of fields ``(..., H, W)`` of the whole square, a view."""
    height, width = fields.shape[-2:]
    top, left, bottom, right = WINDOW
    rows = slice(round(top * height), round(bottom * height))
    return fields[..., rows, round(left * width) : round(right * width)]


def window_weight(height: int, width: int) -> Tensor:
    """``(height, width)``: 1 inside the window, 0 at its border."""
    top, left, bottom, right = WINDOW
    down = (torch.arange(height) + 0.5) / height * (bottom - top)
    across = (torch.arange(width) + 0.5) / width * (right - left)
    rows = (torch.minimum(down, bottom - top - down) / FADE).clamp(0, 1)
    columns = (torch.minimum(across, right - left - across) / FADE).clamp(0, 1)
    weight = rows[:, None] * columns
    return weight * weight * (3 - 2 * weight)


def composed(drawing: Drawing, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Frames without the fine mouth, and the reference moved, ``(BT, 12, 2 H, 2 W)`` each.

    Args:
        drawing: Of pictures of height H and width W.
        reference: At twice that size, ``(BT, 3, 2 H, 2 W)``.
    """

    def enlarged(fields: Tensor) -> Tensor:
        return functional.interpolate(fields, scale_factor=SCALE, mode="bicubic")

    share = drawing.copied.repeat_interleave(3, 1)
    moved = move_reference(reference, drawing.flow)
    added = enlarged(drawing.frames - share * drawing.moved)
    return added + enlarged(share).clamp(0, 1) * moved, moved


class FineMouth(nn.Module):
    """What is added to mouths at twice the density of the drawing; starts as nothing.

    Args:
        dim: Width.
        feature_dim: Width of the drawing's features.
        num_layers: Residual layers.
    """

    def __init__(self, dim: int, feature_dim: int, num_layers: int = 3) -> None:
        super().__init__()
        frames = 3 * FRAMES_PER_LATENT * FOLD**2
        self.from_features = nn.Conv2d(feature_dim, 4 * dim, 1)
        self.from_pixels = nn.Conv2d(2 * frames, dim, 3, padding=1)
        self.layers = nn.Sequential(*[ResidualLayer(dim) for _ in range(num_layers)])
        self.norm = nn.GroupNorm(8, dim)
        self.to_drawn = nn.Conv2d(dim, frames, 3, padding=1)
        start_at_zero(self.to_drawn)

    def draw(self, drawing: Drawing, reference: Tensor) -> Tensor:
        """What is added to a drawing's frames ``(BT, 12, 2 H, 2 W)``, 0 outside the window.

        Args:
            drawing: Of pictures of height H and width W.
            reference: At twice that size, ``(BT, 3, 2 H, 2 W)``.
        """
        base, moved = composed(drawing, reference)
        drawn = base.new_zeros(base.shape)
        window_of(drawn).copy_(self(window_of(drawing.features), window_of(base), window_of(moved)))
        return drawn

    def forward(self, features: Tensor, base: Tensor, moved: Tensor) -> Tensor:
        """What is added ``(BT, 12, h, w)`` in the window, float32.

        Args:
            features: Of the coarse drawing in the window, ``(BT, D, h/8, w/8)``.
            base: Frames without it, ``(BT, 12, h, w)``.
            moved: The reference moved, likewise.
        """
        hidden = functional.pixel_shuffle(self.from_features(features), 2)
        pixels = torch.cat([base, moved - base], 1)
        hidden = hidden + self.from_pixels(functional.pixel_unshuffle(pixels, FOLD))
        hidden = functional.silu(self.norm(self.layers(hidden)))
        drawn = functional.pixel_shuffle(self.to_drawn(hidden).float(), FOLD) * DRAWING_SCALE
        return drawn * window_weight(*drawn.shape[-2:]).to(drawn)
