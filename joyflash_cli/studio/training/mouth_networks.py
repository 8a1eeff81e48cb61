"""What trains beside the codec and sees mouths: an adversary, and a reading of visemes.

The adversary gives drawn teeth and lips edges.

Absolute error alone answers "between open and closed" with a blur. The critic tells true mouth
crops from drawn ones in overlapping patches; its pull on the decoder is scaled to a fixed share of
the reconstruction loss's pull on the last layer (as in VQGAN), so it can never lead.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from joyflash_cli.codec.networks import CELL_PX
from joyflash_cli.studio.heads.face_state import VISEMES
from joyflash_cli.types import FRAMES_PER_LATENT

WINDOW = 6
"""Latent positions around the mouth's centre that are read: 48 pixels."""

VISEME_SPREADS = (0.25, 0.2, 0.25, 0.3, 0.25, 0.25)
"""Rough spread of each viseme in speech, so that all count alike."""


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


class VisemeProbe(nn.Module):
    """A linear reading of visemes of four frames from the latents around a mouth.

    Trained beside the codec, it gives the latents a direction for each way a mouth moves. Nothing
    of it is kept.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.read = nn.Linear(channels * WINDOW**2, FRAMES_PER_LATENT * len(VISEMES))

    def forward(self, latents: Tensor, mouths: Tensor) -> Tensor:
        """``(B, T, 4, 6)`` of latents ``(B, T, C, h, w)``; mouth centres ``(B, 2)`` in pixels."""
        crops = mouth_crops(latents, mouths / CELL_PX, WINDOW).flatten(1)
        read = self.read(crops).unflatten(-1, (FRAMES_PER_LATENT, -1))
        return read.unflatten(0, latents.shape[:2])


def viseme_error(read: Tensor, visemes: Tensor) -> Tensor:
    """Mean squared error in units of each viseme's spread, of what is known (films are NaN)."""
    spread = torch.tensor(VISEME_SPREADS, device=read.device)
    known = ~visemes.isnan()
    error = torch.where(known, (read - visemes.nan_to_num()) / spread, 0.0)
    return error.square().sum() / known.sum().clamp(min=1)
