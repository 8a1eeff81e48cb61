"""Convolutional layers of the tiny codec."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def start_at_zero(convolution: nn.Conv2d) -> None:
    """Make a convolution give zeros until it is trained."""
    nn.init.zeros_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each position, so that a crop gives what the whole gives."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, D, H, W)`` to the same."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class ResidualLayer(nn.Module):
    """Two 3 x 3 convolutions behind a norm, added to the input; starts as the identity.

    Args:
        dim: Width.
        norm: Before the convolutions; a group norm over the whole picture if ``None``.
    """

    def __init__(self, dim: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, dim) if norm is None else norm
        self.first = nn.Conv2d(dim, dim, 3, padding=1)
        self.second = nn.Conv2d(dim, dim, 3, padding=1)
        start_at_zero(self.second)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, D, H, W)`` to the same."""
        return x + self.second(functional.silu(self.first(functional.silu(self.norm(x)))))


class MemoryLayer(nn.Module):
    """A residual layer that also sees its input at the previous latent frame."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * dim, dim, 1)
        self.residual = ResidualLayer(dim)

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        """``x`` and ``previous`` are ``(B, D, H, W)``."""
        return self.residual(x + self.mix(torch.cat([x, previous], 1)))
