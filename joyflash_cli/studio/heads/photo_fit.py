"""Fits the ICT head to recorded points of a photographed face, so that it can be moved."""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.studio.heads.face_points import cheeks
from joyflash_cli.studio.heads.ict_pack import IctAssets
from joyflash_cli.studio.heads.rasteriser import Lighting

NUM_MODES = 40
NUM_ROUNDS = 12
MODE_COST, UNIT_COST = 0.027, 0.009
"""Squared decimetres that a weight of 1 must save: few points must not bend a head much."""
FITTED_UNITS = (
    "mouthSmileLeft", "mouthSmileRight", "mouthPucker", "mouthStretchLeft", "mouthStretchRight",
    "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "eyeBlinkLeft", "eyeBlinkRight",
)  # fmt: skip
"""Expressions a photographed face may have; its lips are closed or nearly so."""
LEAST_WEIGHT = -0.3
"""Of an expression: brows may be lower and eyes wider than the mean head's."""
JAW_WEIGHT, EAR_WEIGHT = 0.35, 0.1
"""How far points of the jaw's outline count: which skin makes the outline depends on the turn."""
INNER_LIPS = ((61, 67), (62, 66), (63, 65))
"""Upper and lower points between the lips."""
BEND_REACH = 0.6
"""Beyond this distance from any point, in decimetres, the rest of the fit's error is let be."""
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


@dataclass(frozen=True)
class Photo:
    """A framed photograph.

    Attributes:
        pixels: ``(n, n, 3)`` uint8, best twice as fine as the pictures to be made of it.
        points: ``(68, 2)`` the usual facial points in fractions of its side, y down.
    """

    pixels: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class PhotoFit:
    """A head under a photograph.

    Attributes:
        rotation: ``(3, 3)`` from the head to the camera, x right, y up.
        scale: Sides of the picture per decimetre.
        shift: ``(2,)`` where the head's origin falls, in sides, x right, y up.
        vertices: ``(vertices, 3)`` of the face as photographed, lips together.
        bend: ``(vertices, 2)`` what the photograph differs by, in decimetres of the camera.
        error: Root mean square of what was left before ``bend``, in sides.
    """

    rotation: np.ndarray
    scale: float
    shift: np.ndarray
    vertices: np.ndarray
    bend: np.ndarray
    error: float


def fit_photo(ict: IctAssets, points: np.ndarray) -> PhotoFit:
    """Fits turn, size, shape and expression to the usual 68 points.

    Args:
        ict: The head pack.
        points: ``(68, 2)`` in fractions of the picture's side, y down.
    """
    goal = _lips_together(np.asarray(points, np.float64) * [1, -1])
    rows = ict.landmarks
    units = np.stack([ict.units[name] for name in FITTED_UNITS])
    modes = ict.modes[:NUM_MODES].astype(np.float32)
    basis = np.concatenate([modes[:, rows], units[:, rows]]).astype(np.float64)
    cost = np.repeat([MODE_COST, UNIT_COST], [len(modes), len(units)])
    weight = np.ones(68)
    weight[:17], weight[[0, 16]] = JAW_WEIGHT, EAR_WEIGHT
    start, amounts = ict.vertices[rows].astype(np.float64), np.zeros(len(basis))
    for _ in range(NUM_ROUNDS):
        shape = start + np.tensordot(amounts, basis, 1)
        rotation, scale, shift = _camera(shape, goal, weight)
        seen = (basis @ rotation[:2].T * weight[:, None]).reshape(len(basis), -1).T
        missing = ((goal - shift) / scale - start @ rotation[:2].T) * weight[:, None]
        amounts = np.linalg.solve(seen.T @ seen + np.diag(cost), seen.T @ missing.ravel())
        amounts[len(modes) :] = np.clip(amounts[len(modes) :], LEAST_WEIGHT, 1)
    shape = start + np.tensordot(amounts, basis, 1)
    rotation, scale, shift = _camera(shape, goal, weight)
    left = goal - (scale * shape @ rotation[:2].T + shift)
    vertices = ict.vertices + np.tensordot(amounts, np.concatenate([modes, units]), 1)
    seen = _lips_together(shape @ rotation[:2].T)
    bend = _bend(seen, (goal - shift) / scale, vertices @ rotation[:2].T)
    error = float(np.sqrt((left**2).sum(1).mean()))
    return PhotoFit(rotation, scale, shift, vertices.astype(np.float32), bend, error)


def _lips_together(points: np.ndarray) -> np.ndarray:
    points = points.copy()
    for upper, lower in INNER_LIPS:
        points[[upper, lower]] = points[[upper, lower]].mean(0)
    return points


def _camera(
    shape: np.ndarray, goal: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    """Weak perspective: rotation ``(3, 3)``, scale and shift ``(2,)`` that bring shape to goal."""
    rows = np.column_stack([shape, np.ones(len(shape))]) * weight[:, None]
    affine = np.linalg.lstsq(rows, goal * weight[:, None], rcond=None)[0].T
    scale = float(np.linalg.norm(affine[:, :3], axis=1).mean())
    left, _, right = np.linalg.svd(affine[:, :3] / scale, full_matrices=False)
    plane = left @ right
    rotation = np.stack([*plane, np.cross(*plane)])
    shift = ((goal - scale * shape @ plane.T) * weight[:, None]).sum(0) / weight.sum()
    return rotation, scale, shift


def _bend(near: np.ndarray, far: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A smooth movement of the plane that takes ``near`` to ``far``, at ``points``; all in dm."""
    from scipy.interpolate import RBFInterpolator
    from scipy.spatial import cKDTree

    chosen = np.setdiff1d(np.arange(68), [lower for _, lower in INNER_LIPS])
    spline = RBFInterpolator(near[chosen], (far - near)[chosen], smoothing=1e-4)
    distance = cKDTree(near).query(points)[0]
    fading = np.exp(-((distance / BEND_REACH) ** 2))
    return (spline(points) * fading[:, None]).astype(np.float32)


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
