"""A linear reading of visemes from latents, trained beside the codec.

It gives the latents a direction for each way a mouth moves. Nothing of it is kept.
"""

import torch
from torch import Tensor, nn

from joyflash_cli.codec.latent_networks import CELL_PX
from joyflash_cli.codec.warp import FRAMES_PER_LATENT
from joyflash_cli.studio.heads.face_state import VISEMES
from joyflash_cli.studio.training.mouth_critic import mouth_crops

WINDOW = 6
"""Latent positions around the mouth's centre that are read: 48 pixels."""

VISEME_SPREADS = (0.25, 0.2, 0.25, 0.3, 0.25, 0.25)
"""Rough spread of each viseme in speech, so that all count alike."""


class VisemeProbe(nn.Module):
    """Visemes of four frames from the latents around a mouth.

    Args:
        channels: Of a latent frame.
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
    """Mean squared error in units of each viseme's spread."""
    spread = torch.tensor(VISEME_SPREADS, device=read.device)
    return ((read - visemes) / spread).square().mean()
