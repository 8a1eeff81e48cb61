"""Points of a drawn face, on its own curves, named as in ``media.inputs.face_points``."""

import numpy as np

from joyflash_cli.media.inputs.face_points import (
    LEFT_IRIS,
    LEFT_LID,
    LIPS_INNER,
    LIPS_OUTER,
    NUM_POINTS,
    OUTLINE,
    RIGHT_IRIS,
    RIGHT_LID,
)
from joyflash_cli.studio.heads.drawn_eyes import EYE_LIFT, iris_centre, lid_curves
from joyflash_cli.studio.heads.drawn_face import face_outline
from joyflash_cli.studio.heads.drawn_mouth import LIP_LIFT, chin_drop, shape_mouth
from joyflash_cli.studio.heads.drawn_pen import Pose
from joyflash_cli.studio.heads.drawn_style import Identity
from joyflash_cli.studio.heads.face_state import FaceState

# How far along a curve from corner to corner the points lie on people: means of 88 faces.
_OUTER_LIP = (0.0, 0.05, 0.117, 0.22, 0.352, 0.5)
_INNER_LIP = (0.0, 0.082, 0.156, 0.254, 0.37, 0.5)
_LOWER_LID = (0.0, 0.074, 0.154, 0.272, 0.454, 0.639, 0.818, 0.939, 1.0)
_UPPER_LID = (0.933, 0.79, 0.595, 0.405, 0.222, 0.111, 0.049)

_CHEEKS = OUTLINE[7:30]
"""The outline below the eyes; above it hair decides where a face ends."""
_CHEEK_ANGLES = (
    71.1, 82.3, 94.5, 107.9, 121.4, 132.2, 140.8, 149.7, 156.7, 163.7, 171.1, 180.1,
    189.2, 196.5, 203.3, 210.2, 219.0, 227.6, 238.4, 252.0, 265.3, 277.5, 288.6,
)  # fmt: skip


def drawn_points(identity: Identity, state: FaceState, pose: Pose) -> np.ndarray:
    """Points ``(P, 2)`` in pixels; NaN for brows and nose, which styles draw too freely."""
    points = np.full((NUM_POINTS, 2), np.nan)
    mouth = shape_mouth(identity, state)
    for group, lower, upper, places in (
        (LIPS_OUTER, mouth.outer_lower, mouth.outer_upper, _OUTER_LIP),
        (LIPS_INNER, mouth.inner_lower, mouth.inner_upper, _INNER_LIP),
    ):
        along = np.array(places + tuple(1 - place for place in places[-2::-1]))
        ring = [_on_curve(lower, along), _on_curve(upper, along[-2:0:-1])]
        points[group] = pose.to_pixels(np.concatenate(ring), LIP_LIFT)
    for lid, iris, side in ((RIGHT_LID, RIGHT_IRIS, -1.0), (LEFT_LID, LEFT_IRIS, 1.0)):
        upper, lower = lid_curves(identity, state, side)
        along_lower, along_upper = np.array(_LOWER_LID), np.array(_UPPER_LID)
        if side > 0:  # points begin at the outer corner, curves at the picture's left
            along_lower, along_upper = 1 - along_lower, 1 - along_upper
        ring = [_on_curve(lower, along_lower), _on_curve(upper, along_upper)]
        points[lid] = pose.to_pixels(np.concatenate(ring), EYE_LIFT)
        centre = iris_centre(identity, side)
        points[iris[0]] = pose.to_pixels(centre[None], EYE_LIFT)[0]
    points[_CHEEKS] = pose.to_pixels(_cheeks(identity, state))
    return points


def _on_curve(curve: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Points of a curve ``(n, 2)`` from left to right, at fractions of its width."""
    share = (curve[:, 0] - curve[0, 0]) / max(float(curve[-1, 0] - curve[0, 0]), 1e-6)
    return np.stack([np.interp(along, share, curve[:, axis]) for axis in (0, 1)], 1)


def _cheeks(identity: Identity, state: FaceState) -> np.ndarray:
    """The outline in the directions in which people's cheek points lie from the face's middle."""
    outline = face_outline(identity, chin_drop(state))
    centre = np.array([0.0, 0.55 * identity.eye_y + 0.45 * identity.mouth_y])
    away = outline - centre
    angle = np.arctan2(away[:, 0], -away[:, 1]) % (2 * np.pi)
    order = np.argsort(angle)
    wanted = np.deg2rad(_CHEEK_ANGLES)
    x, y = outline[order].T
    around = 2 * np.pi
    return np.stack(
        [np.interp(wanted, angle[order], values, period=around) for values in (x, y)], 1
    )
