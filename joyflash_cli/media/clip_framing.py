"""One cut for a whole clip: framed by its first frame, so that the camera stands still."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from joyflash_cli.media.framing import cut_square
from joyflash_cli.media.picture import Picture
from joyflash_cli.media.sizing import frame_picture


class ClipFraming:
    """Cuts every frame of a clip as the first one is framed.

    Args:
        section: ``framing`` of a ``checkpoint.json``: by face, or by size.
    """

    def __init__(self, section: Mapping[str, Any]) -> None:
        self._section = section
        self._cut: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The frame ``(H, W, 3)`` uint8 in the checkpoint's size."""
        if self._cut is None:
            self._cut = self._framed_by(pixels)
        return self._cut(pixels)

    def _framed_by(self, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        framed = frame_picture(Picture(first), self._section)
        height, width = framed.pixels.shape[:2]
        left, top, side = framed.box
        if "face_size" in self._section:
            return lambda pixels: cut_square(pixels, (left, top, side), width)
        scale = max(width / first.shape[1], height / first.shape[0])
        box = (left, top, left + width / scale, top + height / scale)
        return lambda pixels: _resized(pixels, box, (width, height))


def _resized(
    pixels: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    from PIL import Image

    limits = (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))
    inside = (
        max(box[0], limits[0]), max(box[1], limits[1]),
        min(box[2], limits[2]), min(box[3], limits[3]),
    )  # fmt: skip
    picture = Image.fromarray(pixels)
    return np.array(picture.resize(size, Image.Resampling.BILINEAR, box=inside))
