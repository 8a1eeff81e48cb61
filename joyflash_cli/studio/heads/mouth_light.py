"""How much light comes into an open mouth, to teeth, tongue, gums and lining.

What lies behind the lips sees the sky only through the opening between them: the less, the deeper
it lies and the further it hides behind a lip, and not at all while they are closed.
"""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.studio.heads.face_points import MOUTH_CORNERS
from joyflash_cli.studio.heads.rasteriser import Material

CLOSED_IN = 0.03
"""Light that reaches a closed mouth."""
SPREAD = 0.6
"""Exponent on the free view: light that came in is passed on from wall to wall."""
PALE = 0.34
"""Reflectance of pale skin; ``EXPOSED`` is how far the mouth's light follows a darker one."""
EXPOSED = 0.55
NEAR = 0.035
"""Nothing is nearer to the opening than this, in decimetres: lips are thick."""


@dataclass(frozen=True)
class FaceRows:
    """Vertices of a head at its ``face_points.FACE_POINTS``.

    Attributes:
        pairs: ``(10,)`` eyes, lids and corners of the mouth, in the order of those points.
        upper_lip: ``(n,)`` vertices down the middle of the upper lip, from its outside to its
            back; the lowest of them is its edge in any shape. Likewise ``lower_lip``.
    """

    pairs: np.ndarray
    upper_lip: np.ndarray
    lower_lip: np.ndarray

    def lip_edges(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest place of the upper and highest of the lower lip, ``(3,)`` each.

        Pressed lips overlap in the mesh: then both are the place between them.
        """
        upper, lower = vertices[self.upper_lip], vertices[self.lower_lip]
        upper, lower = upper[upper[:, 1].argmin()], lower[lower[:, 1].argmax()]
        if upper[1] < lower[1]:
            upper = lower = (upper + lower) / 2
        return upper, lower

    def places(self, vertices: np.ndarray) -> np.ndarray:
        """The twelve points ``(12, 3)`` of an expression, whose ``vertices`` are ``(n, 3)``."""
        return np.concatenate([vertices[self.pairs], np.stack(self.lip_edges(vertices))])


def mouth_openness(
    vertices: np.ndarray, inside: np.ndarray, rows: FaceRows, *, gain: np.ndarray
) -> np.ndarray:
    """Light ``(n,)`` that reaches points inside the mouth, 0 dark .. 1 open.

    The opening is a slit whose upper and lower edge bend from corner to corner; a point's light is
    the part of the view ahead that the slit leaves free.

    Args:
        vertices: ``(vertices, 3)`` of the head, looking along +z.
        inside: ``(n,)`` vertices inside the mouth.
        rows: Where lips and corners are.
        gain: ``(n,)`` factor on the light.
    """
    upper, lower = rows.lip_edges(vertices)
    points, corners = vertices[inside], vertices[rows.pairs[MOUTH_CORNERS]]
    middle = corners.mean(0)
    half_width = max(np.ptp(corners[:, 0]) / 2, 1e-3)
    across = np.clip((points[:, 0] - middle[0]) / half_width, -1, 1)
    bend = (1 - across**2) ** 0.7
    plane = middle[2] + (max(upper[2], lower[2]) - middle[2]) * bend
    depth = np.maximum(plane - points[:, 2], 0) + NEAR
    above = middle[1] + (upper[1] - middle[1]) * bend - points[:, 1]
    below = middle[1] + (lower[1] - middle[1]) * bend - points[:, 1]
    tall = above / np.hypot(above, depth) - below / np.hypot(below, depth)
    right, left = half_width * (1 - across), half_width * (1 + across)
    wide = right / np.hypot(right, depth) + left / np.hypot(left, depth)
    return np.maximum((np.clip(tall, 0, None) * wide / 4) ** SPREAD * gain, CLOSED_IN)


def exposure_for(skin: Material) -> float:
    """Factor on the mouth's light: cameras expose for the face, the renderer's light does not.

    Without it, teeth between dark lips shine twice as light as the skin.
    """
    texture = skin.texture[::8, ::8, :3].astype(np.float32) / 255
    reflectance = float((texture**2 * np.asarray(skin.tint)).mean())
    return min(reflectance / PALE, 1.0) ** EXPOSED
