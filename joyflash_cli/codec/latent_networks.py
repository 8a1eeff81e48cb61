"""The learnt networks between pixels and the latents of the tiny codec.

They make latents a description of the change ("the mouth opens so far") instead of a sum of
pictures: what lies halfway between two latents decodes to a mouth that is half open, where the
mean of two pictures would be a ghost of both. Both networks start as a linear codec, principal
components of changes in cells of 8 x 8 pixels, and learn what it lacks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.codec.config import FOLD
from joyflash_cli.codec.layers import ChannelNorm, ResidualLayer, start_at_zero

CELL_PX = 2 * FOLD
"""Side of a latent's cell in pixels: half the grid of folded pixels."""


def _residual_layers(dim: int, count: int) -> nn.Sequential:
    return nn.Sequential(*[ResidualLayer(dim, ChannelNorm(dim)) for _ in range(count)])


class ChangeEncoder(nn.Module):
    """Four frames beside a reference picture to one latent frame.

    Args:
        channels: Of a latent frame.
        dim: Width on the quarter-resolution grid.
        latent_dim: Width on the latents' grid.
        num_layers: Residual layers on the latents' grid.
    """

    def __init__(self, channels: int, dim: int, latent_dim: int, num_layers: int) -> None:
        super().__init__()
        pictures = 3 * (1 + 4) * FOLD**2
        self.components = nn.Conv2d(12, channels, CELL_PX, stride=CELL_PX, bias=False)
        self.from_pixels = nn.Conv2d(pictures, dim, 3, padding=1)
        self.fine_layers = _residual_layers(dim, 2)
        self.reduce = nn.Conv2d(dim, latent_dim, 3, stride=2, padding=1)
        self.layers = _residual_layers(latent_dim, num_layers)
        self.norm = ChannelNorm(latent_dim)
        self.to_latent = nn.Conv2d(latent_dim, channels, 3, padding=1)
        start_at_zero(self.to_latent)

    def forward(self, frames: Tensor, reference: Tensor) -> Tensor:
        """``(N, C, H/8, W/8)`` of frames ``(N, 4, 3, H, W)`` and reference ``(N, 3, H, W)``."""
        change = (frames - reference[:, None]).flatten(1, 2)
        pictures = torch.cat([change, reference], 1)
        hidden = self.from_pixels(functional.pixel_unshuffle(pictures, FOLD))
        hidden = self.layers(self.reduce(self.fine_layers(hidden)))
        return self.components(change) + self.to_latent(functional.silu(self.norm(hidden)))


class LatentDecoder(nn.Module):
    """A latent frame to features on the quarter-resolution grid and a coarse change of pixels.

    Args:
        channels: Of a latent frame.
        reference_dim: Width of the reference's features.
        latent_dim: Width on the latents' grid.
        dim: Width on the quarter-resolution grid.
        num_layers: Residual layers on the latents' grid.
    """

    def __init__(
        self, channels: int, reference_dim: int, latent_dim: int, dim: int, num_layers: int
    ) -> None:
        super().__init__()
        self.components = nn.ConvTranspose2d(channels, 12, CELL_PX, stride=CELL_PX, bias=False)
        self.from_reference = nn.Conv2d(reference_dim, latent_dim, 3, stride=2, padding=1)
        self.from_latent = nn.Conv2d(channels, latent_dim, 3, padding=1)
        self.layers = _residual_layers(latent_dim, num_layers)
        self.norm = ChannelNorm(latent_dim)
        self.enlarge = nn.Conv2d(latent_dim, 4 * dim, 1)
        self.to_change = nn.Conv2d(dim, 3 * 4 * FOLD**2, 3, padding=1)
        start_at_zero(self.to_change)

    def prepare(self, features: Tensor) -> Tensor:
        """What the reference's features ``(B, D, H/4, W/4)`` say on the latents' grid."""
        return self.from_reference(features)

    def forward(self, latent: Tensor, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(N, dim, H/4, W/4)`` and coarse change ``(N, 12, H, W)`` of latents."""
        hidden = self.layers(self.from_latent(latent) + prepared)
        hidden = self.enlarge(functional.silu(self.norm(hidden)))
        features = functional.pixel_shuffle(hidden, 2)
        change = functional.pixel_shuffle(self.to_change(functional.silu(features)).float(), FOLD)
        return features, change + self.components(latent).float()
