"""The ICT-FaceKit head pack: neutral mesh, identity modes from real scans, expression units.

The pack is one ``ict_facekit_mit.npz``. Its centimetres are turned into the decimetres of the
MakeHuman pack and its eyes are put where that pack has them, so that light, camera, collar and
everything that one head wears fit the other as well.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from joyflash_cli.studio.heads.packs import read_pack
from joyflash_cli.studio.heads.rasteriser import Surface

PACK_FILE = "ict_facekit_mit.npz"
SCALE = 0.1
ORIGIN = np.array([0.0, 6.922, 0.495], np.float32)
"""Where the pack's origin lies in the frame of the MakeHuman head, in decimetres."""

PART_MATERIALS = {
    "face": "M_Face",
    "back": "M_BackHead",
    "left_eye": "M_ScleraLeft",
    "right_eye": "M_ScleraRight",
    "teeth": "M_Teeth",
    "gums": "M_GumsTongue",
    "lashes": "M_EyeLashes",
}
"""Parts that are drawn. The front of the sclera covers the iris mesh, so the iris is painted on
the sclera; the films over the eye (fluid, occlusion) are left out."""

TONGUE_UV = (0.75, 0.2)
"""A place on the tongue's back in the texture that gums, palate and tongue share."""
TONGUE_LIFT = 0.35
"""How far the tip rises with the unit ``tongueOut``, in decimetres: the pack has no such unit."""


@dataclass(frozen=True)
class IctAssets:
    """The unpacked head pack.

    Attributes:
        vertices: ``(vertices, 3)`` float32 mean head.
        modes: ``(modes, vertices, 3)`` float16 displacement of one standard deviation each.
        units: ARKit unit name to its displacement ``(vertices, 3)`` float32.
        surfaces: Part name to its triangles.
        landmarks: ``(68,)`` vertices of the usual 68 facial points.
        skin_count: Vertices below this index belong to the skin (face, back of the head, neck).
    """

    vertices: np.ndarray
    modes: np.ndarray
    units: dict[str, np.ndarray]
    surfaces: dict[str, Surface]
    landmarks: np.ndarray
    skin_count: int

    def points(self, *indices: int) -> np.ndarray:
        """Places ``(len(indices), 3)`` of facial points on the mean head."""
        return self.vertices[self.landmarks[list(indices)]]


def load_ict(assets_dir: Path, *, units: tuple[str, ...]) -> IctAssets:
    """Loads the head pack.

    Args:
        assets_dir: Folder with ``ict_facekit_mit.npz``.
        units: ARKit unit names to keep.

    Raises:
        DataError: The file is missing or is not an ICT pack.
    """
    path = Path(assets_dir) / PACK_FILE
    return read_pack(path, lambda arrays: _unpack(arrays, units), kind="an ICT-FaceKit")


def _unpack(pack: np.lib.npyio.NpzFile, units: tuple[str, ...]) -> IctAssets:
    faces, material, uv = pack["F"], pack["M"], pack["vt"]
    vertices = pack["V"].astype(np.float32) * SCALE + ORIGIN
    surfaces = {
        name: _surface(faces[material == part], uv) for name, part in PART_MATERIALS.items()
    }
    both = surfaces.pop("gums")  # One skin, but the tongue is its own island in the texture.
    is_tongue = triangles_of_island(both, TONGUE_UV)
    surfaces["gums"] = _trim(both, ~is_tongue)
    surfaces["tongue"] = tongue = _trim(both, is_tongue)
    skin_count = 1 + max(int(surfaces[name].rows.max()) for name in ("face", "back"))
    names = [str(name) for name in pack["en"]]
    displacements = dict(zip(names, pack["E"], strict=True))
    _seat_teeth(vertices, surfaces, jaw=displacements["jawOpen"])
    return IctAssets(
        vertices=vertices,
        modes=pack["I"] * np.float16(SCALE),
        units={unit: _unit(unit, displacements, vertices, tongue) for unit in units},
        surfaces=surfaces,
        landmarks=pack["landmarks68"].astype(np.int64),
        skin_count=skin_count,
    )


def _surface(faces: np.ndarray, uv: np.ndarray) -> Surface:
    """Corners that share vertex and texture coordinate become one."""
    corners, index = np.unique(faces.reshape(-1, 2), axis=0, return_inverse=True)
    coordinates = uv[corners[:, 1]]
    return Surface(
        rows=corners[:, 0].astype(np.int64),
        uv=(coordinates - np.floor(coordinates.min(0) + 1e-3)).astype(np.float32),
        triangles=index.reshape(-1, 3).astype(np.int64),
    )


def _seat_teeth(vertices: np.ndarray, surfaces: dict[str, Surface], *, jaw: np.ndarray) -> None:
    """Draws the dental arches in and the upper one down, in place.

    The corners of the mouth move back as the jaw opens, the teeth behind them do not: as scanned,
    the canines come through the lips while the incisors stay hidden.
    """
    rows = np.unique(np.concatenate([surfaces[n].rows for n in ("teeth", "gums", "tongue")]))
    x = vertices[rows, 0]
    vertices[rows, 2] -= 0.05 + 0.7 * x**2
    vertices[rows, 0] = x * 0.86
    upper = rows[np.linalg.norm(jaw[rows].astype(np.float32), axis=1) < 0.5]
    vertices[upper, 1] -= 0.025


def triangles_of_island(surface: Surface, uv: tuple[float, float]) -> np.ndarray:
    """Which triangles ``(triangles,)`` lie on the texture's island nearest to ``uv``."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = surface.triangles[:, [0, 1, 1, 2]].reshape(-1, 2)
    count = len(surface.rows)
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count))
    island = connected_components(graph, directed=False)[1]
    seed = np.argmin(np.linalg.norm(surface.uv - np.asarray(uv), axis=1))
    return (island == island[seed])[surface.triangles[:, 0]]


def _trim(surface: Surface, chosen: np.ndarray) -> Surface:
    """The chosen triangles with the corners they need."""
    corners, index = np.unique(surface.triangles[chosen], return_inverse=True)
    return Surface(surface.rows[corners], surface.uv[corners], index.reshape(-1, 3))


def _unit(
    name: str, displacements: dict[str, np.ndarray], vertices: np.ndarray, tongue: Surface
) -> np.ndarray:
    """A unit of both sides is the sum of the pack's two halves."""
    if name == "tongueOut":
        return _tongue_lift(vertices, tongue)
    side = name.replace("Left", "_L").replace("Right", "_R")
    candidates = [name, side, f"{name}_L", f"{name}_R"]
    found = [displacements[c] for c in dict.fromkeys(candidates) if c in displacements]
    if not found:
        raise KeyError(f"no expression {name}")
    return np.sum([part.astype(np.float32) for part in found], axis=0) * np.float32(SCALE)


def _tongue_lift(vertices: np.ndarray, tongue: Surface) -> np.ndarray:
    """Raises and advances the tongue's front; its root stays."""
    rows = np.unique(tongue.rows)
    depth = vertices[rows, 2]
    along = np.clip((depth - depth.min()) / np.ptp(depth), 0, 1) ** 2
    lift = np.zeros_like(vertices)
    lift[rows] = along[:, None] * np.array([0.0, 1.0, 0.45], np.float32) * TONGUE_LIFT
    return lift
