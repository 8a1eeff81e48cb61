"""The codec of the embedded model: four frames to 64 tokens, beside the reference picture.

Latents describe the *change* against the reference picture. Encoder and decoder are small learnt
networks (``codec.latent_networks``); the decoder takes the reference's own pixels from where the
change says and draws what they lack (``codec.warp``), so what rests stays sharp. What the
transformer sees of the reference are principal components of its patches, fitted in closed form.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.codec.blinks import BlinkPlan, Blinks
from joyflash_cli.codec.latent_networks import ChangeEncoder, LatentDecoder
from joyflash_cli.codec.restraint import draw_below
from joyflash_cli.codec.seams import smooth_seam
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
        latent_channels: Numbers per position of the latents' grid, which has one for 8 x 8 pixels.
        patch_px: Side of the patches whose components describe the reference: a token's side.
        encoder_dim: Width of the encoder on the quarter-resolution grid.
        latent_dim: Width of encoder and decoder on the latents' grid.
        num_latent_layers: Residual layers there, of each of the two.
        decoder_dim: Width of the networks that move and draw.
        num_flow_layers: Residual layers that read the motion.
        num_drawing_layers: Residual layers that draw what the reference lacks.
        reference_dim: Width of the reference features kept in the stream state.
        detail_scale: Frames are this many times as large as what the networks see; the rest is
            the reference's own fine detail, moved along. 1 leaves it out.
        seam_limit: Jumps between two latents that are spread over frames; see ``codec.seams``.
        flow_seam_limit: Likewise of the motion, in pixels as the networks see them.
        blink_every_frames: Video frames from one blink to the next, on average; 0 never blinks.
        draw_below: Share of the height above which the reference is only moved, but for lids, in
            streams; 0 draws everywhere. See ``codec.restraint``.
    """

    latent_channels: int = 12
    patch_px: int = 16
    encoder_dim: int = 96
    latent_dim: int = 128
    num_latent_layers: int = 3
    decoder_dim: int = 80
    num_flow_layers: int = 4
    num_drawing_layers: int = 4
    reference_dim: int = 48
    detail_scale: int = 1
    seam_limit: float = 0.1
    flow_seam_limit: float = 2.0
    blink_every_frames: int = 0
    draw_below: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            {
                "patch_px": (1, 512),
                "latent_channels": (1, 1 << 10),
                **dict.fromkeys(("encoder_dim", "latent_dim"), (1, 1 << 14)),
                **dict.fromkeys(("decoder_dim", "reference_dim"), (8, 1 << 14)),
                **dict.fromkeys(
                    ("num_latent_layers", "num_flow_layers", "num_drawing_layers"), (0, 256)
                ),
                "detail_scale": (1, 16),
                "seam_limit": (0.0, 2.0),
                "flow_seam_limit": (0.0, 64.0),
                "blink_every_frames": (0, 1 << 20),
                "draw_below": (0.0, 1.0),
            },
        )
        if self.patch_px % (2 * FOLD):
            raise ConfigError(f"patch_px {self.patch_px} must be a multiple of {2 * FOLD}.")
        for name in ("decoder_dim", "reference_dim"):  # their layers normalise eight groups
            if getattr(self, name) % 8:
                raise ConfigError(f"{name} {getattr(self, name)} must be a multiple of 8.")

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
        reference_features: ``(B, D, H/4, W/4)``.
        reference_grid: The same reduced to the latents' grid.
        memories: What each remembering layer saw at the previous latent; empty at the start.
        last_frame: The newest frame ``(B, 3, s H, s W)``; ``None`` at the start.
        last_flow: How the reference was moved for it, ``(B, 2, H/2, W/2)``; likewise.
        num_latents: Latent frames decoded so far.
        blinks: When the lids close; ``None`` leaves them to the latents.
    """

    reference: Tensor
    reference_features: Tensor
    reference_grid: Tensor
    detail: Tensor | None = None
    memories: tuple[Tensor, ...] = ()
    last_frame: Tensor | None = None
    last_flow: Tensor | None = None
    num_latents: int = 0
    blinks: Blinks | None = None


class TinyCodec(nn.Module):
    """Latents <-> frames at small sizes; see ``codec.protocol.Codec``."""

    basis: Tensor
    coefficient_mean: Tensor
    coefficient_std: Tensor

    def __init__(self, config: TinyCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_channels = config.latent_channels
        self.spatial_stride = config.detail_scale * config.patch_px // 2
        size, k = 3 * config.patch_px**2, 4 * config.latent_channels
        self.register_buffer("basis", torch.randn(size, k) * size**-0.5)
        self.register_buffer("coefficient_mean", torch.zeros(k))
        self.register_buffer("coefficient_std", torch.ones(k))
        channels, width, layers = (
            config.latent_channels, config.latent_dim, config.num_latent_layers
        )  # fmt: skip
        self.encoder = ChangeEncoder(channels, config.encoder_dim, width, layers)
        reference_dim = 3 * FOLD**2 + config.reference_dim
        self.decoder = LatentDecoder(channels, reference_dim, width, config.decoder_dim, layers)
        self.warp = WarpDecoder(
            WarpSizes(
                config.decoder_dim,
                config.num_flow_layers,
                config.num_drawing_layers,
                config.reference_dim,
                config.decoder_dim,
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

    def components(self, pictures: Tensor) -> Tensor:
        """Patches of pictures ``(B, 3, H, W)``: ``(B, 768, h, w)``, numbers as (colour, y, x)."""
        return functional.pixel_unshuffle(pictures, self.config.patch_px)

    def reference_latents(self, reference: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Whitened components of the reference's patches; what the transformer sees."""
        patches = self.components(self._reduced(reference))
        found = torch.einsum("bnhw,nk->bkhw", patches, self.basis)
        mean, std = self.coefficient_mean[:, None, None], self.coefficient_std[:, None, None]
        return functional.pixel_shuffle((found - mean) / std, 2)

    def encode_latent(self, frames: Tensor, reference: Tensor) -> Tensor:
        """Latent ``(B, C, h, w)`` of four frames ``(B, 4, 3, H, W)`` as the networks see them."""
        return self.encoder(frames, reference).float()

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

    def start_decoding(
        self, reference: Float[Tensor, "B 3 H W"], *, seed: int | None = None
    ) -> TinyDecodingState:
        """A fresh stream with this reference picture; a seed lets it blink."""
        small = self._reduced(reference)
        detail = None
        if self.config.detail_scale > 1:
            detail = reference.float() - self._enlarged(small)
        features = self.warp.encode_reference(small)
        blinks = None
        if seed is not None and self.config.blink_every_frames:
            blinks = BlinkPlan(seed, self.config.blink_every_frames)
        return TinyDecodingState(
            small, features, self.decoder.prepare(features), detail, blinks=blinks
        )

    def _with_detail(
        self, frames: Tensor, drawing: Drawing, flow: Tensor, state: TinyDecodingState
    ) -> Tensor:
        """Frames ``(B, 12, H, W)`` in their full size, with the reference's own fine detail."""
        if state.detail is None:
            return frames
        with torch.autocast(frames.device.type, enabled=False):
            detail = move_reference(state.detail, flow)
            share = self._enlarged(drawing.copied).clamp(0, 1).repeat_interleave(3, 1)
            return self._enlarged(frames) + share * detail

    def _moved_smoothly(self, drawing: Drawing, state: TinyDecodingState) -> tuple[Tensor, Tensor]:
        """Frames and flow of one latent whose motion goes on from where the last one ended."""
        if state.last_flow is None or not self.config.flow_seam_limit:
            return drawing.frames, drawing.flow
        flow = drawing.flow.unflatten(1, (FRAMES_PER_LATENT, 2))
        flow = smooth_seam(flow, state.last_flow, limit=self.config.flow_seam_limit).flatten(1, 2)
        with torch.autocast(flow.device.type, enabled=False):
            change = move_reference(state.reference.float(), flow) - drawing.moved
            share = drawing.copied.repeat_interleave(3, 1)
            return drawing.frames + share * change, flow

    def draw(
        self, latents: Tensor, state: TinyDecodingState, lids: Tensor
    ) -> tuple[Drawing, tuple[Tensor, ...]]:
        """Frames of the latents with what the networks say about them, and the new memories.

        Args:
            latents: ``(B, T, C, h, w)``.
            state: Of the stream.
            lids: How far the eyelids are closed ``(B, T, 4)``, 0 open .. 1.
        """
        time = latents.shape[1]
        hints, change = self.decoder(
            latents.flatten(0, 1), state.reference_grid.repeat_interleave(time, 0)
        )
        still = state.reference.float().repeat(1, FRAMES_PER_LATENT, 1, 1)
        memory = Memory(state.memories, time)
        drawing = self.warp(
            change + still.repeat_interleave(time, 0),
            state.reference.float().repeat_interleave(time, 0),
            features=state.reference_features.repeat_interleave(time, 0),
            hints=hints,
            lids=lids.flatten(0, 1),
            memory=memory,
        )
        return drawing, tuple(memory.newest)

    def decode(
        self, latents: Float[Tensor, "B T C h w"], state: TinyDecodingState
    ) -> tuple[Float[Tensor, "B F 3 H W"], TinyDecodingState]:
        """Frames of the next latents, one latent at a time so that chunking changes no bit."""
        chunks = []
        for index in range(latents.shape[1]):
            latent = latents[:, index : index + 1]
            lids = latent.new_zeros(len(latent), 1, FRAMES_PER_LATENT)
            if state.blinks is not None:
                lids = lids + latent.new_tensor(state.blinks.closures(state.num_latents))
            drawing, memories = self.draw(latent, state, lids)
            drawing = draw_below(drawing, self.config.draw_below, lids.flatten(0, 1))
            frames, flow = self._moved_smoothly(drawing, state)
            frames = self._with_detail(frames, drawing, flow, state)
            frames = frames.unflatten(1, (FRAMES_PER_LATENT, 3))
            if state.last_frame is None:
                # The very first latent stands for a single frame, as in the Wan VAE.
                frames = frames[:, FRAMES_PER_LATENT - 1 :]
            else:
                frames = smooth_seam(frames, state.last_frame, limit=self.config.seam_limit)
            chunks.append(frames.clamp(-1, 1))
            state = replace(
                state,
                memories=memories,
                last_frame=chunks[-1][:, -1],
                last_flow=flow[:, -2:],
                num_latents=state.num_latents + 1,
            )
        return torch.cat(chunks, 1), state
