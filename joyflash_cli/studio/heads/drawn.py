"""Drawn talking heads: parametric 2-D cartoons in several styles, one of them held out."""

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
from joyflash_cli.studio.heads import drawn_eyes, drawn_face
from joyflash_cli.studio.heads.drawn_eyes import EYE_LIFT, brow_height, iris_centre, lid_curves
from joyflash_cli.studio.heads.drawn_hair import shape_hair
from joyflash_cli.studio.heads.drawn_mouth import LIP_LIFT, draw_mouth, shape_mouth
from joyflash_cli.studio.heads.drawn_pen import DESIGN_SIZE, Canvas, Pen, Pose
from joyflash_cli.studio.heads.drawn_style import Identity, sample_identity
from joyflash_cli.studio.heads.face_state import FaceState, Split

_SCALE_JITTER = 0.06
_SHIFT_JITTER = 0.03
_SHOULDER_SHARE = 0.5
"""Shoulders follow half of the head's shift."""

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


class DrawnHead:
    """One drawn person; follows the ``Head`` protocol.

    Args:
        identity: Who it is.
        size_px: Side of the square picture.
        scale: Of the head against the nominal one.
        shift: Of the head against the nominal place, in fractions of the picture.
    """

    def __init__(
        self, identity: Identity, *, size_px: int, scale: float, shift: tuple[float, float]
    ) -> None:
        self.identity = identity
        self.size_px = size_px
        self._scale, self._shift = scale, shift
        self._canvas = Canvas(size_px)
        self._hair = shape_hair(identity)
        whole = Pose(size_px / DESIGN_SIZE, (size_px / 2, size_px / 2), flat=True)
        drawn_face.draw_backdrop(self._pen(whole), identity)
        self._backdrop = self._canvas.pixels.copy()
        mouth_y, eye_y = identity.mouth_y, identity.eye_y
        self.mouth_box = self._box(-20.0, mouth_y - 11.0, 20.0, mouth_y + 19.0)
        reach = identity.eye_x + max(identity.eye_half_width + 3.5, 9.0)
        low = eye_y + identity.eye_half_height + 3.0
        self.eyes_box = self._box(-reach, brow_height(identity) - 8.5, reach, low)

    def render(self, state: FaceState) -> np.ndarray:
        """RGB picture ``(size_px, size_px, 3)`` uint8."""
        identity, hair = self.identity, self._hair
        self._canvas.pixels[:] = self._backdrop
        head = self._pen(self._pose(state))
        body = self._pen(self._pose(state, shoulders=True))
        mouth = shape_mouth(identity, state)
        outline = drawn_face.face_outline(identity, mouth.chin_drop)
        drawn_face.draw_back_hair(head, identity, hair)
        drawn_face.draw_neck(body, head, identity, outline)
        drawn_face.draw_clothes(body, identity)
        drawn_face.draw_ears(head, identity)
        inside = drawn_face.draw_face(head, identity, outline, state)
        drawn_face.draw_beard(head, identity, mouth, outline, inside)
        drawn_face.draw_nose(head, identity)
        draw_mouth(head, identity, mouth, state)
        drawn_face.draw_moustache(head, identity, mouth)
        drawn_eyes.draw_eyes(head, identity, state)
        drawn_face.draw_hair(head, identity, hair, inside)
        drawn_eyes.draw_brows(head, identity, state)
        drawn_eyes.draw_glasses(head, identity)
        return self._canvas.picture()

    def render_with_mouth(self, state: FaceState) -> tuple[np.ndarray, np.ndarray]:
        """The picture, and how much of each pixel is the mouth's inside ``(S, S)`` 0..1."""
        picture = self.render(state)
        lips = self._pen(self._pose(state)).at(LIP_LIFT)
        return picture, lips.mask(shape_mouth(self.identity, state).opening)

    def points(self, state: FaceState) -> np.ndarray:
        """Points ``(12, 2)`` of the face in the picture of a face state, see ``FACE_POINTS``."""
        pose, mouth = self._pose(state), shape_mouth(self.identity, state)
        curves = np.array([lid_curves(self.identity, state, side) for side in (-1.0, 1.0)])
        lids = pose.to_pixels(curves.reshape(-1, 2), EYE_LIFT).reshape(2, 2, -1, 2)
        left, right = lids[:, 0]
        corners, middle = mouth.outer_upper[[0, -1]], len(mouth.inner_upper) // 2
        lips = np.array([*corners, mouth.inner_upper[middle], mouth.inner_lower[middle]])
        middles = lids[:, :, lids.shape[2] // 2].swapaxes(0, 1)
        eyes = [left[0], right[-1], left[-1], right[0], *middles.reshape(4, 2)]
        return np.concatenate([eyes, pose.to_pixels(lips, LIP_LIFT)])

    def canonical_points(self, state: FaceState) -> np.ndarray:
        """Points ``(P, 2)`` in pixels as ``media.inputs.face_points`` names them.

        NaN for brows and nose, which styles draw too freely.
        """
        points, pose = np.full((NUM_POINTS, 2), np.nan), self._pose(state)
        mouth = shape_mouth(self.identity, state)
        for group, lower, upper, places in (
            (LIPS_OUTER, mouth.outer_lower, mouth.outer_upper, _OUTER_LIP),
            (LIPS_INNER, mouth.inner_lower, mouth.inner_upper, _INNER_LIP),
        ):
            along = np.array(places + tuple(1 - place for place in places[-2::-1]))
            ring = [_on_curve(lower, along), _on_curve(upper, along[-2:0:-1])]
            points[group] = pose.to_pixels(np.concatenate(ring), LIP_LIFT)
        for lid, iris, side in ((RIGHT_LID, RIGHT_IRIS, -1.0), (LEFT_LID, LEFT_IRIS, 1.0)):
            upper, lower = lid_curves(self.identity, state, side)
            along_lower, along_upper = np.array(_LOWER_LID), np.array(_UPPER_LID)
            if side > 0:  # points begin at the outer corner, curves at the picture's left
                along_lower, along_upper = 1 - along_lower, 1 - along_upper
            ring = [_on_curve(lower, along_lower), _on_curve(upper, along_upper)]
            points[lid] = pose.to_pixels(np.concatenate(ring), EYE_LIFT)
            centre = iris_centre(self.identity, side)
            points[iris[0]] = pose.to_pixels(centre[None], EYE_LIFT)[0]
        points[_CHEEKS] = pose.to_pixels(_cheeks(self.identity, mouth.chin_drop))
        return points

    def _pen(self, pose: Pose) -> Pen:
        return Pen(self._canvas, self.identity.style, self.identity.palette.line, pose)

    def _pose(self, state: FaceState, *, shoulders: bool = False) -> Pose:
        size = self.size_px
        share = _SHOULDER_SHARE if shoulders else 1.0
        centre = (
            size * (0.5 + self._shift[0] + share * state.shift_x),
            size * (0.5 + self._shift[1] + share * state.shift_y),
        )
        scale = self._scale * size / DESIGN_SIZE
        if shoulders:
            return Pose(scale, centre, flat=True)
        return Pose(scale, centre, state.yaw, state.pitch, state.roll)

    def _box(self, left: float, top: float, right: float, bottom: float):
        corners = self._pose(FaceState()).to_pixels(np.array([[left, top], [right, bottom]]))
        box = np.concatenate([np.floor(corners[0]), np.ceil(corners[1])])
        return tuple(np.clip(box, 0, self.size_px).astype(int).tolist())


def _on_curve(curve: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Points of a curve ``(n, 2)`` from left to right, at fractions of its width."""
    share = (curve[:, 0] - curve[0, 0]) / max(float(curve[-1, 0] - curve[0, 0]), 1e-6)
    return np.stack([np.interp(along, share, curve[:, axis]) for axis in (0, 1)], 1)


def _cheeks(identity: Identity, chin_drop: float) -> np.ndarray:
    """The outline in the directions in which people's cheek points lie from the face's middle."""
    outline = drawn_face.face_outline(identity, chin_drop)
    away = outline - np.array([0.0, 0.55 * identity.eye_y + 0.45 * identity.mouth_y])
    around = 2 * np.pi
    angle = np.arctan2(away[:, 0], -away[:, 1]) % around
    order, wanted = np.argsort(angle), np.deg2rad(_CHEEK_ANGLES)
    places = [np.interp(wanted, angle[order], axis, period=around) for axis in outline[order].T]
    return np.stack(places, 1)


def sample_drawn(rng: np.random.Generator, *, size_px: int = 128, split: Split) -> DrawnHead:
    """A random drawn head; the same generator state gives the same head.

    Args:
        rng: Source of the identity and its framing.
        size_px: Side of the square picture.
        split: ``"held-out"`` draws in the style that ``"train"`` never uses.
    """
    identity = sample_identity(rng, split=split)
    scale = 1.0 + rng.uniform(-_SCALE_JITTER, _SCALE_JITTER)
    shift = rng.uniform(-_SHIFT_JITTER, _SHIFT_JITTER), rng.uniform(-_SHIFT_JITTER, _SHIFT_JITTER)
    return DrawnHead(identity, size_px=size_px, scale=scale, shift=shift)
