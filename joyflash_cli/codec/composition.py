"""Drawings put into the picture: what the networks say of a small square, at any resolution.

The networks see and draw a square of some hundred pixels. What they say of it are smooth fields:
where each place comes from in the reference (a flow), how much of it is the reference's own (a
share), and what is added. Fields can be read at any place between their pixels, so the same drawing
fits a picture of any size, however its square is turned: the picture's own pixels are moved, and
what they lack is added. Beyond the square everything stands still; towards its edge the fields fade.

Fields are read twice: exactly, at nodes a few pixels apart, and linearly between those. It is done
strip by strip, so that what is computed stays in the processor's cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from joyflash_cli.codec.warp import FRAMES_PER_LATENT, Drawing
from joyflash_cli.types import Square

NODES_ACROSS = 256
"""About so many nodes stand side by side in the square; the networks' own pixels are 128."""

STRIP_PIXELS = 1 << 17
"""Pixels of a strip on a CPU, of all frames together; whole frames take twice the time."""

FADE_SIDES, FADE_TOP, FADE_BOTTOM = 0.14, 0.12, 0.07
"""Widths of the margins in which the fields fade, in sides of the square; chins are low in it."""


@dataclass(frozen=True)
class Canvas:
    """A picture to draw into, and what is known of a square's place in it once and for all.

    Attributes:
        picture: ``(B, 3, H, W)`` in -1..1.
        top: First row of the region that may change.
        left: Its first column.
        height: Its rows; all of them lie in the picture.
        width: Its columns.
        step: Pixels from node to node.
        places: Of the nodes in the square, as ``grid_sample`` counts, ``(1, h, w, 2)``.
        origins: Of the nodes in the picture, likewise but ``(1, 2, h, w)``.
        weight: How much of the drawing counts at the nodes, ``(1, 1, h, w)`` 0..1; ``None`` where
            all of it does.
        turn: ``(2, 2)``; takes a flow in sides of the square to the units of ``origins``.
    """

    picture: Tensor
    top: int
    left: int
    height: int
    width: int
    step: int
    places: Tensor
    origins: Tensor
    weight: Tensor | None
    turn: Tensor


def open_canvas(
    picture: Float[Tensor, "B 3 H W"], square: Square, *, fades: bool, nodes: int = NODES_ACROSS
) -> Canvas:
    """The canvas of a picture whose square lies as told.

    Args:
        picture: In -1..1.
        square: Part of it at least lies in the picture.
        fades: Whether the drawing fades towards the square's edge, as it must where the picture
            goes on there.
        nodes: That stand about side by side in the square.
    """
    height, width = picture.shape[-2:]
    step = max(1, round(square.side / nodes))
    bounds = square.bounds()
    left, right = _span(bounds[0], bounds[2], width)
    top, bottom = _span(bounds[1], bounds[3], height)
    rows = top + step * _counted(-(-(bottom - top - 1) // step) + 1, picture) + 0.5
    columns = left + step * _counted(-(-(right - left - 1) // step) + 1, picture) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    turn = torch.tensor(
        [
            [square.point(1, 0)[0] - square.left, square.point(0, 1)[0] - square.left],
            [square.point(1, 0)[1] - square.top, square.point(0, 1)[1] - square.top],
        ],
        dtype=torch.float64,
    )
    away = torch.stack([x - square.left, y - square.top], -1)
    places = away @ turn.inverse().T.to(away)  # 0..1 in the square
    size = torch.tensor([width, height], dtype=torch.float64)
    origins = torch.stack([x, y]) * (2 / size.to(x))[:, None, None] - 1
    return Canvas(
        picture=picture,
        top=top,
        left=left,
        height=bottom - top,
        width=right - left,
        step=step,
        places=(places * 2 - 1)[None].float(),
        origins=origins[None].float(),
        weight=_weight(places)[None, None].float() if fades else None,
        turn=(turn * (2 / size)[:, None]).to(picture),
    )


def _span(first: float, last: float, length: int) -> tuple[int, int]:
    """Whole pixels from ``first`` to ``last`` that lie in the picture; one at least."""
    start = min(max(int(first // 1), 0), length - 1)
    return start, max(min(int(-(-last // 1)), length), start + 1)


def _counted(number: int, picture: Tensor) -> Tensor:
    return torch.arange(number, dtype=torch.float64, device=picture.device)


def _weight(places: Tensor) -> Tensor:
    """1 inside, 0 at the square's edge and beyond, for places ``(h, w, 2)`` in 0..1."""
    x, y = places.unbind(-1)
    weight = torch.ones_like(x)
    for distance, margin in (
        (x, FADE_SIDES), (1 - x, FADE_SIDES), (y, FADE_TOP), (1 - y, FADE_BOTTOM)
    ):  # fmt: skip
        share = (distance / margin).clamp(0, 1)
        weight = weight * share * share * (3 - 2 * share)
    return weight


@dataclass(frozen=True)
class Fields:
    """What a drawing says at a canvas' nodes, for every frame of every stream.

    Attributes:
        origins: Where in the picture each place comes from, ``(BF, 2, h, w)``.
        tones: Share of the picture, and what is added, ``(BF, 4, h, w)``.
    """

    origins: Tensor
    tones: Tensor


def read_fields(drawing: Drawing, canvas: Canvas, *, first: int = 0) -> Fields:
    """A drawing of one latent, read at the canvas' nodes.

    Args:
        drawing: Of B streams.
        canvas: Of as many.
        first: Of the latent's four frames, those before are left out.
    """
    share = drawing.copied
    added = drawing.frames - share.repeat_interleave(3, 1) * drawing.moved
    tones = torch.cat([share.unflatten(1, (-1, 1)), added.unflatten(1, (-1, 3))], 2)[:, first:]
    # In sides of the square: the flow counts pixels of a picture twice its own size.
    flow = drawing.flow.unflatten(1, (-1, 2))[:, first:] / (2 * drawing.flow.shape[-1])
    tones = _read(_reduced(tones.flatten(0, 1), canvas), canvas)
    shift = torch.einsum("xy,byhw->bxhw", canvas.turn, _read(flow.flatten(0, 1), canvas))
    tones[:, :1].clamp_(0, 1)
    if canvas.weight is not None:
        shift = shift * canvas.weight
        tones = tones * canvas.weight
        tones[:, :1] += 1 - canvas.weight
    return Fields(canvas.origins + shift, tones)


def _read(fields: Tensor, canvas: Canvas) -> Tensor:
    """Fields ``(N, C, h, w)`` of the square at the nodes, bicubic."""
    places = canvas.places.expand(len(fields), -1, -1, -1)
    return functional.grid_sample(
        fields, places, mode="bicubic", padding_mode="border", align_corners=False
    )


def _reduced(fields: Tensor, canvas: Canvas) -> Tensor:
    """Fields no finer than the picture, so that none of their pixels falls between its own."""
    height, width = canvas.picture.shape[-2:]
    side = 0.5 * float(torch.linalg.norm(canvas.turn[:, 0] * canvas.turn.new_tensor([width, height])))
    factor = max(1, round(fields.shape[-1] / side))
    return functional.avg_pool2d(fields, factor) if factor > 1 else fields


def _strips(fields: Fields, canvas: Canvas) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the region and their pixels ``(BF, 3, rows, width)``, from the top down."""
    step, width = canvas.step, fields.origins.shape[-1] * canvas.step
    per_strip = canvas.height
    if fields.origins.device.type == "cpu":
        per_strip = max(1, STRIP_PIXELS // (width * step * len(fields.origins))) * step
    picture = canvas.picture[:, None].expand(-1, FRAMES_PER_LATENT, -1, -1, -1)
    picture = picture[:, : len(fields.origins) // len(picture)].flatten(0, 1)
    for start in range(0, canvas.height, per_strip):
        stop = min(start + per_strip, canvas.height)
        nodes = slice(start // step, -(-(stop - 1) // step) + 1)
        cut = (Ellipsis, slice(stop - start), slice(canvas.width))
        grid = _between(fields.origins[:, :, nodes], step)[cut].permute(0, 2, 3, 1)
        moved = functional.grid_sample(picture, grid, padding_mode="border", align_corners=False)
        tones = _between(fields.tones[:, :, nodes], step)[cut]
        yield slice(start, stop), torch.addcmul(tones[:, 1:], moved, tones[:, :1])


def _between(nodes: Tensor, step: int) -> Tensor:
    """Fields at every pixel from the first node to the last."""
    if step == 1:
        return nodes
    size = [(length - 1) * step + 1 for length in nodes.shape[-2:]]
    return functional.interpolate(nodes, size, mode="bilinear", align_corners=True)


def compose(fields: Fields, canvas: Canvas) -> Float[Tensor, "B F 3 h w"]:
    """The region's frames in -1..1: the picture moved, its share of each pixel, and the rest."""
    frames = torch.cat([strip for _, strip in _strips(fields, canvas)], 2)
    return frames.clamp(-1, 1).unflatten(0, (len(canvas.picture), -1))


def compose_levels(fields: Fields, canvas: Canvas) -> UInt8[Tensor, "B F 3 h w"]:
    """The same in levels 0..255, laid out in memory as bytes of colours beside each other."""
    shape = (len(fields.tones), canvas.height, canvas.width, 3)
    levels = fields.tones.new_empty(shape, dtype=torch.uint8)
    for rows, strip in _strips(fields, canvas):
        whole = strip.add_(1).mul_(127.5).clamp_(0, 255).round_().to(torch.uint8)
        levels[:, rows] = whole.movedim(1, -1)
    return levels.movedim(-1, 1).unflatten(0, (len(canvas.picture), -1))
