"""Colours of a frame brought to those of the reference picture, in CIELAB (FlashHead, LeapTalk).

Every segment begins with frames that were encoded and decoded once more; without a fixed point
their colours would wander off over minutes.
"""

import torch
from jaxtyping import Float
from torch import Tensor

WHITE = (0.95047, 1.0, 1.08883)
TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
FROM_XYZ = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)
"""sRGB with its D65 white; see IEC 61966-2-1 and CIE 15."""

LINEAR_BELOW, SLOPE = 0.008856, 903.3
FRAMES_AT_ONCE = 4
"""Bounds the memory: a frame takes about ten copies of itself."""

MIN_SPREAD = 1e-8


class ColourMatch:
    """Mean and spread of every Lab channel of a frame made those of the reference.

    Args:
        reference: ``(B, 3, H, W)`` in -1..1.
        strength: Share of the matched colours, 0..1; 0 changes nothing.
    """

    def __init__(self, reference: Float[Tensor, "B 3 H W"], strength: float) -> None:
        self.strength = strength
        self._mean, self._spread = _statistics(_to_lab((reference.float() + 1) / 2))

    def __call__(self, frames: Float[Tensor, "B F 3 H W"]) -> Float[Tensor, "B F 3 H W"]:
        """The frames, in -1..1, each matched by itself."""
        if self.strength == 0:
            return frames
        parts = frames.split(FRAMES_AT_ONCE, dim=1)
        return torch.cat([self._matched(part.float()) for part in parts], dim=1)

    def _matched(self, frames: Tensor) -> Tensor:
        shown = (frames + 1) / 2
        lab = _to_lab(shown)
        mean, spread = _statistics(lab)
        wanted_mean, wanted_spread = (
            part[:, None].to(lab.device) for part in (self._mean, self._spread)
        )
        matched = _from_lab((lab - mean) / spread * wanted_spread + wanted_mean)
        return ((1 - self.strength) * shown + self.strength * matched) * 2 - 1


def _statistics(lab: Float[Tensor, "*rest H W"]) -> tuple[Tensor, Tensor]:
    """Mean and population deviation over the pixels; 1 for a channel without any."""
    variance, mean = torch.var_mean(lab, dim=(-2, -1), correction=0, keepdim=True)
    spread = variance.sqrt()
    return mean, torch.where(spread < MIN_SPREAD, 1.0, spread)


def _to_lab(shown: Float[Tensor, "*rest 3 H W"]) -> Float[Tensor, "*rest 3 H W"]:
    linear = torch.where(
        shown > 0.04045, ((shown.clamp_min(0) + 0.055) / 1.055) ** 2.4, shown / 12.92
    )
    ratio = (_mixed(linear, TO_XYZ) / _column(WHITE, shown)).clamp(1e-8, 1.0)
    root = torch.where(ratio > LINEAR_BELOW, ratio ** (1 / 3), (SLOPE * ratio + 16) / 116)
    x, y, z = root.unbind(-3)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-3)


def _from_lab(lab: Float[Tensor, "*rest 3 H W"]) -> Float[Tensor, "*rest 3 H W"]:
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    roots = torch.stack((y + a / 500, y, y - b / 200), dim=-3)
    cubes = roots**3
    ratio = torch.where(cubes > LINEAR_BELOW, cubes, (116 * roots - 16) / SLOPE)
    is_light = lightness > SLOPE * LINEAR_BELOW
    ratio[..., 1, :, :] = torch.where(is_light, cubes[..., 1, :, :], lightness / SLOPE)
    linear = _mixed(ratio * _column(WHITE, lab), FROM_XYZ)
    bent = 1.055 * linear.clamp_min(0) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, bent, 12.92 * linear).clamp(0, 1)


def _mixed(channels: Tensor, rows: tuple[tuple[float, ...], ...]) -> Tensor:
    """A 3 x 3 matrix times the channels of every pixel, in float32 on every device."""
    first, second, third = channels.unbind(-3)
    return torch.stack([a * first + b * second + c * third for a, b, c in rows], dim=-3)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype)[:, None, None]
