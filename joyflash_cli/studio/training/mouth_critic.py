"""A small adversary that sees mouths, so that drawn teeth and lips have edges.

Absolute error alone answers "between open and closed" with a blur. The critic tells true mouth
crops from drawn ones in overlapping patches; its pull on the decoder is scaled to a fixed share of
the reconstruction loss's pull on the last layer (as in VQGAN), so it can never lead.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm


@dataclass(frozen=True)
class CriticConfig:
    """The critic.

    Attributes:
        crop_px: Side of the square around the mouth's centre.
        dim: Width of the first layer.
        learning_rate: Of the critic's optimiser.
        share: Largest gradient of the adversarial loss on the last layer, relative to the
            reconstruction's; 0 trains without a critic.
        warmup_steps: Steps that the critic trains alone.
    """

    crop_px: int = 48
    dim: int = 32
    learning_rate: float = 4e-4
    share: float = 0.0
    warmup_steps: int = 100


class MouthCritic(nn.Module):
    """Patch logits of mouth crops, high for true ones."""

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        dim = config.dim
        widths = [(3, dim, 2), (dim, 2 * dim, 2), (2 * dim, 3 * dim, 1)]
        layers: list[nn.Module] = []
        for width_in, width_out, stride in widths:
            convolution = nn.Conv2d(width_in, width_out, 4 if stride == 2 else 3, stride, 1)
            layers += [spectral_norm(convolution), nn.LeakyReLU(0.2)]
        layers.append(spectral_norm(nn.Conv2d(3 * dim, 1, 3, 1, 1)))
        self.layers = nn.Sequential(*layers)

    def forward(self, crops: Tensor) -> Tensor:
        """``(N, 1, h, w)`` of crops ``(N, 3, S, S)`` in -1..1."""
        return self.layers(crops)


def mouth_crops(frames: Tensor, centres: Tensor, crop_px: int) -> Tensor:
    """Squares around the mouth, ``(B * F, 3, S, S)``.

    Args:
        frames: ``(B, F, 3, H, W)``.
        centres: ``(B, 2)`` x and y in pixels; squares are moved inside the picture.
        crop_px: Side of the squares.
    """
    size = frames.shape[-1]
    corners = (centres.round().long() - crop_px // 2).clamp(0, size - crop_px)
    crops = [
        clip[..., y : y + crop_px, x : x + crop_px]
        for clip, (x, y) in zip(frames, corners.tolist(), strict=True)
    ]
    return torch.cat(crops)


def critic_loss(critic: MouthCritic, true: Tensor, drawn: Tensor) -> Tensor:
    """Hinge loss of the critic."""
    return (
        functional.relu(1 - critic(true)).mean()
        + functional.relu(1 + critic(drawn.detach())).mean()
    )


def balanced_adversarial_loss(
    critic: MouthCritic, drawn: Tensor, reconstruction: Tensor, last: Tensor, share: float
) -> Tensor:
    """The decoder's side of the game, scaled by gradients on the ``last`` layer's weight."""
    adversarial = -critic(drawn).mean()
    pull = torch.autograd.grad(reconstruction, last, retain_graph=True)[0].norm()
    push = torch.autograd.grad(adversarial, last, retain_graph=True)[0].norm()
    return adversarial * (share * pull / (push + 1e-8)).clamp(max=1.0).detach()
