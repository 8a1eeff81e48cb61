"""A codec on a device of its own: what goes in and comes out is moved, nothing else changes."""

from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from joyflash_cli.codec.protocol import Codec, DelegatingCodec


class PlacedCodec(DelegatingCodec):
    """``Codec`` whose weights and stream state are on another device than the transformer.

    Latents and pictures are moved there, latents for the transformer are moved back. Decoded
    frames stay where they are: they go to the CPU next.

    Args:
        codec: Already on ``device``.
        device: Where the codec computes.
        home: Where the transformer computes.
    """

    def __init__(self, codec: Codec, *, device: torch.device, home: torch.device) -> None:
        super().__init__(codec)
        self._device = device
        self._home = home

    def reference_latents(self, reference: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Conditioning latents of the reference picture, for the transformer."""
        return super().reference_latents(reference.to(self._device)).to(self._home)

    def padded_clip_latents(
        self, reference: Float[Tensor, "B 3 H W"], num_latents: int
    ) -> Float[Tensor, "B T C h w"]:
        """Latents of the picture followed by grey frames, for the transformer."""
        return super().padded_clip_latents(reference.to(self._device), num_latents).to(self._home)

    def encode(
        self, frames: Float[Tensor, "B F 3 H W"], reference: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B T C h w"]:
        """Latents of a whole clip, for the transformer."""
        latents = super().encode(frames.to(self._device), reference.to(self._device))
        return latents.to(self._home)

    def start_decoding(self, reference: Float[Tensor, "B 3 H W"], **options: Any) -> Any:
        """A fresh decoding state, on the codec's device."""
        return super().start_decoding(reference.to(self._device), **options)

    def decode(
        self, latents: Float[Tensor, "B T C h w"], state: Any
    ) -> tuple[Num[Tensor, "B F 3 H W"], Any]:
        """Frames of the next latents, on the codec's device, and the state after them."""
        return super().decode(latents.to(self._device), state)
