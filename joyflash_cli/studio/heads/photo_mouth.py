"""The mouth of a photographed person: where its lips end, and what light falls into it."""

import numpy as np

from joyflash_cli.studio.heads.face_points import cheeks
from joyflash_cli.studio.heads.ict_pack import IctAssets
from joyflash_cli.studio.heads.rasteriser import Lighting

SEAM = 0.02
"""What lies this near to the line between the photograph's lips is dark with it, in widths of the
mouth."""
ROLLED_IN, ROLLED_TONE = 0.1, 0.4
"""Skin that was hidden behind that line darkens over so many widths of the mouth, by so much."""
PALE = 0.42
"""Linear lightness of a pale cheek in a well exposed photograph."""
FOLLOWS_SKIN, FOLLOWS_TINT = 0.85, 0.8
"""How far the mouth's light follows a darker cheek, and a cheek of another tint."""
SKIN_TINT = np.array([1.38, 0.9, 0.68])
"""Linear colour of a cheek in white light, over its mean."""
FULL_COLOUR = 0.25
"""Cheeks with less of a colour than this are those of a drawing or a grey photograph."""


def lip_vertices(ict: IctAssets, *, moved: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of both lips ``(n,)``, and which of them belong to the lower one.

    Args:
        ict: The head pack.
        moved: Lips are what rolling them in moves by more than this, in decimetres.
    """
    lower = np.linalg.norm(ict.units["mouthRollLower"], axis=1)
    upper = np.linalg.norm(ict.units["mouthRollUpper"], axis=1)
    face = np.unique(ict.surfaces["face"].rows)
    rows = np.intersect1d(np.flatnonzero(np.maximum(lower, upper) > moved), face)
    return rows, lower[rows] > upper[rows]


def lips_apart(
    source: np.ndarray, points: np.ndarray, ict: IctAssets
) -> tuple[np.ndarray, np.ndarray]:
    """Keeps each lip's skin on its own side of the line between the photograph's lips.

    What is rolled in behind that line is not on the photograph: it takes the lip's last visible
    skin, and darkens.

    Args:
        source: ``(vertices, 2)`` places in the photograph, fractions of its side, y down.
        points: ``(68, 2)`` the usual facial points there.
        ict: The head pack.

    Returns:
        The places, and a factor ``(vertices,)`` on the photograph's lightness.
    """
    source, tone = source.copy(), np.ones(len(source), np.float32)
    width = np.linalg.norm(points[54] - points[48])
    rows, is_lower = lip_vertices(ict)
    for chosen, places, sign in (
        (rows[~is_lower], points[[60, 61, 62, 63, 64]], 1),
        (rows[is_lower], points[[60, 67, 66, 65, 64]], -1),
    ):
        order = places[:, 0].argsort()
        # Beyond the corners there is no line, only skin that moves along.
        left, right = places[order[[0, -1]], 0]
        chosen = chosen[(source[chosen, 0] > left) & (source[chosen, 0] < right)]
        line = np.interp(source[chosen, 0], places[order, 0], places[order, 1])
        line = line - sign * SEAM * width
        beyond = np.clip(sign * (source[chosen, 1] - line), 0, None)
        source[chosen, 1] -= sign * beyond
        tone[chosen] -= ROLLED_TONE * np.clip(beyond / (ROLLED_IN * width), 0, 1)
    return source, tone


def light_of(pixels: np.ndarray, points: np.ndarray) -> Lighting:
    """The light in which a photograph's mouth is rendered, judged by the cheeks.

    Args:
        pixels: ``(n, n, 3)`` 0..255.
        points: ``(12, 2)`` of its face, in pixels.
    """
    cheek = (np.median(cheeks(pixels, points), 0) / 255) ** 2 + 1e-3
    lightness = cheek.mean()
    tint = (cheek / lightness / SKIN_TINT) ** FOLLOWS_TINT
    light = (lightness / PALE) ** FOLLOWS_SKIN * tint / tint.mean()
    return Lighting(
        directions=np.array([[0.1, 0.3, 1.0]]), colours=(0.9 * light)[None], ambient=0.65 * light
    )


def colour_of(pixels: np.ndarray, points: np.ndarray) -> float:
    """How colourful a photograph's cheeks are, 0 grey .. 1 as skin is."""
    cheek = np.median(cheeks(pixels, points), 0)
    return float(np.clip(np.ptp(cheek) / max(cheek.mean(), 1) / FULL_COLOUR, 0, 1))
