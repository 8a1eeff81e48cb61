"""What the embedded weights of the face networks fix: their sizes, and the points of a face.

The points are a subset of the canonical face mesh of 478, in a fixed order. Left and right are the
person's own: ``RIGHT_LID`` is on the left of an unmirrored picture.
"""

import numpy as np

ASSET = "assets/points/points.safetensors"

FINDER_STRIDE = 8
"""Pixels between two places at which the finder looks for a face."""

FINDER_REACH_PX = (6.0, 32.0)
"""Distances from eyes to mouth that the finder sees; larger faces need a smaller picture."""

CROP_PX = 128
CROP_EYES_TO_MOUTH = 0.27
"""Side of the crop whose points are read; from eyes to mouth in it, as a fraction of the side."""

_LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375,
               291, 409, 270, 269, 267, 0, 37, 39, 40, 185)  # fmt: skip
_LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324,
               308, 415, 310, 311, 312, 13, 82, 81, 80, 191)  # fmt: skip
_RIGHT_LID = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
_LEFT_LID = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
_RIGHT_BROW = (46, 53, 52, 65, 55, 107, 66, 105, 63, 70)
_LEFT_BROW = (276, 283, 282, 295, 285, 336, 296, 334, 293, 300)
_RIGHT_IRIS = (468, 469, 470, 471, 472)
_LEFT_IRIS = (473, 476, 475, 474, 477)
_NOSE = (168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 97, 326, 327, 64, 294, 48, 278)
_OUTLINE = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
            152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67,
            109)  # fmt: skip

_GROUPS = (
    _LIPS_OUTER, _LIPS_INNER, _RIGHT_LID, _LEFT_LID, _RIGHT_BROW, _LEFT_BROW,
    _RIGHT_IRIS, _LEFT_IRIS, _NOSE, _OUTLINE,
)  # fmt: skip
CANONICAL = tuple(index for group in _GROUPS for index in group)
"""Number of every point in the canonical mesh, in the order in which points are given."""

NUM_POINTS = len(CANONICAL)


def points_of(canonical: tuple[int, ...]) -> np.ndarray:
    """Places ``(n,)`` of points that are named by their canonical numbers."""
    return np.array([CANONICAL.index(number) for number in canonical])


LIPS_OUTER = points_of(_LIPS_OUTER)
"""From the person's right corner along the lower lip, then back along the upper one."""
LIPS_INNER = points_of(_LIPS_INNER)
RIGHT_LID, LEFT_LID = points_of(_RIGHT_LID), points_of(_LEFT_LID)
"""From the outer corner along the lower lid, then back along the upper one."""
RIGHT_BROW, LEFT_BROW = points_of(_RIGHT_BROW), points_of(_LEFT_BROW)
RIGHT_IRIS, LEFT_IRIS = points_of(_RIGHT_IRIS), points_of(_LEFT_IRIS)
"""Centre, then inward, up, outward and down of the iris."""
NOSE, OUTLINE = points_of(_NOSE), points_of(_OUTLINE)

EYE_CORNERS = points_of((33, 133, 362, 263))
"""Outer and inner of the right eye, inner and outer of the left."""
MOUTH_CORNERS = points_of((61, 291))
NOSE_TIP = points_of((1,))[0]


def _mirrored_order() -> np.ndarray:
    pairs: dict[int, int] = {}
    for ring in (_LIPS_OUTER, _LIPS_INNER, _OUTLINE):
        turn = 0 if ring is _OUTLINE else len(ring) // 2
        pairs |= {number: ring[(turn - place) % len(ring)] for place, number in enumerate(ring)}
    for right, left in ((_RIGHT_LID, _LEFT_LID), (_RIGHT_BROW, _LEFT_BROW)):
        pairs |= dict(zip(right + left, left + right, strict=True))
    pairs |= dict(zip(_RIGHT_IRIS + _LEFT_IRIS, _LEFT_IRIS + _RIGHT_IRIS, strict=True))
    pairs |= {number: number for number in _NOSE[:10]}
    pairs |= {98: 327, 327: 98, 97: 326, 326: 97, 64: 294, 294: 64, 48: 278, 278: 48}
    return points_of(tuple(pairs[number] for number in CANONICAL))


MIRRORED = _mirrored_order()
"""In a mirrored picture, point ``i`` is where ``MIRRORED[i]`` was."""
