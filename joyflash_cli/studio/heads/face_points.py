"""A few points of a face, and how far they say that lips and lids are open.

Rendered heads know theirs from their geometry; films of people have them recorded. Both are arrays
``(..., 12, 2)`` in pixels, x right and y down, and give the same quantities, all of them ratios, so
that size and distance do not matter.
"""

import numpy as np

FACE_POINTS = (33, 263, 133, 362, 159, 386, 145, 374, 61, 291, 13, 14)
"""The twelve points by their numbers in the canonical mesh; pairs are left then right in the
picture. Lips meet where the mouth is closed."""
OUTER_EYES, INNER_EYES = slice(0, 2), slice(2, 4)
UPPER_LIDS, LOWER_LIDS = slice(4, 6), slice(6, 8)
MOUTH_CORNERS = slice(8, 10)
UPPER_LIP, LOWER_LIP = 10, 11

LIP_MEASURES = ("gap", "width", "lids")
"""Inner lip opening and mouth width over the distance of the outer eye corners, and lid opening
over the width of an eye (mean of both eyes)."""

BOX_PADDING = 0.04
"""Around eyes and mouth, in sides of the picture."""

CHEEK_SIDE = 0.1
"""Side of a patch of cheek over the distance of the outer eye corners."""


def measures(points: np.ndarray) -> np.ndarray:
    """``(..., 3)`` float32 in the order of ``LIP_MEASURES``."""
    eyes, corners = points[..., OUTER_EYES, :], points[..., MOUTH_CORNERS, :]
    eyes_apart = _length(eyes[..., 0, :] - eyes[..., 1, :])
    gap = _length(points[..., UPPER_LIP, :] - points[..., LOWER_LIP, :]) / eyes_apart
    width = _length(corners[..., 0, :] - corners[..., 1, :]) / eyes_apart
    lids = _length(points[..., UPPER_LIDS, :] - points[..., LOWER_LIDS, :])
    lids = (lids / _length(eyes - points[..., INNER_EYES, :])).mean(-1)
    return np.stack([gap, width, lids], -1).astype(np.float32)


def cheeks(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Pixels ``(n, 3)`` of both cheeks, half-way from eye to mouth corner, of one face."""
    eyes = points[OUTER_EYES]
    reach = max(1, round(float(_length(eyes[1] - eyes[0])) * CHEEK_SIDE / 2))
    patches = []
    for x, y in (eyes + points[MOUTH_CORNERS]) / 2:
        column, row = max(int(x), reach), max(int(y), reach)
        patch = picture[row - reach : row + reach + 1, column - reach : column + reach + 1]
        patches.append(patch.reshape(-1, 3))
    return np.concatenate(patches)


def box_around(places: np.ndarray, size_px: int) -> tuple[int, int, int, int]:
    """Pixels ``(x0, y0, x1, y1)`` of a box around places ``(n, 2)`` in fractions of the side."""
    corners = (*(places.min(0) - BOX_PADDING), *(places.max(0) + BOX_PADDING))
    x0, y0, x1, y1 = (round(float(np.clip(c, 0, 1)) * size_px) for c in corners)
    return x0, y0, x1, y1


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1)
