"""The learnt networks of the tiny codec: between pixels and latents, and what makes frames crisp.

They make latents a description of the change ("the mouth opens so far") instead of a sum of
pictures: what lies halfway between two latents decodes to a mouth that is half open, where the
mean of two pictures would be a ghost of both. Encoder and decoder start as a linear codec,
principal components of changes in cells of 8 x 8 pixels, and learn what it lacks.

What they say of a frame is rough: right place, soft edges. Two small networks on the
quarter-resolution grid make it crisp. The first reads how every pixel of the frame moved and takes
it from the reference; the second sees the moved reference beside the coarse frame and draws what
the reference does not show: teeth, the inside of the mouth, lids. Both remember the previous
latent, so blocks join without a seam.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.codec.config import FOLD
from joyflash_cli.types import FRAMES_PER_LATENT


def start_at_zero(convolution: nn.Conv2d) -> None:
    """Make a convolution give zeros until it is trained."""
    nn.init.zeros_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each position, so that a crop gives what the whole gives."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, D, H, W)`` to the same."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class ResidualLayer(nn.Module):
    """Two 3 x 3 convolutions behind a norm, added to the input; starts as the identity.

    Args:
        dim: Width.
        norm: Before the convolutions; a group norm over the whole picture if ``None``.
    """

    def __init__(self, dim: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, dim) if norm is None else norm
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


CELL_PX = 2 * FOLD
"""Side of a latent's cell in pixels: half the grid of folded pixels."""


def _residual_layers(dim: int, count: int) -> nn.Sequential:
    return nn.Sequential(*[ResidualLayer(dim, ChannelNorm(dim)) for _ in range(count)])


class ChangeEncoder(nn.Module):
    """Four frames beside a reference picture to one latent frame.

    Args:
        channels: Of a latent frame.
        dim: Width on the quarter-resolution grid.
        latent_dim: Width on the latents' grid.
        num_layers: Residual layers on the latents' grid.
    """

    def __init__(self, channels: int, dim: int, latent_dim: int, num_layers: int) -> None:
        super().__init__()
        pictures = 3 * (1 + 4) * FOLD**2
        self.components = nn.Conv2d(12, channels, CELL_PX, stride=CELL_PX, bias=False)
        self.from_pixels = nn.Conv2d(pictures, dim, 3, padding=1)
        self.fine_layers = _residual_layers(dim, 2)
        self.reduce = nn.Conv2d(dim, latent_dim, 3, stride=2, padding=1)
        self.layers = _residual_layers(latent_dim, num_layers)
        self.norm = ChannelNorm(latent_dim)
        self.to_latent = nn.Conv2d(latent_dim, channels, 3, padding=1)
        start_at_zero(self.to_latent)

    def forward(self, frames: Tensor, reference: Tensor) -> Tensor:
        """``(N, C, H/8, W/8)`` of frames ``(N, 4, 3, H, W)`` and reference ``(N, 3, H, W)``."""
        change = (frames - reference[:, None]).flatten(1, 2)
        pictures = torch.cat([change, reference], 1)
        hidden = self.from_pixels(functional.pixel_unshuffle(pictures, FOLD))
        hidden = self.layers(self.reduce(self.fine_layers(hidden)))
        return self.components(change) + self.to_latent(functional.silu(self.norm(hidden)))


class LatentDecoder(nn.Module):
    """A latent frame to features on the quarter-resolution grid and a coarse change of pixels.

    Args:
        channels: Of a latent frame.
        reference_dim: Width of the reference's features.
        latent_dim: Width on the latents' grid.
        dim: Width on the quarter-resolution grid.
        num_layers: Residual layers on the latents' grid.
    """

    def __init__(
        self, channels: int, reference_dim: int, latent_dim: int, dim: int, num_layers: int
    ) -> None:
        super().__init__()
        self.components = nn.ConvTranspose2d(channels, 12, CELL_PX, stride=CELL_PX, bias=False)
        self.from_reference = nn.Conv2d(reference_dim, latent_dim, 3, stride=2, padding=1)
        self.from_latent = nn.Conv2d(channels, latent_dim, 3, padding=1)
        self.layers = _residual_layers(latent_dim, num_layers)
        self.norm = ChannelNorm(latent_dim)
        self.enlarge = nn.Conv2d(latent_dim, 4 * dim, 1)
        self.to_change = nn.Conv2d(dim, 3 * 4 * FOLD**2, 3, padding=1)
        start_at_zero(self.to_change)

    def forward(self, latent: Tensor, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(N, dim, H/4, W/4)`` and coarse change ``(N, 12, H, W)`` of latents.

        Args:
            latent: ``(N, C, h, w)``.
            prepared: What ``from_reference`` says of the reference's features, ``(N, D, h, w)``.
        """
        hidden = self.layers(self.from_latent(latent) + prepared)
        hidden = self.enlarge(functional.silu(self.norm(hidden)))
        features = functional.pixel_shuffle(hidden, 2)
        change = functional.pixel_shuffle(self.to_change(functional.silu(features)).float(), FOLD)
        return features, change + self.components(latent).float()


FLOW_FOLD = 2
"""Displacements are given for every second pixel, then made smooth by interpolation."""

FLOW_SCALE_PX = 4.0
"""Displacement of a network output of one, so that moderate weights move by pixels."""

EYES_DIM = 16
"""Width of what tells lids from the rest of the reference."""

DRAWING_SCALE = 0.1
"""Drawn corrections are small beside the picture; the scale keeps the optimiser's steps small."""


@dataclass(frozen=True)
class WarpSizes:
    """Sizes of the two networks.

    Attributes:
        dim: Width of both.
        num_flow_layers: Residual layers that read the motion.
        num_drawing_layers: Residual layers that draw.
        reference_dim: Width of the reference features kept in the stream state.
        hint_dim: Width of the features that come from the latents.
    """

    dim: int
    num_flow_layers: int
    num_drawing_layers: int
    reference_dim: int
    hint_dim: int


@dataclass(frozen=True)
class Drawing:
    """What the networks say about four frames, per latent frame (batch and time are one axis).

    Attributes:
        frames: ``(BT, 12, H, W)``, channels (time, colour).
        flow: Where each pixel comes from in the reference, in pixels, ``(BT, 8, H/2, W/2)``,
            channels (time, xy).
        copied: Share of the moved reference in each pixel, 0..1, ``(BT, 4, H, W)``.
        coarse: The frames before they were made crisp, ``(BT, 12, H, W)``.
        moved: The reference moved along the flow, ``(BT, 12, H, W)``.
    """

    frames: Tensor
    flow: Tensor
    copied: Tensor
    coarse: Tensor
    moved: Tensor


def move_reference(reference: Tensor, flow: Tensor) -> Tensor:
    """The reference's pixels taken from where the flow points.

    Args:
        reference: ``(B, C, H, W)``.
        flow: ``(B, 8, h, w)`` in pixels of a picture of ``(2 h, 2 w)``, channels (time, xy); the
            reference may be larger, the flow is scaled.

    Returns:
        ``(B, 4 * C, H, W)``, channels (time, colour).
    """
    batch, channels, height, width = reference.shape
    scale = width / (flow.shape[-1] * FLOW_FOLD)
    fine = functional.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
    fine = fine.reshape(batch * FRAMES_PER_LATENT, 2, height, width).movedim(1, -1) * scale
    rows = torch.arange(height, dtype=fine.dtype, device=fine.device)
    columns = torch.arange(width, dtype=fine.dtype, device=fine.device)
    x = (columns[None, None, :] + fine[..., 0] + 0.5) * (2 / width) - 1
    y = (rows[None, :, None] + fine[..., 1] + 0.5) * (2 / height) - 1
    moved = functional.grid_sample(
        reference.repeat_interleave(FRAMES_PER_LATENT, 0),
        torch.stack([x, y], -1),
        padding_mode="border",
        align_corners=False,
    )
    return moved.reshape(batch, FRAMES_PER_LATENT * channels, height, width)


class Memory:
    """Hands each remembering layer its input at the previous latent, and keeps the newest."""

    def __init__(self, previous: tuple[Tensor, ...], num_latents: int) -> None:
        self._previous = previous
        self._num_latents = num_latents
        self.newest: list[Tensor] = []

    def run(self, layers: nn.ModuleList, hidden: Tensor) -> Tensor:
        """All layers in turn, over ``(B T, D, H, W)``; a stream's first latent sees itself."""
        for layer in layers:
            if not isinstance(layer, MemoryLayer):
                hidden = layer(hidden)
                continue
            steps = hidden.unflatten(0, (-1, self._num_latents))
            first = self._previous[len(self.newest)] if self._previous else steps[:, 0]
            self.newest.append(steps[:, -1])
            hidden = layer(hidden, torch.cat([first[:, None], steps[:, :-1]], 1).flatten(0, 1))
        return hidden


def _layers(dim: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(MemoryLayer(dim) if i == 1 else ResidualLayer(dim) for i in range(count))


class WarpDecoder(nn.Module):
    """Coarse frames and a reference to crisp frames; starts as a copy of the coarse frames."""

    def __init__(self, sizes: WarpSizes) -> None:
        super().__init__()
        dim = sizes.dim
        picture, frames = 3 * FOLD**2, 3 * FRAMES_PER_LATENT * FOLD**2
        self.reference_encoder = nn.Sequential(
            nn.Conv2d(picture, sizes.reference_dim, 3, padding=1),
            ResidualLayer(sizes.reference_dim),
            ResidualLayer(sizes.reference_dim),
        )
        seen = frames + picture + sizes.reference_dim + sizes.hint_dim
        self.from_frames = nn.Conv2d(seen, dim, 3, padding=1)
        self.eyes = nn.Conv2d(picture + sizes.reference_dim, EYES_DIM, 3, padding=1)
        self.from_lids = nn.Conv2d(FRAMES_PER_LATENT * EYES_DIM, dim, 3, padding=1, bias=False)
        self.flow_layers = _layers(dim, sizes.num_flow_layers)
        self.flow_norm = nn.GroupNorm(8, dim)
        per_cell = (FOLD // FLOW_FOLD) ** 2
        self.to_flow = nn.Conv2d(dim, 2 * FRAMES_PER_LATENT * per_cell, 3, padding=1)
        self.from_moved = nn.Conv2d(dim + 2 * frames + sizes.hint_dim, dim, 3, padding=1)
        self.drawing_layers = _layers(dim, sizes.num_drawing_layers)
        self.drawing_norm = nn.GroupNorm(8, dim)
        self.to_copied = nn.Conv2d(dim, FRAMES_PER_LATENT * FOLD**2, 3, padding=1)
        self.to_drawn = nn.Conv2d(dim, frames, 3, padding=1)
        start_at_zero(self.to_flow)
        start_at_zero(self.to_copied)
        start_at_zero(self.to_drawn)

    def encode_reference(self, reference: Tensor) -> Tensor:
        """Features ``(B, D, H/4, W/4)`` of the reference, once per stream."""
        folded = functional.pixel_unshuffle(reference, FOLD)
        return torch.cat([folded, self.reference_encoder(folded)], 1)

    def forward(
        self,
        coarse: Tensor,
        reference: Tensor,
        *,
        features: Tensor,
        hints: Tensor,
        lids: Tensor,
        memory: Memory,
    ) -> Drawing:
        """Crisp frames of coarse ones.

        Args:
            coarse: ``(BT, 12, H, W)``.
            reference: ``(BT, 3, H, W)``, repeated per latent, as are its ``features``.
            features: Of ``encode_reference``.
            hints: Features of the latents ``(BT, D, H/4, W/4)``.
            lids: How far the eyelids are closed in each frame ``(BT, 4)``, 0 open .. 1.
            memory: Of the stream.
        """
        folded = functional.pixel_unshuffle(coarse, FOLD)
        seen = torch.cat([folded, features, hints], 1)
        # Where the eyes are, times how far they are closed: nothing at all where they are open.
        eyes = functional.silu(self.eyes(features))
        closing = (lids[:, :, None, None, None] * eyes[:, None]).flatten(1, 2)
        hidden = self.from_frames(seen) + self.from_lids(closing)
        hidden = memory.run(self.flow_layers, hidden)
        flow = self.to_flow(functional.silu(self.flow_norm(hidden)))
        # Positions and blending are float32: half precision would shift pixels.
        flow = functional.pixel_shuffle(flow.float(), FOLD // FLOW_FOLD) * FLOW_SCALE_PX
        moved = move_reference(reference, flow)
        difference = functional.pixel_unshuffle(moved - coarse, FOLD)
        hidden = self.from_moved(
            torch.cat([hidden, functional.pixel_unshuffle(moved, FOLD), difference, hints], 1)
        )
        hidden = functional.silu(self.drawing_norm(memory.run(self.drawing_layers, hidden)))
        copied = functional.pixel_shuffle(self.to_copied(hidden).float(), FOLD).sigmoid()
        drawn = functional.pixel_shuffle(self.to_drawn(hidden).float(), FOLD) * DRAWING_SCALE
        share = copied.repeat_interleave(3, 1)
        frames = coarse + share * (moved - coarse) + drawn
        return Drawing(frames, flow, copied, coarse, moved)
