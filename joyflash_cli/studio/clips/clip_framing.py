"""One cut for a whole clip: framed by its first frame, so that the camera stands still."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from joyflash_cli.media.inputs.framing import FramingRule, cut_frame
from joyflash_cli.media.inputs.picture import Picture
from joyflash_cli.media.inputs.sizing import Framing, frame_picture


class ClipFraming:
    """Cuts every frame of a clip as the first one is framed.

    Args:
        rule: Of a checkpoint: by face, or by size.
        needs_face: Whether a first frame without a face that can speak is refused with an
            ``ImageError``.
    """

    def __init__(self, rule: Framing, *, needs_face: bool = False) -> None:
        self._rule = rule
        self._needs_face = needs_face
        self._cut: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The frame ``(H, W, 3)`` uint8 in the checkpoint's size."""
        if self._cut is None:
            self._cut = self._framed_by(pixels)
        return self._cut(pixels)

    def _framed_by(self, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        framed = frame_picture(Picture(first), self._rule, needs_face=self._needs_face)
        height, width = framed.pixels.shape[:2]
        place = framed.place
        if isinstance(self._rule, FramingRule):
            return lambda pixels: cut_frame(np.rot90(pixels, framed.quarters), place, width)
        right, bottom = place.to_picture(np.array([width, height])).tolist()
        box = (place.x, place.y, right, bottom)
        return lambda pixels: _resized(np.rot90(pixels, framed.quarters), box, (width, height))


def _resized(
    pixels: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    from PIL import Image

    limits = (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))
    inside = (
        max(box[0], limits[0]), max(box[1], limits[1]),
        min(box[2], limits[2]), min(box[3], limits[3]),
    )  # fmt: skip
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(picture.resize(size, Image.Resampling.BILINEAR, box=inside))
