"""Drawn talking heads: parametric 2-D cartoons in several styles, one of them held out."""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.studio.heads.drawn_eyes import (
    EYE_LIFT,
    brow_height,
    draw_brows,
    draw_eyes,
    draw_glasses,
    lid_curves,
)
from joyflash_cli.studio.heads.drawn_face import (
    draw_backdrop,
    draw_beard,
    draw_clothes,
    draw_ears,
    draw_face,
    draw_hair,
    draw_moustache,
    draw_neck,
    draw_nose,
    face_outline,
)
from joyflash_cli.studio.heads.drawn_hair import shape_hair
from joyflash_cli.studio.heads.drawn_mouth import LIP_LIFT, chin_drop, draw_mouth, shape_mouth
from joyflash_cli.studio.heads.drawn_pen import Pen, Pose
from joyflash_cli.studio.heads.drawn_points import drawn_points
from joyflash_cli.studio.heads.drawn_style import Identity, sample_identity
from joyflash_cli.studio.heads.face_points import FacePoints
from joyflash_cli.studio.heads.face_state import FaceState, Split
from joyflash_cli.studio.heads.painter import Painter

_DESIGN_SIZE = 128.0
_SCALE_JITTER = 0.06
_SHIFT_JITTER = 0.03
_SHOULDER_SHARE = 0.5
"""Shoulders follow half of the head's shift."""


@dataclass(frozen=True)
class Framing:
    """Where the face sits: ``scale`` relative to nominal, shifts as fractions of the picture."""

    scale: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0


class DrawnHead:
    """One drawn person; follows the ``Head`` protocol."""

    def __init__(self, identity: Identity, *, framing: Framing, size_px: int):
        self.identity = identity
        self.size_px = size_px
        self._framing = framing
        self._painter = Painter(size_px)
        self._hair = shape_hair(identity)
        draw_backdrop(
            self._pen(Pose(size_px / _DESIGN_SIZE, (size_px / 2, size_px / 2), flat=True)), identity
        )
        self._backdrop = self._painter.snapshot()
        mouth_y, eye_y = identity.mouth_y, identity.eye_y
        self.mouth_box = self._box(-20.0, mouth_y - 11.0, 20.0, mouth_y + 19.0)
        eye_reach = identity.eye_x + max(identity.eye_half_width + 3.5, 9.0)
        tall = identity.eye_half_height
        self.eyes_box = self._box(
            -eye_reach, brow_height(identity) - 8.5, eye_reach, eye_y + tall + 3.0
        )

    def render(self, state: FaceState) -> np.ndarray:
        """RGB picture ``(size_px, size_px, 3)`` uint8."""
        identity = self.identity
        self._painter.load(self._backdrop)
        head = self._pen(self._pose(state))
        body = self._pen(self._pose(state, shoulders=True))
        outline = face_outline(identity, chin_drop(state))
        draw_hair(head, identity, self._hair, back=True)
        draw_neck(body, head, identity, outline)
        draw_clothes(body, identity)
        draw_ears(head, identity)
        inside = draw_face(head, identity, outline, state)
        draw_beard(head, identity, outline, state, inside)
        draw_nose(head, identity)
        draw_mouth(head, identity, state)
        draw_moustache(head, identity, state)
        draw_eyes(head, identity, state)
        draw_hair(head, identity, self._hair, back=False, face=inside)
        draw_brows(head, identity, state)
        draw_glasses(head, identity)
        return self._painter.picture()

    def render_with_mouth(self, state: FaceState) -> tuple[np.ndarray, np.ndarray]:
        """The picture, and how much of each pixel is the mouth's inside ``(S, S)`` 0..1."""
        picture = self.render(state)
        mouth = shape_mouth(self.identity, state)
        opening = np.concatenate([mouth.inner_upper, mouth.inner_lower[::-1]])
        return picture, self._pen(self._pose(state)).mask(opening, lift=LIP_LIFT)

    def points(self, state: FaceState) -> FacePoints:
        """Points of the face in the picture of a face state."""
        mouth = shape_mouth(self.identity, state)
        upper, lower = zip(
            *(lid_curves(self.identity, state, side) for side in (-1.0, 1.0)), strict=True
        )
        pose = self._pose(state)
        eyes = pose.to_pixels(np.concatenate([*upper, *lower]), EYE_LIFT)
        upper, lower = eyes.reshape(2, 2, -1, 2)
        corners = np.stack([mouth.outer_upper[0], mouth.outer_upper[-1]])
        across = len(mouth.inner_upper) // 2
        lips = np.stack([mouth.inner_upper[across], mouth.inner_lower[across]])
        lips = pose.to_pixels(np.concatenate([corners, lips]), LIP_LIFT)
        return FacePoints(
            outer_eyes=np.stack([upper[0, 0], upper[1, -1]]),
            inner_eyes=np.stack([upper[0, -1], upper[1, 0]]),
            upper_lids=upper[:, upper.shape[1] // 2],
            lower_lids=lower[:, upper.shape[1] // 2],
            mouth_corners=lips[:2],
            upper_lip=lips[2],
            lower_lip=lips[3],
        )

    def canonical_points(self, state: FaceState) -> np.ndarray:
        """Points ``(P, 2)`` in pixels, NaN where unknown; see ``media.inputs.face_points``."""
        return drawn_points(self.identity, state, self._pose(state))

    def _pen(self, pose: Pose) -> Pen:
        return Pen(self._painter, self.identity.style, self.identity.palette.line, pose)

    def _pose(self, state: FaceState, *, shoulders: bool = False) -> Pose:
        framing, size = self._framing, self.size_px
        share = _SHOULDER_SHARE if shoulders else 1.0
        centre = (
            size * (0.5 + framing.shift_x + share * state.shift_x),
            size * (0.5 + framing.shift_y + share * state.shift_y),
        )
        scale = framing.scale * size / _DESIGN_SIZE
        if shoulders:
            return Pose(scale, centre, flat=True)
        return Pose(scale, centre, state.yaw, state.pitch, state.roll)

    def _box(self, left: float, top: float, right: float, bottom: float):
        corners = self._pose(FaceState()).to_pixels(np.array([[left, top], [right, bottom]]))
        low, high = np.floor(corners[0]), np.ceil(corners[1])
        low, high = np.clip([low, high], 0, self.size_px).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def sample_drawn(rng: np.random.Generator, *, size_px: int = 128, split: Split) -> DrawnHead:
    """A random drawn head; the same generator state gives the same head.

    Args:
        rng: Source of the identity and its framing.
        size_px: Side of the square picture.
        split: ``"held-out"`` draws in the style that ``"train"`` never uses.
    """
    identity = sample_identity(rng, split=split)
    framing = Framing(
        scale=1.0 + rng.uniform(-_SCALE_JITTER, _SCALE_JITTER),
        shift_x=rng.uniform(-_SHIFT_JITTER, _SHIFT_JITTER),
        shift_y=rng.uniform(-_SHIFT_JITTER, _SHIFT_JITTER),
    )
    return DrawnHead(identity, framing=framing, size_px=size_px)
