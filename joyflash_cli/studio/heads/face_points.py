"""A few points of a face, and how far they say that lips and lids are open.

Rendered heads know theirs from their geometry; films of people have them recorded. Both give the
same quantities, all of them ratios, so that size and distance do not matter.
"""

from dataclasses import dataclass

import numpy as np

LIP_MEASURES = ("gap", "width", "lids")
"""Inner lip opening and mouth width over the distance of the outer eye corners, and lid opening
over the width of an eye (mean of both eyes)."""

PAIRS = ("outer_eyes", "inner_eyes", "upper_lids", "lower_lids", "mouth_corners")
"""Points that come left and right."""

BOX_PADDING = 0.04
"""Around eyes and mouth, in sides of the picture."""

CHEEK_SIDE = 0.1
"""Side of a patch of cheek over the distance of the outer eye corners."""


@dataclass(frozen=True)
class FacePoints:
    """Points in one picture, in pixels, x right and y down; pairs are left then right in it.

    Attributes:
        outer_eyes: Outer eye corners ``(..., 2, 2)``, likewise ``inner_eyes``.
        upper_lids: Middle of the upper lids' edges ``(..., 2, 2)``, likewise ``lower_lids``.
        mouth_corners: ``(..., 2, 2)``.
        upper_lip: Inner edge of the upper lip in the middle ``(..., 2)``, likewise ``lower_lip``;
            they meet where the mouth is closed.
    """

    outer_eyes: np.ndarray
    inner_eyes: np.ndarray
    upper_lids: np.ndarray
    lower_lids: np.ndarray
    mouth_corners: np.ndarray
    upper_lip: np.ndarray
    lower_lip: np.ndarray

    def measures(self) -> np.ndarray:
        """``(..., 3)`` float32 in the order of ``LIP_MEASURES``."""
        eyes_apart = _length(self.outer_eyes[..., 0, :] - self.outer_eyes[..., 1, :])
        gap = _length(self.upper_lip - self.lower_lip) / eyes_apart
        width = _length(self.mouth_corners[..., 0, :] - self.mouth_corners[..., 1, :]) / eyes_apart
        lids = _length(self.upper_lids - self.lower_lids)
        lids = (lids / _length(self.outer_eyes - self.inner_eyes)).mean(-1)
        return np.stack([gap, width, lids], -1).astype(np.float32)

    def cheeks(self, picture: np.ndarray) -> np.ndarray:
        """Pixels ``(n, 3)`` of both cheeks, half-way from eye to mouth corner, of one face."""
        reach = max(1, round(float(_length(np.diff(self.outer_eyes, axis=0)[0])) * CHEEK_SIDE / 2))
        patches = []
        for x, y in (self.outer_eyes + self.mouth_corners) / 2:
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
