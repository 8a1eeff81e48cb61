"""Squares cut out of pictures at any angle and size."""

import numpy as np

from joyflash_cli.media.inputs.similarity import extend


def cut_turned(pixels: np.ndarray, framing: np.ndarray, size_px: int) -> np.ndarray:
    """A square of a picture; beyond it, the picture's edge goes on.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        framing: ``(2, 3)`` affine map from fractions of the square's side to pixels.
        size_px: Side of the result.

    Returns:
        ``(size_px, size_px, 3)`` uint8.
    """
    from PIL import Image

    corners = framing @ np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]])
    height, width = pixels.shape[:2]
    reach = max(-corners.min(), (corners[0] - width).max(), (corners[1] - height).max(), 0)
    margin = int(np.ceil(reach)) + 2
    padded = extend(pixels, (margin, margin, margin, margin))
    side = np.linalg.norm(framing[:, 0])
    # The cut is made at about the picture's own density and then reduced without aliases.
    finer = max(1, round(side / size_px))
    step = framing[:, :2] / (size_px * finer)
    start = framing[:, 2] + margin
    rows = [(*step[axis], start[axis]) for axis in (0, 1)]
    shape = (size_px * finer, size_px * finer)
    cut = Image.fromarray(padded).transform(
        shape, Image.Transform.AFFINE, (*rows[0], *rows[1]), Image.Resampling.BICUBIC
    )
    return np.array(cut.reduce(finer) if finer > 1 else cut)
