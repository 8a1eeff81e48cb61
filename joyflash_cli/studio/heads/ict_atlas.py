"""What every texel of the ICT head's textures shows: its place on the head, and what lies there.

All maps are made once on the mean head. Because they are painted by place in space and not by
texture coordinate, they have no seams.
"""

from dataclasses import dataclass, replace

import numpy as np

from joyflash_cli.studio.heads.ict_pack import IctAssets, triangles_of_island
from joyflash_cli.studio.heads.ict_warp import Warp
from joyflash_cli.studio.heads.makehuman_pack import MakeHumanAssets
from joyflash_cli.studio.heads.painter import smoothstep, spline
from joyflash_cli.studio.heads.rasteriser import Surface, new_buffers
from joyflash_cli.studio.heads.rasteriser_kernels import rasterise

TILE_PX = {"face": 512, "back": 384}
LINING_UV = (0.12, 0.85)
"""A place on the lining of the mouth in the tile ``back``."""
SAMPLE_SPACING = 0.02
"""Distance of the points that stand for the MakeHuman skin, in decimetres."""


@dataclass(frozen=True)
class Tile:
    """Maps of one texture, ``(side, side)`` each, row 0 at the top (v = 1).

    Attributes:
        place: ``(side, side, 3)`` point of the mean head; empty texels repeat the nearest one.
        skin_uv: ``(side, side, 2)`` the same spot in a MakeHuman skin texture.
        lips: 0..1 red of the lips, soft at its rim.
        brows: 0..1 density of brow hair.
        scalp: Signed height above the hairline in decimetres, positive where hair grows.
        beard: 0..1 density of stubble.
        inside: 0..1 inside of the mouth.
        blush: 0..1 cheeks, nose and ears, where blood shows.
    """

    place: np.ndarray
    skin_uv: np.ndarray
    lips: np.ndarray
    brows: np.ndarray
    scalp: np.ndarray
    beard: np.ndarray
    inside: np.ndarray
    blush: np.ndarray


def build_tiles(ict: IctAssets, makehuman: MakeHumanAssets, warp: Warp) -> dict[str, Tile]:
    """Tiles of ``face`` and ``back``; takes a few seconds, so keep them."""
    skin = _SkinFinder(makehuman, warp)
    tiles = {}
    for name, side in TILE_PX.items():
        surface = ict.surfaces[name]
        place, triangle = _places(surface, ict.vertices, side)
        tiles[name] = _tile(place, ict, skin)
        if name == "back":
            lining = triangles_of_island(surface, LINING_UV)[triangle]
            tiles[name] = replace(
                tiles[name], inside=lining.astype(np.float32), lips=0 * tiles[name].lips
            )
    return tiles


def _places(surface: Surface, vertices: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Point of the head behind each texel ``(side, side, 3)`` and its triangle ``(side, side)``."""
    from scipy.ndimage import distance_transform_edt

    x = (surface.uv[:, 0] * side).astype(np.float32)
    y = ((1 - surface.uv[:, 1]) * side).astype(np.float32)
    triangles = surface.triangles.astype(np.int32).copy()
    i, j, k = triangles.T
    area = (x[j] - x[i]) * (y[k] - y[i]) - (x[k] - x[i]) * (y[j] - y[i])
    triangles[area > 0] = triangles[area > 0][:, [0, 2, 1]]
    depth, index, first, second = buffers = new_buffers(side)
    depth.fill(np.inf)
    index.fill(-1)
    ones = np.ones(len(x), np.float32)
    mesh = (triangles, np.zeros(len(triangles), np.int32), surface.uv)
    plain = (np.zeros((1, 4), np.uint8), np.array([[0, 1, 1]]), np.zeros(1, np.int64))
    rasterise(x, y, 0 * ones, ones, mesh, plain, buffers)
    weights = np.stack([first, second, 1 - first - second], -1)
    corners = vertices[surface.rows[triangles[np.maximum(index, 0)]]]
    place = (corners * weights[..., None]).sum(2).astype(np.float32)
    nearest = distance_transform_edt(index < 0, return_distances=False, return_indices=True)
    return place[tuple(nearest)], index[tuple(nearest)]


class _SkinFinder:
    """Finds the MakeHuman skin's texture coordinate nearest to a point of the ICT head."""

    def __init__(self, makehuman: MakeHumanAssets, warp: Warp) -> None:
        from scipy.spatial import cKDTree

        skin = makehuman.surface
        corners = warp(makehuman.vertices)[skin.faces]
        outer = _is_outer(corners)
        self._corners = corners[outer]
        self._uv = skin.uv[skin.triangles][outer]
        edges = self._corners[:, 1:] - self._corners[:, :1]
        area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1) / 2
        counts = np.clip(np.ceil(area / SAMPLE_SPACING**2), 1, 200).astype(int)
        self._triangle = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(self._triangle)) - np.repeat(np.cumsum(counts) - counts, counts)
        first, second = np.modf(0.5 + np.outer([0.7548777, 0.5698403], number))[0]
        fold = first + second > 1
        first, second = np.where(fold, 1 - first, first), np.where(fold, 1 - second, second)
        weights = np.stack([1 - first - second, first, second], 1)[..., None]
        self._tree = cKDTree((self._corners[self._triangle] * weights).sum(1))

    def uv(self, points: np.ndarray) -> np.ndarray:
        """Texture coordinates ``(n, 2)`` of the skin nearest to points ``(n, 3)``."""
        triangle = self._triangle[self._tree.query(points)[1]]
        a, b, c = np.moveaxis(self._corners[triangle], 1, 0)
        ab, ac, ap = b - a, c - a, points - a
        # Barycentric coordinates of the foot of the perpendicular, kept inside the triangle.
        d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
        d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
        scale = 1 / np.maximum(d00 * d11 - d01 * d01, 1e-12)
        second = np.clip((d11 * d20 - d01 * d21) * scale, 0, 1)
        third = np.clip((d00 * d21 - d01 * d20) * scale, 0, 1 - second)
        weights = np.stack([1 - second - third, second, third], 1)[..., None]
        return (self._uv[triangle] * weights).sum(1).astype(np.float32)


def _is_outer(corners: np.ndarray) -> np.ndarray:
    """Triangles that look away from the head's axis: no mouth's inside, no eye sockets."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    centre = corners.mean(1)
    axis = np.stack([0 * centre[:, 0], np.minimum(centre[:, 1], 7.6), 0 * centre[:, 0] + 0.45], 1)
    return (normal * (centre - axis)).sum(1) > 0


def _tile(place: np.ndarray, ict: IctAssets, skin: _SkinFinder) -> Tile:
    side = len(place)
    flat = place.reshape(-1, 3)
    from_lips = _distance_from_lips(flat, ict)
    maps = {
        "lips": smoothstep(from_lips, 0.012, -0.012),
        "brows": _brows(flat, ict),
        "scalp": above_hairline(flat),
        "beard": _beard(flat) * smoothstep(from_lips, -0.02, 0.04),
        "inside": _inside_mouth(flat, ict) * smoothstep(from_lips, 0.01, -0.01),
        "blush": _blush(flat, ict),
    }
    shaped = {name: values.reshape(side, side).astype(np.float32) for name, values in maps.items()}
    return Tile(place=place, skin_uv=skin.uv(flat).reshape(side, side, 2), **shaped)


def _distance_from_lips(points: np.ndarray, ict: IctAssets) -> np.ndarray:
    """Signed distance to the red's outline seen from the front, negative inside; far away 1."""
    outline = spline(ict.points(*range(48, 60))[:, :2], closed=True, steps=8)
    near = (np.abs(points[:, :2] - outline.mean(0)) < 0.5).all(1) & (points[:, 2] > 1.25)
    distance = np.ones(len(points))
    distance[near] = _signed_distance(points[near, :2], outline)
    return distance


def _inside_mouth(points: np.ndarray, ict: IctAssets) -> np.ndarray:
    """What lies behind the line where the lips meet."""
    depth = ict.points(62)[0][2] - 0.02 - 0.5 * np.abs(points[:, 0]) ** 1.5
    return smoothstep(points[:, 2], depth, depth - 0.06)


def _brows(points: np.ndarray, ict: IctAssets) -> np.ndarray:
    """Density of the brows: thick by the nose, thin at the temple."""
    density = np.zeros(len(points))
    for indices in ((22, 23, 24, 25, 26), (21, 20, 19, 18, 17)):
        curve = ict.points(*indices)[:, :2].astype(np.float64)
        curve[:, 1] -= 0.02
        curve = spline(curve, steps=10)
        low, high = curve.min(0) - 0.15, curve.max(0) + 0.15
        near = np.flatnonzero(
            ((points[:, :2] > low) & (points[:, :2] < high)).all(1) & (points[:, 2] > 1.0)
        )
        start, distance = _nearest_on_curve(points[near, :2], curve)
        half = 0.052 * (1 - 0.55 * smoothstep(start, 0.45, 1.0)) * smoothstep(start, -0.12, 0.15)
        density[near] = np.maximum(density[near], smoothstep(distance, half * 1.25, half * 0.45))
    return density


def above_hairline(points: np.ndarray) -> np.ndarray:
    """Height ``(n,)`` above a line over the forehead, in front of the ears and down to the nape."""
    x, y, z = points.T
    forehead = 8.03 - 0.9 * np.maximum(np.abs(x) - 0.25, 0) ** 1.5
    ear = 7.36 + 0.0 * x
    nape = 6.62 + 0.0 * x
    front = smoothstep(z, 0.62, 1.15)
    rear = smoothstep(z, 0.42, 0.12)
    line = front * forehead + (1 - front) * (rear * nape + (1 - rear) * ear)
    return y - line


def _beard(points: np.ndarray) -> np.ndarray:
    """Jaw, chin and upper lip, thinning out towards cheeks and throat."""
    x, y, z = points.T
    jaw = smoothstep(y - 0.55 * np.maximum(np.abs(x) - 0.25, 0), 6.72, 6.5)
    throat = smoothstep(y, 5.85, 6.05)
    front = smoothstep(z, 0.45, 0.75)
    moustache = smoothstep(np.abs(x), 0.34, 0.24) * smoothstep(y, 6.84, 6.76)
    moustache *= smoothstep(y, 6.5, 6.6) * (z > 1.2)
    return np.maximum(jaw, moustache) * throat * front


def _blush(points: np.ndarray, ict: IctAssets) -> np.ndarray:
    nose, chin = ict.points(30, 8)
    places = [(nose, 0.2, 0.8), ((0.42, 6.86, 1.3), 0.3, 1.0), ((-0.42, 6.86, 1.3), 0.3, 1.0),
              ((0.88, 7.1, 0.4), 0.25, 0.8), ((-0.88, 7.1, 0.4), 0.25, 0.8),
              (chin, 0.2, 0.4)]  # fmt: skip
    total = np.zeros(len(points))
    for centre, radius, amount in places:
        total += amount * np.exp(-(((points - centre) / radius) ** 2).sum(1))
    return np.clip(total, 0, 1)


def _signed_distance(points: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Distance to a closed polygon in the plane, negative inside."""
    closed = np.concatenate([outline, outline[:1]])
    _, distance = _nearest_on_curve(points, closed)
    inside = np.zeros(len(points), bool)
    for (x0, y0), (x1, y1) in zip(closed[:-1], closed[1:], strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > points[:, 1]) != (y1 > points[:, 1])
        inside ^= crosses & (points[:, 0] < x0 + (points[:, 1] - y0) / (y1 - y0) * (x1 - x0))
    return np.where(inside, -distance, distance)


def _nearest_on_curve(points: np.ndarray, curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position 0..1 along a polyline and distance, of the nearest of many points on it."""
    from scipy.spatial import cKDTree

    steps = np.linspace(0, len(curve) - 1, 24 * len(curve))
    dense = np.stack([np.interp(steps, np.arange(len(curve)), c) for c in curve.T], 1)
    distance, index = cKDTree(dense).query(points)
    return index / (len(dense) - 1), distance
