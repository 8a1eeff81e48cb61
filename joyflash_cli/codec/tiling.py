"""The Wan VAE in tiles, as OmniAvatar runs it: less memory, and what its frames were made with.

A picture is cut into overlapping tiles, each passes the VAE as a picture of its own, and where
tiles overlap their results are averaged with weights that rise from a tile's inner edges. Up to the
size of one tile it is the VAE itself. Tiles see nothing of each other, so above that size latents
and frames differ a little from those of the whole picture.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.codec.wan import WanCodec, WanDecodingState
from joyflash_cli.errors import ConfigError

DECODE_TILE, DECODE_STRIDE = (30, 52), (15, 26)
"""Rows and columns of latents."""

ENCODE_TILE, ENCODE_STRIDE = (272, 272), (144, 128)
"""Rows and columns of pixels."""


class Tile(NamedTuple):
    """A part of a picture: half-open ranges of rows and columns."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, whole: Tensor) -> Tensor:
        """This part of a tensor whose last axes are rows and columns."""
        return whole[..., self.top : self.bottom, self.left : self.right]


def tiles_of(
    size: tuple[int, int], tile: tuple[int, int], stride: tuple[int, int]
) -> tuple[Tile, ...]:
    """Tiles that cover ``size``; none begins where the one before already reached the end."""
    rows, columns = (
        tuple(_spans(length, whole, step))
        for length, whole, step in zip(size, tile, stride, strict=True)
    )
    return tuple(Tile(*r, *c) for r, c in itertools.product(rows, columns))


def _spans(length: int, tile: int, stride: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, stride):
        if start == 0 or start - stride + tile < length:
            yield start, min(start + tile, length)


class TiledWanCodec(WanCodec):
    """``Codec`` on the Wan 2.1 VAE, tile by tile, each through a whole clip.

    What the decoder remembers of a tile is let go with the tile: that is the memory it saves. Of
    pictures larger than a tile a clip is therefore decoded in one call and cannot be continued.
    """

    def encode(
        self, frames: Float[Tensor, "B F 3 H W"], reference: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B T C h w"]:
        """As ``WanCodec.encode``."""
        height, width = frames.shape[-2:]
        stride = self.spatial_stride
        tiles = tiles_of((height, width), ENCODE_TILE, ENCODE_STRIDE)
        if len(tiles) == 1 or height % stride or width % stride:
            return super().encode(frames, reference)
        return blended(
            (height // stride, width // stride),
            tuple(Tile(*(edge // stride for edge in tile)) for tile in tiles),
            tuple((t - s) // stride for t, s in zip(ENCODE_TILE, ENCODE_STRIDE, strict=True)),
            lambda index: WanCodec.encode(self, tiles[index].of(frames), reference),
        )

    def decode(
        self, latents: Float[Tensor, "B T C h w"], state: WanDecodingState
    ) -> tuple[Float[Tensor, "B F 3 H W"], WanDecodingState]:
        """As ``WanCodec.decode``.

        Raises:
            ConfigError: If the picture is larger than a tile and the state is not a fresh one.
        """
        size = (latents.shape[-2], latents.shape[-1])
        tiles = tiles_of(size, DECODE_TILE, DECODE_STRIDE)
        if len(tiles) == 1:
            return super().decode(latents, state)
        if state.num_latents:
            raise ConfigError("a clip that was decoded in tiles cannot be continued")
        stride = self.spatial_stride
        frames = blended(
            (size[0] * stride, size[1] * stride),
            tuple(Tile(*(edge * stride for edge in tile)) for tile in tiles),
            tuple((t - s) * stride for t, s in zip(DECODE_TILE, DECODE_STRIDE, strict=True)),
            lambda index: self.decode_unclamped(tiles[index].of(latents), state)[0],
        )
        return frames.clamp_(-1.0, 1.0), WanDecodingState((), latents.shape[1])


def blended(
    size: tuple[int, int],
    tiles: tuple[Tile, ...],
    borders: tuple[int, ...],
    make: Callable[[int], Tensor],
) -> Tensor:
    """The weighted mean of tiles where they overlap.

    Args:
        size: Rows and columns of the whole.
        tiles: Where each lies in it.
        borders: Rows and columns over which weights rise from an inner edge.
        make: The values of a tile by its index, rows and columns last.
    """
    if len(tiles) == 1:
        return make(0)
    values = make(0)
    total, weights = values.new_zeros(*values.shape[:-2], *size), values.new_zeros(size)
    for index, tile in enumerate(tiles):
        if index:
            values = make(index)
        rows = _ramp(tile.top, tile.bottom, size[0], borders[0], values)
        columns = _ramp(tile.left, tile.right, size[1], borders[1], values)
        weight = torch.minimum(rows[:, None], columns[None, :])
        tile.of(total).add_(values * weight)
        tile.of(weights).add_(weight)
    return total / weights


def _ramp(start: int, stop: int, length: int, border: int, like: Tensor) -> Float[Tensor, " n"]:
    """Weights along one axis of a tile: 1, but rising from the edges that lie inside."""
    weights = like.new_ones(stop - start)
    rising = torch.arange(1, border + 1, device=like.device, dtype=like.dtype) / border
    if start > 0:
        weights[:border] = rising
    if stop < length:
        weights[-border:] = torch.minimum(weights[-border:], rising.flip(0))
    return weights
