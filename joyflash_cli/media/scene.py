"""What the video shows: the whole picture with its face's square in it, or the square alone."""

from __future__ import annotations

import math

import numpy as np

from joyflash_cli.media.inputs.framing import Framed
from joyflash_cli.media.inputs.similarity import Similarity, cut_frame
from joyflash_cli.types import Scene, Square

MIN_SIDE_PX = 16
"""Shorter sides are filled up by cutting the longer one: players refuse smaller videos."""


def picture_scene(framed: Framed, *, max_side_px: int) -> Scene:
    """The whole picture in its own proportions, never enlarged, both sides even.

    A picture that is small enough keeps its own pixels; an odd side loses its last row or column.
    A larger one is reduced until its longer side has ``max_side_px``; what the even size leaves
    over, less than two pixels, is cut evenly from both ends.

    Args:
        framed: The picture with the square of its face.
        max_side_px: Of the longer side; even.
    """
    from PIL import Image

    pixels = framed.picture
    height, width = pixels.shape[:2]
    scale = min(1.0, max_side_px / max(height, width))
    if scale == 1.0 and min(height, width) >= MIN_SIDE_PX:
        even = np.ascontiguousarray(pixels[: height // 2 * 2, : width // 2 * 2])
        return Scene(even, framed.square, goes_on=True)
    size = (_even(width * scale), _even(height * scale))
    scale = max(size[0] / width, size[1] / height)  # so that the picture covers the size
    left, top = (width - size[0] / scale) / 2, (height - size[1] / scale) / 2
    box = (max(left, 0.0), max(top, 0.0), min(width - left, width), min(height - top, height))
    reduced = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, box=box)
    square = framed.square.seen(left=left, top=top, scale=scale)
    return Scene(np.array(reduced), square, goes_on=True)


def _even(length: float) -> int:
    return max(MIN_SIDE_PX, round(length / 2) * 2)


def face_scene(framed: Framed, *, side_px: int) -> Scene:
    """The square of the face alone.

    Args:
        framed: The picture with the square of its face.
        side_px: Of the video.
    """
    cut = cut_out(framed.picture, framed.square, side_px)
    return Scene(cut, Square(0.0, 0.0, float(side_px)), goes_on=False)


def cut_out(pixels: np.ndarray, square: Square, side_px: int) -> np.ndarray:
    """A square of a picture, ``(side_px, side_px, 3)`` uint8."""
    degrees = math.degrees(square.angle)
    place = Similarity(square.side / side_px, degrees, square.left, square.top)
    return cut_frame(pixels, place, side_px)
