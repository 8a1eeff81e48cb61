"""The window: blocks being denoised together, oldest first."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.sampler.psb import NoiseLevel


@dataclass(frozen=True)
class WindowBlock:
    """One block on its way from noise to clean.

    Attributes:
        index: Position in the stream, from 0.
        latents: ``(B, T, C, H, W)`` at the noise of ``level``.
        level: Fine level, see ``schedule``.
        num_steps: Denoising steps taken so far.
    """

    index: int
    latents: Tensor
    level: int
    num_steps: int = 0

    def moved_to(self, level: int, latents: Float[Tensor, "B T C H W"]) -> "WindowBlock":
        """The block after one more step."""
        return replace(self, level=level, latents=latents, num_steps=self.num_steps + 1)


def window_latents(window: list[WindowBlock]) -> Float[Tensor, "B T C H W"]:
    """All blocks of the window as one sequence."""
    return torch.cat([block.latents for block in window], dim=1)


def window_noise(
    window: list[WindowBlock], levels: dict[int, NoiseLevel], block_frames: int
) -> list[NoiseLevel]:
    """Noise level of every latent frame of the window."""
    return [levels[block.level] for block in window for _ in range(block_frames)]


def split_blocks(
    latents: Float[Tensor, "B T C H W"], num_blocks: int
) -> tuple[Float[Tensor, "B T2 C H W"], ...]:
    """A sequence cut into ``num_blocks`` equal blocks."""
    return latents.chunk(num_blocks, dim=1)
