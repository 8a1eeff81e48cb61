"""Recorded points of faces in photographs and films, in the numbering of MediaPipe's face mesh.

They give what the renderer knows of its own heads: corners, lids and lips, and where a face is to
be cut out, so that the eyes always lie at the same place and the mouth at the same distance.
"""

import numpy as np

from joyflash_cli.media.inputs.similarity import extend
from joyflash_cli.studio.heads.face_points import FACE_POINTS

NUM_POINTS = 478

USUAL_68 = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389, 71, 63, 105,
    66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305, 33, 160, 158, 133, 153,
    144, 362, 385, 387, 263, 373, 380, 61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82,
    13, 312, 308, 317, 14, 87,
)  # fmt: skip
"""Points that stand for the usual 68: jaw, brows, nose, eyes, outer lips, inner lips."""

MIRRORED_68 = (
    16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 26, 25, 24, 23, 22, 21, 20, 19, 18,
    17, 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53,
    52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
)  # fmt: skip
"""Which of the 68 lies at each place of the face's mirror image."""

EYE_CORNERS = (33, 133, 362, 263)
MOUTH_CORNERS = (61, 291)
LIP_POINTS = (
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
"""Around the lips, outside and inside."""
EYE_POINTS = (
    33, 160, 159, 158, 133, 153, 145, 144, 362, 385, 386, 387, 263, 373, 374, 380,
    70, 105, 107, 336, 334, 300,
)  # fmt: skip
"""Around the eyes, with the brows above."""
EYE_CENTRE = (0.497, 0.425)
"""Where the middle of the four eye corners is put, in fractions of the side."""
EYE_TO_MOUTH = 0.252
"""Distance from there to the middle of the mouth's corners."""


def face_points(points: np.ndarray) -> np.ndarray:
    """Corners, lids and lips ``(..., 12, 2)`` among recorded points ``(..., 478, 2)``."""
    return np.asarray(points, np.float32)[..., FACE_POINTS, :]


def framing_of(points: np.ndarray, *, scale: float = 1.0, shift=(0.0, 0.0)) -> np.ndarray:
    """How a face is cut out upright, by its eyes and mouth.

    Args:
        points: ``(478, 2)`` in pixels of the picture.
        scale: Size of the face against the nominal one.
        shift: Of the face against the nominal place, in fractions of the side.

    Returns:
        ``(2, 3)`` affine map from the cut's fractions of its side to pixels of the picture.
    """
    points = np.asarray(points, np.float64)
    eyes = points[list(EYE_CORNERS)].mean(0)
    mouth = points[list(MOUTH_CORNERS)].mean(0)
    across = points[263] - points[33]
    across /= np.linalg.norm(across)
    side = np.linalg.norm(mouth - eyes) / (EYE_TO_MOUTH * scale)
    turn = np.array([[across[0], -across[1]], [across[1], across[0]]]) * side
    place = np.asarray(EYE_CENTRE) + shift
    return np.column_stack([turn, eyes - turn @ place])


def into_frame(points: np.ndarray, framing: np.ndarray) -> np.ndarray:
    """Fractions of the cut's side ``(..., 2)`` of points in pixels of the picture."""
    inverse = np.linalg.inv(framing[:, :2])
    return (np.asarray(points, np.float64) - framing[:, 2]) @ inverse.T


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
