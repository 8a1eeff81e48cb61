"""TAEHV's encoder, and the codec that encodes and decodes with TAEHV alone (LeapTalk's default).

Where the large VAE groups frames as 1, 4, 4, ..., this one groups them as 4, 4, ...: a clip is
filled up at its end with copies of its last frame. Decoding drops the first three frames, so 4T-3
frames are again 4T-3.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from joyflash_cli.codec.taehv import (
    ENCODER_PREFIX,
    NUM_REMEMBERING,
    RememberingLayer,
    TaehvDecoder,
    TaehvDecodingState,
    other_layout,
    taehv_from_state,
)
from joyflash_cli.types import FRAMES_PER_LATENT

POOLS = (2, 2, 1)
"""Frames that each stage makes one of."""


class TimePool(nn.Module):
    """Consecutive frames to one, by a 1 x 1 convolution over the channels of all of them."""

    def __init__(self, dim: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.conv = nn.Conv2d(dim * pool, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(F, D, H, W)`` to ``(F / pool, D, H, W)``."""
        return self.conv(x.unflatten(0, (-1, self.pool)).flatten(1, 2))


class TaehvEncoder(nn.Module):
    """Frames to latents; the names of its weights are those of the published files."""

    def __init__(self, dim: int, latent_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, dim, 3, padding=1), nn.ReLU()]
        for pool in POOLS:
            layers += [TimePool(dim, pool), nn.Conv2d(dim, dim, 3, stride=2, padding=1, bias=False)]
            layers += [RememberingLayer(dim) for _ in range(NUM_REMEMBERING)]
        layers.append(nn.Conv2d(dim, latent_channels, 3, padding=1))
        self.encoder = nn.ModuleList(layers)

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "F 3 H W"]) -> Float[Tensor, "T C h w"]:
        """Latents of one clip of frames in -1..1, fp32; four frames pass at a time."""
        weight = next(self.parameters())
        shown = (frames + 1) / 2
        missing = -len(shown) % FRAMES_PER_LATENT
        if missing:
            shown = torch.cat((shown, shown[-1:].expand(missing, -1, -1, -1)))
        memories: list[Tensor | None] = [None] * len(self.encoder)
        latents = []
        for part in shown.split(FRAMES_PER_LATENT):
            x = part.to(weight.device, weight.dtype)
            for index, layer in enumerate(self.encoder):
                if isinstance(layer, RememberingLayer):
                    before = memories[index]
                    first = torch.zeros_like(x[:1]) if before is None else before
                    memories[index] = x[-1:].clone()
                    x = layer(x, torch.cat((first, x[:-1])))
                else:
                    x = layer(x)
            latents.append(x.float())
        return torch.cat(latents)


class TaehvCodec:
    """``Codec`` that needs no other one: TAEHV both ways.

    Args:
        encoder: Frames to latents.
        decoder: Latents to frames.
    """

    spatial_stride = 2 ** len(POOLS)

    def __init__(self, encoder: TaehvEncoder, decoder: TaehvDecoder) -> None:
        self._encoder, self._decoder = encoder, decoder
        self.latent_channels: int = decoder.config.latent_channels

    def reference_latents(self, reference: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Latent of the reference picture."""
        return self.encode(reference[:, None], reference)[:, 0]

    def encode(
        self, frames: Float[Tensor, "B F 3 H W"], reference: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B T C h w"]:
        """Normalised latents of a whole clip, fp32; the picture is not needed."""
        return torch.stack([self._encoder.encode(clip) for clip in frames])

    def start_decoding(
        self, reference: Float[Tensor, "B 3 H W"] | None = None, *, seed: int | None = None
    ) -> TaehvDecodingState:
        """A fresh state; the picture is not needed."""
        return self._decoder.start()

    def decode(
        self, latents: Float[Tensor, "B T C h w"], state: TaehvDecodingState
    ) -> tuple[Float[Tensor, "B F 3 H W"], TaehvDecodingState]:
        """Frames of the next latents, and the state after them."""
        return self._decoder.decode(latents, state)


def taehv_codec_from_state(
    state: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> TaehvCodec:
    """Both halves with the weights of a published file.

    Args:
        state: Weights by name.
        dtype: Number format of the weights.
        device: Where they go.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` when a weight is missing, unknown or of another
            shape.
    """
    weights = {name: v for name, v in state.items() if name.startswith(ENCODER_PREFIX)}
    first = weights.get("encoder.0.weight")
    if first is None:
        raise other_layout("it has no encoder")
    decoder = taehv_from_state(state, dtype=dtype, device=device)
    with torch.device("meta"):
        encoder = TaehvEncoder(first.shape[0], decoder.config.latent_channels)
    try:
        encoder.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        raise other_layout(str(error).splitlines()[-1].strip()) from error
    encoder = encoder.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TaehvCodec(encoder.eval().requires_grad_(False), decoder)
