"""Where noise comes from: one independent draw per stream, kind, block and level.

A draw depends on nothing but these numbers and the seed, so the same seed gives the same video
whatever the batch, the order of work or the number of threads.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.types import on_device

LatentShape = tuple[int, int, int]
"""Channels, rows and columns of a latent frame."""


@runtime_checkable  # so that tests may check annotations
class NoiseSource(Protocol):
    """Standard normal noise for the sampler, all streams of a batch together."""

    def initial(self, block_index: int, num_frames: int) -> Tensor:
        """The pure noise a block starts from, ``(B, T, C, H, W)``."""
        ...

    def renoise(self, block_index: int, level: int, num_frames: int) -> Tensor:
        """Fresh noise that brings a block to ``level``, ``(B, T, C, H, W)``."""
        ...

    def condition(self, block_index: int, level: int) -> Tensor:
        """Fresh noise for the condition frame, ``(B, 1, C, H, W)``.

        Args:
            block_index: First block of the window.
            level: Its level; the pair is different in every iteration.
        """
        ...


class SeededNoise:
    """Noise from a seed, drawn on the CPU so that every device gets the same.

    Args:
        seed: Of the run.
        shape: Channels, rows and columns of a latent frame.
        streams: One number per stream of the batch; a stream's noise depends on its own only.
        device: Where the noise is put.
    """

    def __init__(
        self,
        seed: int,
        shape: LatentShape,
        *,
        streams: Sequence[int] = (0,),
        device: torch.device | str = "cpu",
    ) -> None:
        self.seed = seed
        self.shape = shape
        self.streams = tuple(streams)
        self.device = device

    def initial(self, block_index: int, num_frames: int) -> Float[Tensor, "B T C H W"]:
        """The pure noise a block starts from."""
        return self._draw("initial", block_index, 0, num_frames)

    def renoise(self, block_index: int, level: int, num_frames: int) -> Float[Tensor, "B T C H W"]:
        """Fresh noise that brings a block to ``level``."""
        return self._draw("renoise", block_index, level, num_frames)

    def condition(self, block_index: int, level: int) -> Float[Tensor, "B 1 C H W"]:
        """Fresh noise for the condition frame in front of ``block_index`` at ``level``."""
        return self._draw("condition", block_index, level, 1)

    def _draw(self, kind: str, block_index: int, level: int, num_frames: int) -> Tensor:
        draws = []
        for stream in self.streams:
            key = f"{self.seed}/{stream}/{kind}/{block_index}/{level}".encode()
            digest = hashlib.blake2b(key, digest_size=8).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
            draws.append(torch.randn(num_frames, *self.shape, generator=generator))
        return on_device(torch.stack(draws), self.device)
