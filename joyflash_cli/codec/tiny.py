"""The codec of the embedded model: four frames to 64 tokens, beside the reference picture.

Latents are the *change* against the reference picture, so a latent of zeros is a copy of it.
The encoder is linear: principal components of such changes in patches of 4 x 16 x 16 pixels. The
decoder adds the change to the reference itself, so what rests stays sharp; ``codec.warp`` then
makes the frames crisp.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.codec.warp import (
    FOLD,
    FRAMES_PER_LATENT,
    Drawing,
    Memory,
    WarpDecoder,
    WarpSizes,
    move_reference,
)
from joyflash_cli.config import check_ranges
from joyflash_cli.errors import ConfigError


@dataclass(frozen=True)
class TinyCodecConfig:
    """Sizes of the codec.

    Attributes:
        patch_px: Pixels of a token's side.
        num_coefficients: Numbers per token; four times ``latent_channels``.
        decoder_dim: Width of the warp decoder's networks; 0 leaves the decoder linear.
        num_flow_layers: Residual layers that read the motion.
        num_drawing_layers: Residual layers that draw what the reference lacks.
        reference_dim: Width of the reference features kept in the stream state.
        detail_scale: Frames are this many times as large as what the networks see; the rest is
            the reference's own fine detail, moved along. 1 leaves it out.
    """

    patch_px: int = 16
    num_coefficients: int = 192
    decoder_dim: int = 80
    num_flow_layers: int = 4
    num_drawing_layers: int = 4
    reference_dim: int = 48
    detail_scale: int = 1

    def __post_init__(self) -> None:
        check_ranges(
            self,
            {
                "patch_px": (1, 512),
                "num_coefficients": (4, 1 << 14),
                **dict.fromkeys(("decoder_dim", "reference_dim"), (0, 1 << 14)),
                **dict.fromkeys(("num_flow_layers", "num_drawing_layers"), (0, 256)),
                "detail_scale": (1, 16),
            },
        )
        if self.patch_px % (2 * FOLD) or self.num_coefficients % 4:
            raise ConfigError(
                f"patch_px {self.patch_px} must be a multiple of {2 * FOLD} and "
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
        reference: The picture as the networks see it, ``(B, 3, H, W)``.
        detail: What a larger picture shows beyond it, ``(B, 3, s H, s W)``; ``None`` at scale 1.
        reference_features: ``(B, D, H/4, W/4)``; ``None`` for a linear decoder.
        memories: What each remembering layer saw at the previous latent; empty at the start.
        num_latents: Latent frames decoded so far.
    """

    reference: Tensor
    detail: Tensor | None = None
    reference_features: Tensor | None = None
    memories: tuple[Tensor, ...] = ()
    num_latents: int = 0


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
        self.spatial_stride = config.detail_scale * config.patch_px // 2
        size = 3 * FRAMES_PER_LATENT * config.patch_px**2
        k = config.num_coefficients
        self.register_buffer("basis", torch.randn(size, k) * size**-0.5)
        self.register_buffer("coefficient_mean", torch.zeros(k))
        self.register_buffer("coefficient_std", torch.ones(k))
        self.register_buffer("change_gain", torch.ones(()))
        if config.decoder_dim:
            self.warp = WarpDecoder(
                WarpSizes(
                    config.decoder_dim,
                    config.num_flow_layers,
                    config.num_drawing_layers,
                    config.reference_dim,
                )
            )

    def _reduced(self, pictures: Tensor) -> Tensor:
        """Pictures ``(..., H, W)`` at the size the networks see."""
        if self.config.detail_scale == 1:
            return pictures
        small = functional.avg_pool2d(pictures.flatten(0, -4).float(), self.config.detail_scale)
        return small.unflatten(0, pictures.shape[:-3])

    def _enlarged(self, pictures: Tensor) -> Tensor:
        """Pictures ``(B, C, H, W)`` at the size of the frames."""
        return functional.interpolate(
            pictures.float(), scale_factor=self.config.detail_scale, mode="bicubic"
        )

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
        still = self._still_coefficients(self._reduced(reference))
        mean, std = self.coefficient_mean[:, None, None], self.coefficient_std[:, None, None]
        return self._fold((still - mean) / std)

    def encode_latent(self, frames: Tensor, reference: Tensor) -> Tensor:
        """Latent ``(B, C, h, w)`` of four frames ``(B, 4, 3, H, W)`` as the networks see them."""
        change = self._coefficients(frames - reference[:, None])
        return self._fold(change * self.change_gain)

    def encode(
        self, frames: Float[Tensor, "B F 3 H W"], reference: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B T C h w"]:
        """Latents of a clip of 4T-3 frames; the first frame fills the first latent alone."""
        frames, reference = self._reduced(frames), self._reduced(reference)
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
        small = self._reduced(reference)
        detail = None
        if self.config.detail_scale > 1:
            detail = reference.float() - self._enlarged(small)
        features = self.warp.encode_reference(small) if self.config.decoder_dim else None
        return TinyDecodingState(small, detail, features)

    def _synthesise(self, latents: Tensor, state: TinyDecodingState) -> Tensor:
        """The linear frames ``(B * T, 12, H, W)``."""
        change = functional.pixel_unshuffle(latents.flatten(0, 1), 2) / self.change_gain
        patches = torch.einsum("bkhw,nk->bnhw", change, self.basis)
        moved = functional.pixel_shuffle(patches, self.config.patch_px)
        still = state.reference.float().repeat(1, FRAMES_PER_LATENT, 1, 1)
        return moved + still.repeat_interleave(latents.shape[1], 0)

    def decode_together(
        self, latents: Tensor, state: TinyDecodingState
    ) -> tuple[Tensor, TinyDecodingState]:
        """Four frames per latent, ``(B, T, 4, 3, H, W)``, all latents in one batch.

        The fast form for training; ``decode`` is the streaming form with the same numbers.
        """
        time = latents.shape[1]
        drawing, memories = self.draw(latents, state)
        frames = drawing.frames
        if state.detail is not None:
            with torch.autocast(latents.device.type, enabled=False):
                detail = move_reference(state.detail.repeat_interleave(time, 0), drawing.flow)
                share = self._enlarged(drawing.copied).clamp(0, 1).repeat_interleave(3, 1)
                frames = self._enlarged(frames) + share * detail
        frames = frames.unflatten(1, (FRAMES_PER_LATENT, 3)).unflatten(0, latents.shape[:2])
        new_state = replace(state, memories=memories, num_latents=state.num_latents + time)
        return frames, new_state

    def draw(self, latents: Tensor, state: TinyDecodingState) -> tuple[Drawing, tuple[Tensor, ...]]:
        """Frames of the latents with what the networks say about them, and the new memories."""
        # The linear part is cheap and carries most of the picture: no autocast.
        with torch.autocast(latents.device.type, enabled=False):
            linear = self._synthesise(latents.float(), state)
        if not self.config.decoder_dim:
            flow = linear.new_zeros(len(linear), 8, linear.shape[2] // 2, linear.shape[3] // 2)
            return Drawing(linear, flow, torch.zeros_like(linear[:, :FRAMES_PER_LATENT])), ()
        assert state.reference_features is not None
        time = latents.shape[1]
        memory = Memory(state.memories, time)
        drawing = self.warp(
            linear,
            state.reference.float().repeat_interleave(time, 0),
            state.reference_features.repeat_interleave(time, 0),
            memory,
        )
        return drawing, tuple(memory.newest)

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
