"""Carries what a MakeHuman head wears (skin, hair) over to the ICT head's shape.

Few corresponding points start a smooth warp of space from one mean head to the other; then nearby
surfaces pull it closer in a few rounds (non-rigid iterative closest point).
"""

from collections.abc import Callable

import numpy as np

from joyflash_cli.studio.heads.ict_pack import IctAssets
from joyflash_cli.studio.heads.makehuman_pack import MakeHumanAssets
from joyflash_cli.studio.heads.rasteriser_kernels import vertex_normals

NUM_PULLS = 500
REACH = 0.35
"""Surfaces further apart than this do not pull, in decimetres."""
SMOOTHING = (3e-2, 1e-2, 3e-3, 1e-3)
"""Of the thin-plate spline, round by round: stiff at first, lest a wrong neighbour be caught."""
_FACE_ONLY_ABOVE = 5.95
"""Below the jaw, bodies differ too much to be matched by nearness."""

# Vertices of the MakeHuman head beside facial points of the ICT pack.
_POINTS = ((132, 27), (297, 30), (2808, 33), (467, 51), (474, 62), (496, 57), (732, 8))


Warp = Callable[[np.ndarray], np.ndarray]
"""Moves ``(n, 3)`` points of the MakeHuman head to the ICT head."""


def fit_warp(source: MakeHumanAssets, target: IctAssets) -> Warp:
    """Fits the warp from the mean MakeHuman head to the mean ICT head."""
    from scipy.spatial import cKDTree

    near, far = _landmarks(source, target)
    rows, normals = _pulling_rows(source)
    skin = np.concatenate([target.surfaces[name].faces for name in ("face", "back")])
    shape = target.vertices[: target.skin_count]
    shape_normals = vertex_normals(shape, skin.astype(np.int32))
    tree = cKDTree(shape)
    warp = _spline(near, far, smoothing=SMOOTHING[0])
    for smoothing in SMOOTHING:
        start = source.vertices[rows]
        moved = warp(start)
        distance, index = tree.query(moved, k=12)
        # The nearest vertex whose surface looks the same way; the mouth's inside looks elsewhere.
        agrees = (shape_normals[index] * normals[:, None]).sum(-1) > 0.6
        cost = np.where(agrees, distance, np.inf)
        best = cost.argmin(1)
        chosen = cost[np.arange(len(rows)), best] < REACH
        found, moved = index[np.arange(len(rows)), best][chosen], moved[chosen]
        # Slide along the surface freely: only the distance to its tangent plane counts.
        tangent = shape_normals[found]
        goal = moved + ((shape[found] - moved) * tangent).sum(1, keepdims=True) * tangent
        warp = _spline(
            np.concatenate([near, start[chosen]]),
            np.concatenate([far, goal]),
            smoothing=smoothing,
        )
    return warp


def _spline(near: np.ndarray, far: np.ndarray, *, smoothing: float) -> Warp:
    """Thin-plate spline that moves ``near`` about to ``far``, both ``(n, 3)``."""
    from scipy.interpolate import RBFInterpolator

    spline = RBFInterpolator(near, far, smoothing=smoothing)
    return lambda points: spline(np.asarray(points, np.float64)).astype(np.float32)


def _landmarks(source: MakeHumanAssets, target: IctAssets) -> tuple[np.ndarray, np.ndarray]:
    near = [source.vertices[vertex] for vertex, _ in _POINTS]
    far = [target.points(point)[0] for _, point in _POINTS]
    eyes = source.proxies["eyes"].fit(source.vertices)
    for sign, name in ((1, "left_eye"), (-1, "right_eye")):
        near.append(_middle(eyes[eyes[:, 0] * sign > 0]))
        far.append(_middle(target.vertices[target.surfaces[name].rows]))
    head, skull = (
        source.vertices[np.unique(source.surface.rows)],
        target.vertices[: target.skin_count],
    )
    for sign in (1, -1):
        near.append(_extreme(head, np.array([sign, 0, 0])))
        far.append(_extreme(skull, np.array([sign, 0, 0])))
        near.append(_mouth_corner(source, sign))
        far.append(target.points(54 if sign > 0 else 48)[0])
    near.append(_extreme(head, np.array([0, 1, 0])))
    far.append(_extreme(skull, np.array([0, 1, 0])))
    return np.array(near, np.float64), np.array(far, np.float64)


def _middle(points: np.ndarray) -> np.ndarray:
    return (points.min(0) + points.max(0)) / 2


def _extreme(points: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """The point furthest in a direction, among those between jaw and crown (so the ear's rim)."""
    high = points[points[:, 1] > 6.6]
    return high[np.argmax(high @ direction)]


def _mouth_corner(source: MakeHumanAssets, sign: int) -> np.ndarray:
    """Where upper and lower lip meet: moved least apart by the jaw among the lip rows."""
    lips = np.linalg.norm(source.units["mouthRollLower"], axis=1) > 0.01
    lips &= np.isin(np.arange(len(lips)), source.surface.rows)
    points = source.vertices[lips]
    return points[np.argmax(points[:, 0] * sign)]


def _pulling_rows(source: MakeHumanAssets) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spread outer head vertices ``(n,)`` and their normals."""
    triangles = source.surface.faces.astype(np.int32)
    normals = vertex_normals(source.vertices, triangles)
    rows = np.unique(source.surface.rows)
    points = source.vertices[rows]
    middle = np.array([0.0, 7.3, 0.5])
    outward = ((points - middle) * normals[rows]).sum(1) > 0.25 * np.linalg.norm(
        points - middle, axis=1
    )
    rows = rows[outward & (points[:, 1] > _FACE_ONLY_ABOVE)]
    points = source.vertices[rows]
    chosen = [int(points[:, 2].argmax())]
    distance = np.linalg.norm(points - points[chosen[0]], axis=1)
    for _ in range(min(NUM_PULLS, len(rows)) - 1):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return rows[chosen], normals[rows[chosen]]
