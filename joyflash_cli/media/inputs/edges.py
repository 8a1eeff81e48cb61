"""What lies beyond the edge of a picture: the edge itself, more and more blurred."""

from __future__ import annotations

import numpy as np


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
