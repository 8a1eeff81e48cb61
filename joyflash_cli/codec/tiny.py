"""The codec of the embedded model: four frames to 64 tokens, beside the reference picture.

Latents are the *change* against the reference picture, so a latent of zeros is a copy of it.
The encoder is linear: principal components of such changes in patches of 4 x 16 x 16 pixels. The
decoder adds the change to the reference itself, so what rests stays sharp; a small network on the
quarter-resolution grid then corrects the frames. It sees the reference at every frame and remembers
the previous latent, so blocks join without a seam.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.errors import ConfigError

FRAMES_PER_LATENT = 4
GRID = 4
"""The correcting network works on pixels folded 4 x 4 into channels."""

CORRECTION_SCALE = 0.1
"""Corrections are small beside the picture; the scale keeps the optimiser's steps small too."""


@dataclass(frozen=True)
class TinyCodecConfig:
    """Sizes of the codec.

    Attributes:
        patch_px: Pixels of a token's side.
        num_coefficients: Numbers per token; four times ``latent_channels``.
        decoder_dim: Width of the decoder's correcting network.
        num_decoder_layers: Residual layers of it; 0 leaves the decoder linear.
        reference_dim: Width of the reference features kept in the stream state.
    """

    patch_px: int = 16
    num_coefficients: int = 192
    decoder_dim: int = 112
    num_decoder_layers: int = 0
    reference_dim: int = 64

    def __post_init__(self) -> None:
        if self.patch_px % (2 * GRID) or self.num_coefficients % 4:
            raise ConfigError(
                f"patch_px {self.patch_px} must be a multiple of {2 * GRID} and "
                f"num_coefficients {self.num_coefficients} a multiple of 4."
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TinyCodecConfig":
        """The configuration of a checkpoint.

        Raises:
            ConfigError: For an unknown key.
        """
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise ConfigError(f"Unknown codec keys: {', '.join(sorted(unknown))}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)


@dataclass(frozen=True)
class TinyDecodingState:
    """State of one decoded stream.

    Attributes:
        reference: The picture ``(B, 3, H, W)``.
        reference_features: ``(B, D, H/4, W/4)``; ``None`` for a linear decoder.
        memories: What each remembering layer saw at the previous latent; empty at the start.
        num_latents: Latent frames decoded so far.
    """

    reference: Tensor
    reference_features: Tensor | None = None
    memories: tuple[Tensor, ...] = ()
    num_latents: int = 0


def start_at_zero(convolution: nn.Conv2d) -> None:
    """Make a convolution give zeros until it is trained."""
    nn.init.zeros_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


class ResidualLayer(nn.Module):
    """Two 3 x 3 convolutions behind a group norm, added to the input; starts as the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, dim)
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


class FrameCorrection(nn.Module):
    """The network behind the linear decoder, on pixels folded 4 x 4 into channels."""

    def __init__(self, config: TinyCodecConfig) -> None:
        super().__init__()
        dim, steps = config.decoder_dim, config.patch_px // GRID
        folded, folded_reference = 3 * FRAMES_PER_LATENT * GRID**2, 3 * GRID**2
        self.upscale = steps
        self.reference_encoder = nn.Sequential(
            nn.Conv2d(folded_reference, config.reference_dim, 3, padding=1),
            ResidualLayer(config.reference_dim),
            ResidualLayer(config.reference_dim),
            ResidualLayer(config.reference_dim),
        )
        self.from_frames = nn.Conv2d(
            folded + folded_reference + config.reference_dim, dim, 3, padding=1
        )
        self.from_latents = nn.Conv2d(config.num_coefficients, 32 * steps**2, 1)
        self.from_latents_out = nn.Conv2d(32, dim, 3, padding=1)
        self.layers = nn.ModuleList(
            MemoryLayer(dim) if i in (1, 3) else ResidualLayer(dim)
            for i in range(config.num_decoder_layers)
        )
        self.output_norm = nn.GroupNorm(8, dim)
        self.to_frames = nn.Conv2d(dim, folded, 3, padding=1)
        start_at_zero(self.to_frames)

    def encode_reference(self, reference: Tensor) -> Tensor:
        """Features ``(B, D, H/4, W/4)`` of the reference, once per stream."""
        folded = functional.pixel_unshuffle(reference, GRID)
        return torch.cat([folded, self.reference_encoder(folded)], 1)

    def forward(
        self, linear: Tensor, latents: Tensor, state: TinyDecodingState, *, num_latents: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Correction ``(B * T, 12, H, W)`` of the linear frames, and the new memories."""
        assert state.reference_features is not None
        features = state.reference_features.repeat_interleave(num_latents, 0)
        hidden = self.from_frames(
            torch.cat([functional.pixel_unshuffle(linear, GRID), features], 1)
        )
        fine = functional.pixel_shuffle(self.from_latents(latents), self.upscale)
        hidden = hidden + self.from_latents_out(fine)
        memories: list[Tensor] = []
        for layer in self.layers:
            if isinstance(layer, MemoryLayer):
                steps = hidden.unflatten(0, (-1, num_latents))
                first = state.memories[len(memories)] if state.memories else steps[:, 0]
                memories.append(steps[:, -1])
                previous = torch.cat([first[:, None], steps[:, :-1]], 1).flatten(0, 1)
                hidden = layer(hidden, previous)
            else:
                hidden = layer(hidden)
        fine = self.to_frames(functional.silu(self.output_norm(hidden))) * CORRECTION_SCALE
        return functional.pixel_shuffle(fine, GRID), tuple(memories)


class TinyCodec(nn.Module):
    """Latents <-> frames at small sizes; see ``codec.protocol.Codec``."""

    basis: Tensor
    coefficient_mean: Tensor
    coefficient_std: Tensor
    change_gain: Tensor

    def __init__(self, config: TinyCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_channels = config.num_coefficients // 4
        self.spatial_stride = config.patch_px // 2
        size = 3 * FRAMES_PER_LATENT * config.patch_px**2
        k = config.num_coefficients
        self.register_buffer("basis", torch.randn(size, k) * size**-0.5)
        self.register_buffer("coefficient_mean", torch.zeros(k))
        self.register_buffer("coefficient_std", torch.ones(k))
        self.register_buffer("change_gain", torch.ones(()))
        if config.num_decoder_layers:
            self.correction = FrameCorrection(config)

    def _patches(self, frames: Tensor) -> Tensor:
        """``(B, 4, 3, H, W)`` to ``(B, 3072, h, w)``; a number is (time, colour, y, x)."""
        batch, time, channels, height, width = frames.shape
        folded = frames.reshape(batch, time * channels, height, width)
        return functional.pixel_unshuffle(folded, self.config.patch_px)

    def _coefficients(self, frames: Tensor) -> Tensor:
        return torch.einsum("bnhw,nk->bkhw", self._patches(frames), self.basis)

    def _still_coefficients(self, reference: Tensor) -> Tensor:
        return self._coefficients(reference[:, None].expand(-1, FRAMES_PER_LATENT, -1, -1, -1))

    def _fold(self, coefficients: Tensor) -> Tensor:
        return functional.pixel_shuffle(coefficients, 2)

    def reference_latents(self, reference: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Whitened coefficients of the still reference; what the transformer sees."""
        still = self._still_coefficients(reference)
        mean, std = self.coefficient_mean[:, None, None], self.coefficient_std[:, None, None]
        return self._fold((still - mean) / std)

    def encode_latent(self, frames: Tensor, reference: Tensor) -> Tensor:
        """Latent ``(B, C, h, w)`` of four frames ``(B, 4, 3, H, W)``."""
        change = self._coefficients(frames - reference[:, None])
        return self._fold(change * self.change_gain)

    def encode(
        self, frames: Float[Tensor, "B F 3 H W"], reference: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B T C h w"]:
        """Latents of a clip of 4T-3 frames; the first frame fills the first latent alone."""
        still = frames[:, :1].expand(-1, FRAMES_PER_LATENT - 1, -1, -1, -1)
        padded = torch.cat([still, frames], 1)
        if padded.shape[1] % FRAMES_PER_LATENT:
            raise ConfigError(f"{frames.shape[1]} frames are not 4T-3.")
        groups = padded.unflatten(1, (-1, FRAMES_PER_LATENT))
        batch, time = groups.shape[:2]
        latents = self.encode_latent(groups.flatten(0, 1), reference.repeat_interleave(time, 0))
        return latents.unflatten(0, (batch, time))

    def start_decoding(self, reference: Float[Tensor, "B 3 H W"]) -> TinyDecodingState:
        """A fresh stream with this reference picture."""
        if not self.config.num_decoder_layers:
            return TinyDecodingState(reference)
        return TinyDecodingState(reference, self.correction.encode_reference(reference))

    def _synthesise(self, latents: Tensor, state: TinyDecodingState) -> tuple[Tensor, Tensor]:
        """The change ``(B * T, K, h, w)`` and the linear frames ``(B * T, 12, H, W)``."""
        change = functional.pixel_unshuffle(latents.flatten(0, 1), 2) / self.change_gain
        patches = torch.einsum("bkhw,nk->bnhw", change, self.basis)
        moved = functional.pixel_shuffle(patches, self.config.patch_px)
        still = state.reference.float().repeat(1, FRAMES_PER_LATENT, 1, 1)
        return change, moved + still.repeat_interleave(latents.shape[1], 0)

    def decode_together(
        self, latents: Tensor, state: TinyDecodingState
    ) -> tuple[Tensor, TinyDecodingState]:
        """Four frames per latent, ``(B, T, 4, 3, H, W)``, all latents in one batch.

        The fast form for training; ``decode`` is the streaming form with the same numbers.
        """
        batch, time = latents.shape[:2]
        # The linear part is cheap and carries most of the picture: no autocast.
        with torch.autocast(latents.device.type, enabled=False):
            change, linear = self._synthesise(latents.float(), state)
        memories = state.memories
        if self.config.num_decoder_layers:
            correction, memories = self.correction(
                linear, change * self.change_gain, state, num_latents=time
            )
            linear = linear + correction.float()
        frames = linear.unflatten(1, (FRAMES_PER_LATENT, 3)).unflatten(0, (batch, time))
        new_state = TinyDecodingState(
            state.reference, state.reference_features, memories, state.num_latents + time
        )
        return frames, new_state

    def decode(
        self, latents: Float[Tensor, "B T C h w"], state: TinyDecodingState
    ) -> tuple[Float[Tensor, "B F 3 H W"], TinyDecodingState]:
        """Frames of the next latents, one latent at a time so that chunking changes no bit."""
        chunks = []
        for index in range(latents.shape[1]):
            is_first = state.num_latents == 0
            frames, state = self.decode_together(latents[:, index : index + 1], state)
            # The very first latent stands for a single frame, as in the Wan VAE.
            chunks.append(frames[:, 0, FRAMES_PER_LATENT - 1 :] if is_first else frames[:, 0])
        return torch.cat(chunks, 1).clamp(-1, 1), state
