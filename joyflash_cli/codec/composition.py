"""Drawings put into the picture: what the networks say of a small square, at any resolution.

The networks see and draw a square of some hundred pixels. What they say of it are smooth fields:
where each place comes from in the reference (a flow), how much of it is the reference's own (a
share), and what is added. Fields can be read at any place between their pixels, so the same
drawing fits a picture of any size, however its square is turned: the picture's own pixels are
moved, and what they lack is added. Beyond the square everything stands still; towards its edge the
fields fade.

Fields are read twice: exactly, at nodes a few pixels apart, and linearly between those. It is done
strip by strip, so that what is computed stays in the processor's cache, and with every step-th
column of a strip beside each other, so that all of it is arithmetic on whole rows of nodes.

Joints in time are smoothed first. Every latent is encoded on its own, so what the codec gets wrong
changes with every fourth frame and stands still in between: a faint pulse, as blocks of a
compressed picture show faint edges. Small jumps are spread over the four frames, as deblocking
filters do in space; large ones are real and stay as they are. Pixels alone would not do: where an
edge moves they jump far, so the motion that the latents tell is smoothed first, and what is left of
the jump in the pixels after it. Mouths may be left out: they jump by themselves, and spreading
takes away from how wide they open.

Drawing is kept below the nose, but for what lids need. Framed pictures have their mouths in the
lower half, and all above is better moved than drawn: what a generator says of hair, brows, eyes and
nose is less sure than the picture itself.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from joyflash_cli.codec.networks import Drawing
from joyflash_cli.types import FRAMES_PER_LATENT, Square

NODES_ACROSS = 256
"""About so many nodes stand side by side in the square; the networks' own pixels are 128."""

STRIP_PIXELS = 1 << 16
"""Pixels of a strip on a CPU, of all frames together; whole frames take twice the time."""

FINE_PIXELS = 1 << 21
"""Pictures of up to so many pixels are kept at twice their density. Between its pixels a picture is
then read almost as sharply as at them; hair would soften and sharpen as a head moves."""

FADE_SIDES, FADE_TOP, FADE_BOTTOM = 0.14, 0.12, 0.07
"""Widths of the margins in which the fields fade, in sides of the square; chins are low in it."""


@dataclass(frozen=True)
class Canvas:
    """The region of a picture that may change, and a square's place in it, known once for all.

    Attributes:
        picture: The region, ``(B, 3, height, width)`` in -1..1, or with a pixel between every two.
        top: First row of the region in the whole picture.
        left: Its first column.
        height: Its rows.
        width: Its columns.
        step: Pixels from node to node.
        places: Of the nodes in the square, as ``grid_sample`` counts, ``(1, h, w, 2)``.
        origins: Of the nodes in the region, likewise but ``(1, 2, h, w)``.
        weight: How much of the drawing counts at the nodes, ``(1, 1, h, w)`` 0..1; ``None`` where
            all of it does.
        turn: ``(2, 2)``; takes a flow in sides of the square to the units of ``origins``.
        side: Of the square, pixels.
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
    side: float


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
    step = max(1, round(square.side / nodes))
    bounds = square.bounds()
    left, right = _span(bounds[0], bounds[2], picture.shape[-1])
    top, bottom = _span(bounds[1], bounds[3], picture.shape[-2])
    corner = picture.new_tensor([left, top], dtype=torch.float64)
    last = picture.new_tensor([right - left - 1, bottom - top - 1], dtype=torch.float64)
    columns, rows = (step * torch.arange(int(n) // step + 2).to(last) for n in last)
    nodes_xy = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    cosine, sine = math.cos(square.angle), math.sin(square.angle)
    turn = square.side * corner.new_tensor([[cosine, -sine], [sine, cosine]])
    away = nodes_xy + corner + 0.5 - corner.new_tensor([square.left, square.top])
    places = away @ turn.inverse().T  # 0..1 in the square
    unit = 2 / last.clamp(min=1)
    region = picture[..., top:bottom, left:right]
    height, width = region.shape[-2:]
    if height * width <= FINE_PIXELS:  # a pixel between every two
        fine = (2 * height - 1, 2 * width - 1)
        region = functional.interpolate(region, fine, mode="bicubic", align_corners=True)
    return Canvas(
        picture=region.contiguous(),
        top=top,
        left=left,
        height=height,
        width=width,
        step=step,
        places=(places * 2 - 1)[None].float(),
        origins=(nodes_xy * unit - 1).movedim(-1, 0)[None].float(),
        weight=_weight(places)[None, None].float() if fades else None,
        turn=(unit[:, None] * turn).float(),
        side=square.side,
    )


def canvas_bytes(size_px: tuple[int, int]) -> int:
    """What a canvas of a whole picture ``(width, height)`` takes, and a latent's levels with it."""
    num_pixels = size_px[0] * size_px[1]
    density = 4 if num_pixels <= FINE_PIXELS else 1
    return num_pixels * 3 * (density * torch.float32.itemsize + FRAMES_PER_LATENT)


def _span(first: float, last: float, length: int) -> tuple[int, int]:
    """Whole pixels from ``first`` to ``last`` that lie in the picture; one at least."""
    start = min(max(int(first // 1), 0), length - 1)
    return start, max(min(int(-(-last // 1)), length), start + 1)


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
    tones = tones.flatten(0, 1)
    # No finer than the picture, so that none of their pixels falls between its own.
    if (factor := round(tones.shape[-1] / canvas.side)) > 1:
        tones = functional.avg_pool2d(tones, factor)
    tones = _read(tones, canvas)
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


def _strips(fields: Fields, canvas: Canvas) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the region and their pixels ``(BF, step, 3, rows, columns)``, from the top down.

    Of the columns, those that leave the same rest when divided by the step are together. The last
    ones may lie beyond the region.
    """
    step, num_frames = canvas.step, len(fields.origins) // len(canvas.picture)
    per_strip = canvas.height
    if fields.origins.device.type == "cpu":
        per_strip = max(1, STRIP_PIXELS // (canvas.width * step * len(fields.origins))) * step
    picture = canvas.picture[:, None].expand(-1, num_frames * step, -1, -1, -1).flatten(0, 1)
    for start in range(0, canvas.height, per_strip):
        stop = min(start + per_strip, canvas.height)
        nodes = slice(start // step, (stop - 1) // step + 2)
        rows = stop - start
        grid = _between(fields.origins[:, :, nodes], step)[..., :rows, :]
        tones = _between(fields.tones[:, :, nodes], step)[..., :rows, :]
        moved = functional.grid_sample(
            picture, grid.flatten(0, 1).movedim(1, -1), padding_mode="border", align_corners=True
        ).unflatten(0, (-1, step))
        yield slice(start, stop), torch.addcmul(tones[:, :, 1:], moved, tones[:, :, :1])


def _between(nodes: Tensor, step: int) -> Tensor:
    """Fields ``(N, C, h, w)`` between their nodes: ``(N, step, C, (h - 1) step, w - 1)``."""
    share = torch.arange(step, dtype=nodes.dtype, device=nodes.device) / step
    rows = torch.lerp(nodes[:, :, :-1, None], nodes[:, :, 1:, None], share[:, None]).flatten(2, 3)
    return torch.lerp(rows[:, None, ..., :-1], rows[:, None, ..., 1:], share[:, None, None, None])


def compose(fields: Fields, canvas: Canvas) -> Float[Tensor, "B F 3 h w"]:
    """The region's frames in -1..1: the picture moved, its share of each pixel, and the rest."""
    strips = [strip.permute(0, 2, 3, 4, 1).flatten(3) for _, strip in _strips(fields, canvas)]
    frames = torch.cat(strips, 2)[..., : canvas.width]
    return frames.clamp(-1, 1).unflatten(0, (len(canvas.picture), -1))


def compose_levels(fields: Fields, canvas: Canvas) -> UInt8[Tensor, "B F 3 h w"]:
    """The same in levels 0..255, laid out in memory as bytes of colours beside each other."""
    columns = fields.tones.shape[-1] - 1
    shape = (len(fields.tones), canvas.height, columns, canvas.step, 3)
    levels = fields.tones.new_empty(shape, dtype=torch.uint8)
    for rows, strip in _strips(fields, canvas):
        whole = strip.add_(1).mul_(127.5).clamp_(0, 255).round_().to(torch.uint8)
        levels[:, rows] = whole.permute(0, 3, 4, 1, 2)
    whole_rows = levels.flatten(2, 3)[:, :, : canvas.width]
    return whole_rows.movedim(-1, 1).unflatten(0, (len(canvas.picture), -1))


SHARES = (0.75, 0.5, 0.25, 0.0)
"""How much of the jump each frame gives back; the steps between frames are then equal."""

OWN_MOTION = 0.5
"""Share of the change inside the latent that is expected across the joint as well."""


MOUTH_MIDDLE = (0.5, 0.7)
"""Of a framed picture, across and down, in shares of its sides."""
MOUTH_REACH = (0.21, 0.135)
"""Half the width and height of what moves with a mouth, likewise; it fades from two thirds on."""


@functools.lru_cache(maxsize=8)
def _mouth_weight(height: int, width: int) -> Tensor:
    """One at the mouth of a framed picture, zero beyond its reach, ``(H, W)``."""
    across, down = (
        ((torch.arange(count) + 0.5) / count - middle) / reach
        for count, middle, reach in zip((width, height), MOUTH_MIDDLE, MOUTH_REACH, strict=True)
    )
    distance = torch.hypot(down[:, None], across)
    return (3 * (1 - distance)).clamp(0, 1)


def smooth_seam(
    frames: Float[Tensor, "B T C H W"],
    previous: Float[Tensor, "B C H W"],
    *,
    limit: float,
    mouth: float = 1.0,
) -> Float[Tensor, "B T C H W"]:
    """The four frames of a latent, joined to the frame before them.

    Args:
        frames: Of one latent: pixels in -1..1, or flow in pixels.
        previous: The last one before them, as it was shown.
        limit: Jumps of this size, in the frames' units, are spread by a third; smaller ones almost
            whole, much larger ones not at all. 0 changes nothing.
        mouth: Share of a jump that is spread where the mouth is.
    """
    if not limit:
        return frames
    jump = frames[:, 0] - previous - OWN_MOTION * (frames[:, 1] - frames[:, 0])
    jump = jump * torch.exp(-((jump / limit) ** 2))
    if mouth < 1:
        jump = jump * (1 - (1 - mouth) * _mouth_weight(*frames.shape[-2:]).to(frames))
    shares = frames.new_tensor(SHARES)[:, None, None, None]
    return frames - shares * jump[:, None]


EDGE = 0.04
"""Height over which drawing sets in, as a share of the picture's."""
DRAWN_REACH, DRAWN_FADE = 0.22, 0.08
"""Drawing ends so far to the left and right of a framed picture's middle, over so much of its
width: mouth, chin and neck are within. What a generator says of shoulders and background adds up to
specks in long streams."""
LIDS = 0.25
"""How far lids are closed when all is drawn above the line."""


def draw_below(drawing: Drawing, line: float, lids: Float[Tensor, "BT 4"]) -> Drawing:
    """The drawing kept to the mouth's surroundings, and above a line to frames whose lids close.

    Args:
        drawing: Of pictures of height H.
        line: Where half of what is drawn is left, as a share of the height; 0 leaves all.
        lids: How far the eyelids are closed, 0 open .. 1.
    """
    if not line:
        return drawing
    rows, columns = (
        (torch.arange(count, device=lids.device, dtype=torch.float32) + 0.5) / count
        for count in drawing.copied.shape[2:]
    )
    below = ((rows - line) / EDGE + 0.5).clamp(0, 1)
    beside = ((DRAWN_REACH - (columns - 0.5).abs()) / DRAWN_FADE + 1).clamp(0, 1)
    lidded = (lids.float() / LIDS).clamp(max=1)
    drawn = torch.lerp(lidded[:, :, None, None], beside, below[:, None])
    frames = torch.lerp(drawing.moved, drawing.frames, drawn.repeat_interleave(3, 1))
    return replace(drawing, frames=frames, copied=1 - drawn * (1 - drawing.copied))
