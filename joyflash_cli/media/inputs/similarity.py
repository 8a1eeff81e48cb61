"""Squares cut from a picture at any angle, and what lies beyond its edge: itself, more blurred."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Similarity:
    """Where a point of a frame lies in the picture it was cut from.

    ``picture = (x, y) + scale * R(degrees) @ frame``, both in pixels from the upper left corner,
    the middle of the first pixel at (0.5, 0.5).

    Attributes:
        scale: Picture pixels per frame pixel.
        degrees: Turn, clockwise as seen; how far the picture's face is rolled.
        x: Picture column of the frame's upper left corner.
        y: Picture row of the frame's upper left corner.
    """

    scale: float
    degrees: float
    x: float
    y: float

    @property
    def matrix(self) -> np.ndarray:
        """``(2, 3)`` affine from frame to picture."""
        angle = np.deg2rad(self.degrees)
        cosine, sine = self.scale * np.cos(angle), self.scale * np.sin(angle)
        return np.array([[cosine, -sine, self.x], [sine, cosine, self.y]])

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Picture coordinates of frame points ``(..., 2)``."""
        matrix = self.matrix
        return points @ matrix[:, :2].T + matrix[:, 2]

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Frame coordinates of picture points ``(..., 2)``."""
        matrix = self.matrix
        return (points - matrix[:, 2]) @ matrix[:, :2] / self.scale**2


def similarity_between(frame: np.ndarray, picture: np.ndarray) -> Similarity:
    """The similarity that takes two frame points ``(2, 2)`` to two picture points ``(2, 2)``."""
    before, after = frame[1] - frame[0], picture[1] - picture[0]
    scale = float(np.hypot(*after) / np.hypot(*before))
    degrees = float(np.rad2deg(np.arctan2(after[1], after[0]) - np.arctan2(before[1], before[0])))
    degrees = (degrees + 180) % 360 - 180
    turned = Similarity(scale, degrees, 0.0, 0.0)
    x, y = (np.asarray(picture[0]) - turned.to_picture(np.asarray(frame[0], float))).tolist()
    return Similarity(scale, degrees, x, y)


def cut(
    pixels: np.ndarray,
    similarity: Similarity,
    size_px: int,
    *,
    beyond: tuple[int, int, int] = (128, 128, 128),
) -> np.ndarray:
    """The square frame ``(size_px, size_px, 3)`` uint8, antialiased.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
        similarity: From the frame to the picture.
        size_px: Side of the frame.
        beyond: Colour of what lies outside the picture.
    """
    from PIL import Image

    matrix = similarity.matrix
    factor = int(similarity.scale)
    if factor > 1:
        # Only what the frame shows is averaged; of a photograph that is often a small part.
        corners = similarity.to_picture(size_px * np.array([[0, 0], [1, 0], [0, 1], [1, 1.0]]))
        low = np.maximum(np.floor(corners.min(0)).astype(int) - 2 * factor, 0)
        high = np.ceil(corners.max(0)).astype(int) + 2 * factor
        part = pixels[low[1] : max(high[1], low[1] + 1), low[0] : max(high[0], low[0] + 1)]
        if not part.size:
            return np.full((size_px, size_px, 3), beyond, np.uint8)
        image = Image.fromarray(part).reduce(factor)
        matrix = (matrix - [[0, 0, low[0]], [0, 0, low[1]]]) / factor
    else:
        image = Image.fromarray(pixels)
    warped = image.transform(
        (size_px, size_px),
        Image.Transform.AFFINE,
        matrix.ravel().tolist(),
        Image.Resampling.BICUBIC if similarity.scale < 1 else Image.Resampling.BILINEAR,
        fillcolor=beyond,
    )
    return np.asarray(warped)


def cut_smoothly(pixels: np.ndarray, similarity: Similarity, size_px: int) -> np.ndarray:
    """The square frame ``(size_px, size_px, 3)`` uint8 for the eye: sharp, and without aliasing.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB that covers the frame.
        similarity: From the frame to the picture.
        size_px: Side of the frame.
    """
    from PIL import Image

    image = Image.fromarray(pixels)
    if not similarity.degrees:
        left, top, side = similarity.x, similarity.y, similarity.scale * size_px
        box = (
            max(left, 0.0),
            max(top, 0.0),
            min(left + side, float(image.width)),
            min(top + side, float(image.height)),
        )
        return np.array(image.resize((size_px, size_px), Image.Resampling.LANCZOS, box=box))
    # A turned cut has no filter of its own against aliasing: it is made finer, then shrunk.
    finer = max(1, int(np.ceil(similarity.scale)))
    turned = image.transform(
        (size_px * finer, size_px * finer),
        Image.Transform.AFFINE,
        (similarity.matrix / [finer, finer, 1]).ravel().tolist(),
        Image.Resampling.BICUBIC,
    )
    if finer > 1:
        turned = turned.resize((size_px, size_px), Image.Resampling.LANCZOS)
    return np.array(turned)


def extend(pixels: np.ndarray, margins: tuple[int, int, int, int]) -> np.ndarray:
    """The picture with its edge continued outward, blurred: no black bars, no streaks.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        margins: Rows above, rows below, columns left, columns right.
    """
    from PIL import Image, ImageFilter

    above, below, before, after = margins
    padded = np.pad(pixels, ((above, below), (before, after), (0, 0)), mode="edge")
    radius = max(1.0, float(max(margins)) / 4)  # Pillow compares it with a pair
    blurred = np.asarray(Image.fromarray(padded).filter(ImageFilter.GaussianBlur(radius)))
    rows = _distance(len(padded), above, len(pixels))
    columns = _distance(padded.shape[1], before, pixels.shape[1])
    distance = np.maximum(rows[:, None], columns[None, :])
    # The blur fades in over its own radius, so that the picture's border does not show as a line.
    weight = np.clip(distance / radius, 0.0, 1.0)[:, :, None]
    return np.round(padded * (1 - weight) + blurred * weight).astype(np.uint8)


def _distance(length: int, first: int, inside: int) -> np.ndarray:
    """How far each row (or column) lies outside ``first <= i < first + inside``."""
    index = np.arange(length)
    return np.maximum(np.maximum(first - index, index - (first + inside - 1)), 0).astype(np.float32)


_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def cut_frame(pixels: np.ndarray, place: Similarity, size_px: int) -> np.ndarray:
    """The square of a picture as ``Framed.place`` says, ``(size_px, size_px, 3)`` uint8.

    Beyond the picture its blurred edge continues.
    """
    height, width = pixels.shape[:2]
    if place == Similarity(1.0, 0.0, 0.0, 0.0) and width == height == size_px:
        return pixels.copy()
    corners = place.to_picture(size_px * _CORNERS)
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    # Far outside nothing of the picture's rest is needed: cut first, extend then.
    first = np.clip(low, 0, [width - 1, height - 1])
    last = np.clip(high, first + 1, [width, height])
    part = pixels[first[1] : last[1], first[0] : last[0]]
    left, above = np.maximum(first - low, 0).tolist()
    right, below = np.maximum(high - last, 0).tolist()
    if max(left, above, right, below):
        part = extend(part, (above, below, left, right))
    x, y = place.x - int(first[0]) + left, place.y - int(first[1]) + above
    return cut_smoothly(part, replace(place, x=x, y=y), size_px)


def scaled(
    pixels: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    """The box ``(left, top, right, bottom)`` at this ``(width, height)``, bilinear, antialiased."""
    from PIL import Image

    right, bottom = float(pixels.shape[1]), float(pixels.shape[0])
    inside = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], right), min(box[3], bottom))
    picture = Image.fromarray(pixels)
    return np.array(picture.resize(size, Image.Resampling.BILINEAR, box=inside))
