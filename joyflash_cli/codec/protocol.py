"""What a codec is: latents to frames and back, with every bit of stream state outside the module.

Time: latent frame 0 is video frame 0; latent frame i >= 1 is video frames 4i-3 .. 4i. T latent
frames are 4T-3 video frames, so blocks of three latents decode to 9, 12, 12, ... frames.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor


@runtime_checkable  # so that tests may check annotations
class Encoder(Protocol):
    """Frames to latents."""

    latent_channels: int
    spatial_stride: int
    """Pixels per latent row or column."""

    def reference_latents(self, reference: Tensor) -> Tensor:
        """Conditioning latents of the reference picture.

        Args:
            reference: ``(B, 3, H, W)`` in -1..1.

        Returns:
            ``(B, C, h, w)``; what the transformer sees as the reference.
        """
        ...

    def encode(self, frames: Tensor, reference: Tensor) -> Tensor:
        """Latents ``(B, T, C, h, w)`` of a whole clip ``(B, 4T-3, 3, H, W)`` in -1..1.

        ``reference`` is ``(B, 3, H, W)``; the clip's first frame for codecs that ignore it.
        """
        ...


@runtime_checkable
class Codec(Encoder, Protocol):
    """Latents <-> frames; a stream's state is made by ``start_*`` and passed to every call."""

    def start_decoding(self, reference: Tensor, *, seed: int | None = None) -> Any:
        """A fresh decoding state.

        Args:
            reference: The stream's reference picture, ``(B, 3, H, W)`` in -1..1.
            seed: Of what the codec adds of its own, as the embedded one's blinks; nothing is added
                if ``None``, as when clips are reconstructed.
        """
        ...

    def decode(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Frames of the next latents and the state after them.

        Args:
            latents: ``(B, T, C, h, w)``, any T >= 1.
            state: From ``start_decoding`` or the previous call; not changed in place.

        Returns:
            ``(B, F, 3, H, W)`` in -1..1 and the new state. Any chunking of the latents gives the
            same bits.
        """
        ...


class DelegatingCodec:
    """``Codec`` that hands everything to another one; a subclass changes what it is there for.

    Args:
        codec: The other one; as much of it as the subclass leaves.
    """

    def __init__(self, codec: Encoder) -> None:
        self._codec: Any = codec
        self.latent_channels = codec.latent_channels
        self.spatial_stride = codec.spatial_stride

    def reference_latents(self, reference: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Conditioning latents of the reference picture."""
        return self._codec.reference_latents(reference)

    def padded_clip_latents(
        self, reference: Float[Tensor, "B 3 H W"], num_latents: int
    ) -> Float[Tensor, "B T C h w"]:
        """Latents of the picture followed by grey frames, for codecs that know them."""
        return self._codec.padded_clip_latents(reference, num_latents)

    def encode(
        self, frames: Float[Tensor, "B F 3 H W"], reference: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B T C h w"]:
        """Latents of a whole clip."""
        return self._codec.encode(frames, reference)

    def start_decoding(self, reference: Float[Tensor, "B 3 H W"], **options: Any) -> Any:
        """A fresh decoding state."""
        return self._codec.start_decoding(reference, **options)

    def decode(
        self, latents: Float[Tensor, "B T C h w"], state: Any
    ) -> tuple[Num[Tensor, "B F 3 H W"], Any]:
        """Frames of the next latents and the state after them."""
        return self._codec.decode(latents, state)


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
