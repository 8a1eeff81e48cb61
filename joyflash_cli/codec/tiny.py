"""The codec of the embedded model: four frames to 64 tokens, beside the reference picture.

Latents describe the *change* against the reference picture. Encoder and decoder are small learnt
networks (``codec.networks``); the decoder takes the reference's own pixels from where the change
says and draws what they lack, so what rests stays sharp. What the transformer sees of the reference
are principal components of its patches, fitted in closed form.

Blinks follow neither the voice nor the head, and a latent of 8 x 8 pixels has little room for
eyelids. The codec is told how far they are closed, by a plan that any frame can be looked up in, so
that it has no length, and draws that.
"""

import functools
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.codec.composition import (
    Canvas,
    compose,
    compose_levels,
    draw_below,
    open_canvas,
    read_fields,
    smooth_seam,
)
from joyflash_cli.codec.config import FOLD, TinyCodecConfig
from joyflash_cli.codec.networks import (
    ChangeEncoder,
    Drawing,
    LatentDecoder,
    Memory,
    WarpDecoder,
    WarpSizes,
    move_reference,
)
from joyflash_cli.errors import ConfigError
from joyflash_cli.types import BLINK_SHAPE, FRAMES_PER_LATENT, Scene, Square, to_signed


@runtime_checkable  # so that tests may check annotations
class Blinks(Protocol):
    """How far the lids are closed, latent by latent."""

    def closures(self, latent: int) -> tuple[float, ...]:
        """In a latent's four video frames, 0 open .. 1 closed; latent 0 is frame 0 four times."""
        ...


@dataclass(frozen=True)
class KnownBlinks:
    """The lids of a clip that is reconstructed.

    Attributes:
        track: Closure in each video frame ``(F,)``; the last one goes on for ever.
    """

    track: np.ndarray

    def closures(self, latent: int) -> tuple[float, ...]:
        """See ``Blinks``."""
        return tuple(float(self.track[min(i, len(self.track) - 1)]) for i in frames_of(latent))


def frames_of(latent: int) -> list[int]:
    """Indices of a latent's video frames; latent 0 is frame 0 four times."""
    last = FRAMES_PER_LATENT * latent
    return [max(frame, 0) for frame in range(last - FRAMES_PER_LATENT + 1, last + 1)]


@dataclass(frozen=True)
class BlinkPlan:
    """One blink somewhere in every stretch of equal length.

    Attributes:
        seed: Of the places.
        every_frames: Video frames of a stretch; pauses are this long on average, and up to twice
            as long.
        depth: Closure at the middle of a blink.
    """

    seed: int
    every_frames: int
    depth: float = 1.0

    def closures(self, latent: int) -> tuple[float, ...]:
        """See ``Blinks``."""
        found = []
        for frame in frames_of(latent):
            stretch, place = divmod(frame, self.every_frames)
            moment = place - _blink_start(self.seed, stretch, self.every_frames)
            is_closing = 0 <= moment < len(BLINK_SHAPE)
            found.append(self.depth * BLINK_SHAPE[moment] if is_closing else 0.0)
        return tuple(found)


@functools.lru_cache(maxsize=64)
def _blink_start(seed: int, stretch: int, every_frames: int) -> int:
    """Where in its stretch a blink begins; the first leaves the picture alone for a while."""
    earliest = every_frames // 3 if stretch == 0 else 0
    latest = max(every_frames - len(BLINK_SHAPE), earliest)
    return int(np.random.default_rng([seed, stretch]).integers(earliest, latest + 1))


@dataclass(frozen=True)
class TinyDecodingState:
    """State of one decoded stream.

    Attributes:
        reference: The picture as the networks see it, ``(B, 3, H, W)``.
        canvas: What is drawn into; ``None`` where frames are what the networks draw.
        gives_levels: Whether frames are levels 0..255.
        reference_features: ``(B, D, H/4, W/4)``.
        reference_grid: The same reduced to the latents' grid.
        memories: What each remembering layer saw at the previous latent; empty at the start.
        last_frame: The newest frame as drawn ``(B, 3, H, W)``; ``None`` at the start.
        last_flow: How the reference was moved for it, ``(B, 2, H/2, W/2)``; likewise.
        num_latents: Latent frames decoded so far.
        blinks: When the lids close; ``None`` leaves them to the latents.
    """

    reference: Tensor
    reference_features: Tensor
    reference_grid: Tensor
    canvas: Canvas | None = None
    gives_levels: bool = False
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
        self.is_halved = False
        self.latent_channels = config.latent_channels
        self.spatial_stride = config.detail_scale * config.patch_px // 2
        size, k = 3 * config.patch_px**2, 4 * config.latent_channels
        basis = torch.empty(size, k)
        if not basis.is_meta:  # where drawing gives nothing and imports torch's compiler
            nn.init.normal_(basis, std=size**-0.5)
        self.register_buffer("basis", basis)
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

    def halve(self) -> None:
        """From here on decode with convolutions in bfloat16, their channels last in memory.

        On a CPU with instructions for it 1.3 times as fast; frames differ by less than rounding to
        whole levels makes (72 dB).
        """
        self.is_halved = True
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _reduced(self, pictures: Tensor) -> Tensor:
        """Pictures ``(..., H, W)`` at the size the networks see."""
        if self.config.detail_scale == 1:
            return pictures
        small = functional.avg_pool2d(pictures.flatten(0, -4).float(), self.config.detail_scale)
        return small.unflatten(0, pictures.shape[:-3])

    def reference_latents(self, reference: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Whitened components of the reference's patches; what the transformer sees."""
        patches = functional.pixel_unshuffle(self._reduced(reference), self.config.patch_px)
        found = torch.einsum("bnhw,nk->bkhw", patches, self.basis)
        mean, std = self.coefficient_mean[:, None, None], self.coefficient_std[:, None, None]
        return functional.pixel_shuffle((found - mean) / std, 2)

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
        latents = self.encoder(groups.flatten(0, 1), reference.repeat_interleave(time, 0))
        return latents.float().unflatten(0, (batch, time))

    def start_decoding(
        self,
        reference: Float[Tensor, "B 3 H W"],
        *,
        seed: int | None = None,
        scene: Scene | None = None,
    ) -> TinyDecodingState:
        """A fresh stream with this reference picture; a seed lets it blink.

        Args:
            reference: In -1..1.
            seed: Of the blinks.
            scene: What is drawn into. Frames are then levels 0..255 of the part that may change;
                the state's ``canvas`` says which. For one stream only.
        """
        small = self._reduced(reference)
        canvas = None
        if scene is not None:
            picture = to_signed(scene.pixels)[None].to(reference.device)
            canvas = open_canvas(picture, scene.square, fades=scene.goes_on)
        elif self.config.detail_scale > 1:
            whole = Square(0.0, 0.0, float(reference.shape[-1]))
            canvas = open_canvas(reference.float(), whole, fades=False, nodes=reference.shape[-1])
        features = self.warp.encode_reference(small)
        blinks = None
        if seed is not None and self.config.blink_every_frames:
            blinks = BlinkPlan(seed, self.config.blink_every_frames, self.config.blink_depth)
        return TinyDecodingState(
            small,
            features,
            self.decoder.from_reference(features),
            canvas,
            gives_levels=scene is not None,
            blinks=blinks,
        )

    def _joined(self, drawing: Drawing, state: TinyDecodingState) -> Drawing:
        """The drawing of one latent, whose motion and tones go on from where the last one ended."""
        mouth = self.config.mouth_seam
        if state.last_flow is not None and self.config.flow_seam_limit:
            flow = drawing.flow.unflatten(1, (FRAMES_PER_LATENT, 2))
            limit = self.config.flow_seam_limit
            flow = smooth_seam(flow, state.last_flow, limit=limit, mouth=mouth).flatten(1, 2)
            moved = move_reference(state.reference.float(), flow)
            share = drawing.copied.repeat_interleave(3, 1)
            frames = drawing.frames + share * (moved - drawing.moved)
            drawing = replace(drawing, frames=frames, flow=flow, moved=moved)
        if state.last_frame is not None:
            frames = drawing.frames.unflatten(1, (FRAMES_PER_LATENT, 3))
            limit = self.config.seam_limit
            frames = smooth_seam(frames, state.last_frame, limit=limit, mouth=mouth)
            drawing = replace(drawing, frames=frames.flatten(1, 2))
        return drawing

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

    def _shown(self, drawing: Drawing, state: TinyDecodingState) -> Tensor:
        """Frames of one latent in their full size."""
        # The very first latent stands for a single frame, as in the Wan VAE.
        first = FRAMES_PER_LATENT - 1 if state.last_frame is None else 0
        if state.canvas is None:
            return drawing.frames.unflatten(1, (FRAMES_PER_LATENT, 3))[:, first:].clamp(-1, 1)
        fields = read_fields(drawing, state.canvas, first=first)
        if state.gives_levels:
            return compose_levels(fields, state.canvas)
        return compose(fields, state.canvas)

    def decode(
        self, latents: Float[Tensor, "B T C h w"], state: TinyDecodingState
    ) -> tuple[Num[Tensor, "B F 3 H W"], TinyDecodingState]:
        """Frames of the next latents, one latent at a time so that chunking changes no bit."""
        kind, chunks = latents.device.type, []
        has_autocast = torch.amp.is_autocast_available(kind)
        for index in range(latents.shape[1]):
            latent = latents[:, index : index + 1]
            lids = latent.new_zeros(len(latent), 1, FRAMES_PER_LATENT)
            if state.blinks is not None:
                lids = lids + latent.new_tensor(state.blinks.closures(state.num_latents))
            # Convolutions in bfloat16; sums, positions and blending stay in float32.
            with torch.autocast(kind, torch.bfloat16) if self.is_halved else nullcontext():
                drawing, memories = self.draw(latent, state, lids)
            drawing = draw_below(drawing, self.config.draw_below, lids.flatten(0, 1))
            with torch.autocast(kind, enabled=False) if has_autocast else nullcontext():
                if state.gives_levels and state.last_frame is None:
                    # The first frame of a scene is the picture itself.
                    still = state.reference.float().repeat(1, FRAMES_PER_LATENT, 1, 1)
                    ones, zeros = torch.ones_like(drawing.copied), torch.zeros_like(drawing.flow)
                    drawing = Drawing(still, zeros, ones, coarse=still, moved=still)
                drawing = self._joined(drawing, state)
                chunks.append(self._shown(drawing, state))
            state = replace(
                state,
                memories=memories,
                last_frame=drawing.frames[:, -3:].clamp(-1, 1),
                last_flow=drawing.flow[:, -2:],
                num_latents=state.num_latents + 1,
            )
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks, 1), state
