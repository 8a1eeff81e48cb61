"""What a head is asked to show: viseme weights, eyes and pose; and what a head is."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

VISEMES = ("jaw", "width", "round", "press", "teeth", "tongue")
"""Mouth parameters, each about 0..1 (width -0.5..1): jaw drop, lip corners apart, lips rounded,
lips pressed together, lower lip to teeth or teeth shown, tongue up."""

MOUTH_TRACKS = (*VISEMES, "lip_gap", "lip_width")
"""What may be known of a mouth: visemes of rendered heads; of films as well the opening and the
width of the lips, in distances of the outer eye corners."""

Split = Literal["train", "held-out"]
"""Which assets (skins, hairs, drawn style, voices) and identity seeds may be used."""

HELD_OUT_EVERY = 10
"""Identity indices i with i % 10 == 9 are never trained on."""


def is_held_out(identity_index: int) -> bool:
    """Whether this identity belongs to the held-out split."""
    return identity_index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


@dataclass(frozen=True)
class FaceState:
    """One frame's pose and expression.

    Attributes:
        visemes: ``(6,)`` in the order of ``VISEMES``.
        blink: Eyelids, 0 open .. 1 closed.
        smile: 0..1.
        brow: Inner brows up, 0..1.
        yaw: Head turn in radians, also ``pitch`` and ``roll``.
        shift_x: Head shift as a fraction of the picture's width, also ``shift_y`` (down positive).
    """

    visemes: np.ndarray = field(default_factory=lambda: np.zeros(len(VISEMES), np.float32))
    blink: float = 0.0
    smile: float = 0.0
    brow: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0


class Head(Protocol):
    """One identity with its clothes, light, background and framing fixed."""

    size_px: int
    mouth_box: tuple[int, int, int, int]
    """``(x0, y0, x1, y1)`` in pixels in the neutral pose, generous enough for an open mouth."""
    eyes_box: tuple[int, int, int, int]

    def render(self, state: FaceState) -> np.ndarray:
        """RGB picture ``(size_px, size_px, 3)`` uint8."""
        ...

    def render_with_mouth(self, state: FaceState) -> tuple[np.ndarray, np.ndarray]:
        """The picture, and how much of each pixel shows the mouth's inside ``(S, S)`` 0..1."""
        ...

    def points(self, state: FaceState) -> np.ndarray:
        """Points ``(12, 2)`` of the face in the picture of a face state, see ``FACE_POINTS``."""
        ...

    def canonical_points(self, state: FaceState) -> np.ndarray:
        """Points ``(P, 2)`` in pixels, NaN where unknown; see ``media.inputs.face_points``."""
        ...
