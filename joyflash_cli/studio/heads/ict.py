"""ICT-FaceKit heads: shapes of real scans, separate teeth, gums and tongue.

The pack has no colours. Skin and hair come from the MakeHuman pack, carried over by a warp between
the two mean heads; lips, brows, eyes, teeth and tongue are painted.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from joyflash_cli.studio.heads.face_state import FaceState, Split
from joyflash_cli.studio.heads.ict_atlas import LINING_UV, Tile, above_hairline, build_tiles
from joyflash_cli.studio.heads.ict_identity import IctPerson, sample_ict_person
from joyflash_cli.studio.heads.ict_pack import IctAssets, load_ict, triangles_of_island
from joyflash_cli.studio.heads.ict_paint import paint_eye, paint_lashes, paint_skin, solid
from joyflash_cli.studio.heads.ict_warp import fit_warp
from joyflash_cli.studio.heads.makehuman_identity import FEMALE_HAIRS, MALE_HAIRS
from joyflash_cli.studio.heads.makehuman_pack import MakeHumanAssets
from joyflash_cli.studio.heads.mesh_head import HeadMesh, MeshHead, collar_height
from joyflash_cli.studio.heads.mouth_light import FaceRows
from joyflash_cli.studio.heads.painter import smoothstep
from joyflash_cli.studio.heads.rasteriser import NO_CLOTH, Material, Part
from joyflash_cli.studio.heads.rig import SIDES, face_units, units_in_use
from joyflash_cli.studio.heads.surroundings import Surroundings

SHOULDER_STRETCH = 0.35
"""The scanned bust ends at the shoulders' slope; below the neck it is widened."""
FOLLOWED = 6
"""Skin vertices that each hair vertex follows when the head's shape changes."""
SCALP_DEPTH = 0.05
SKULL_MIDDLE = np.array([0.0, 7.5, 0.4], np.float32)
DISPLAY_GAMMA = 2.1
MAX_HAIR_TINT = 5.0
"""Very dark textures cannot be brightened to blond: only their noise would show."""
LID_THICKNESS = 0.012
"""Least distance of a closed lid from the eyeball, in decimetres."""
LIP_THICKNESS = 0.07
"""How far around the line between the closed lips their edges are looked for, in decimetres."""
MOUTH_GAIN = {"teeth": 0.95, "gums": 0.8, "tongue": 1.1, "lining": 0.9}
"""How well each takes the light that comes in between the lips."""
IRIS_SPAN = 0.3
"""Width of an eyeball in its texture, in decimetres."""


@dataclass(frozen=True)
class IctWardrobe:
    """Everything that dresses ICT heads, made once per process.

    Attributes:
        ict: The head pack.
        makehuman: The pack that skins and hair come from.
        tiles: What lies where on the skin's textures.
        hair: Hair name to its vertices ``(vertices, 3)`` on the mean head.
        hair_anchor: Hair name to ``(vertices, FOLLOWED)`` skin vertices and their weights.
    """

    ict: IctAssets
    makehuman: MakeHumanAssets
    tiles: dict[str, Tile]
    hair: dict[str, np.ndarray]
    hair_anchor: dict[str, tuple[np.ndarray, np.ndarray]]


def load_wardrobe(assets_dir: Path, makehuman: MakeHumanAssets) -> IctWardrobe:
    """Loads the ICT pack and fits the MakeHuman skins and hair to it; takes about ten seconds.

    Args:
        assets_dir: Folder with ``ict_facekit_mit.npz``.
        makehuman: The MakeHuman pack of the same folder.

    Raises:
        DataError: The file is missing or is not an ICT pack.
    """
    ict = load_ict(assets_dir, units=units_in_use())
    warp = fit_warp(makehuman, ict)
    names = sorted({name for name in (*FEMALE_HAIRS, *MALE_HAIRS) if name is not None})
    hair, anchors = {}, {}
    for name in names:
        hair[name] = warp(makehuman.proxies[name].fit(makehuman.vertices))
        anchors[name] = _anchor(hair[name], ict)
    return IctWardrobe(ict, makehuman, build_tiles(ict, makehuman, warp), hair, anchors)


def sample_ict(
    wardrobe: IctWardrobe,
    rng: np.random.Generator,
    *,
    size_px: int = 128,
    split: Split,
    surroundings: Surroundings | None = None,
) -> MeshHead:
    """Draws one identity with clothes, light, background and framing.

    Args:
        wardrobe: From ``load_wardrobe``.
        rng: The only source of chance: one seed gives one identity.
        size_px: Side of the square picture.
        split: ``train`` never uses a held-out skin or hair.
        surroundings: Light and background; drawn if not given.
    """
    person = sample_ict_person(
        wardrobe.makehuman, rng, num_modes=len(wardrobe.ict.modes), split=split
    )
    return MeshHead(_build(wardrobe, person, rng), rng, size_px=size_px, surroundings=surroundings)


def ict_units(state: FaceState) -> dict[str, float]:
    """Weights of the ARKit units: the common rig, with amounts that suit this pack's units."""
    units = face_units(state, gain=UNIT_GAIN)
    # The scanned upper lip sinks as the jaw opens; speakers keep their upper teeth in sight.
    parted = units.get("jawOpen", 0.0) - units.get("mouthClose", 0.0)
    for side in SIDES:
        name = f"mouthUpperUp{side}"
        units[name] = min(1.0, units.get(name, 0.0) + 0.45 * max(parted, 0.0))
    return units


UNIT_GAIN = {
    "jawOpen": 0.66,
    "mouthClose": 0.66,
    "mouthLowerDownLeft": 0.74,
    "mouthLowerDownRight": 0.74,
    "mouthShrugLower": 0.5,
    "browInnerUp": 0.5,
}
"""Factors on the common rig's weights, so that speech opens the lips as far as measured on people:
0.07 of the distance between the outer eye corners at the median, 0.15 at the 95th percentile."""


_LANDMARKS = (
    (36, 33), (39, 133), (42, 362), (45, 263), (48, 61), (54, 291), (51, 0), (57, 17),
    (60, 78), (64, 308), (62, 13), (66, 14), (30, 1), (33, 2), (8, 152),
)  # fmt: skip
"""Of the 68 usual facial points those that mean the same point of the canonical mesh."""


def _anchor(points: np.ndarray, ict: IctAssets) -> tuple[np.ndarray, np.ndarray]:
    """Nearest skin vertices of hair vertices and weights that fall with distance."""
    from scipy.spatial import cKDTree

    distance, index = cKDTree(ict.vertices[: ict.skin_count]).query(points, k=FOLLOWED)
    weights = 1 / (distance + 0.05) ** 2
    return index, (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _build(wardrobe: IctWardrobe, person: IctPerson, rng: np.random.Generator) -> HeadMesh:
    ict = wardrobe.ict
    change = np.tensordot(person.weights, ict.modes.astype(np.float32), 1)
    hair_change = change.copy()
    below = smoothstep(ict.vertices[:, 1], 5.9, 5.4) * (np.arange(len(change)) < ict.skin_count)
    if person.hair is not None:
        # The warp is good to two millimetres at the median; a little less skull under the hair
        # keeps the scalp from showing through where it is not.
        above = above_hairline(ict.vertices[: ict.skin_count])
        depth = SCALP_DEPTH * smoothstep(above, 0.05, 0.3)[:, None]
        outward = ict.vertices[: ict.skin_count] - SKULL_MIDDLE
        change[: ict.skin_count] -= depth * outward / np.linalg.norm(outward, axis=1, keepdims=True)
    change[:, 0] += SHOULDER_STRETCH * below * ict.vertices[:, 0]
    vertices = ict.vertices + change
    parts = _parts(wardrobe, person, rng)
    units = ict.units | _blinks_over_eyes(vertices, ict)
    if person.hair is not None:
        hair_part, hair = _hair(wardrobe, person.hair, person, hair_change)
        parts.append(hair_part)
        vertices = np.concatenate([vertices, hair])
        still = np.zeros(hair.shape, np.float32)
        units = {name: np.concatenate([moved, still]) for name, moved in units.items()}
    cloth = np.full(len(vertices), NO_CLOTH, np.float32)
    cloth[: ict.skin_count] = collar_height(ict.vertices[: ict.skin_count], person.collar)
    skin = [ict.surfaces[name] for name in ("face", "back")]
    lips = np.abs(ict.units["mouthRollLower"]) + np.abs(ict.units["mouthRollUpper"])
    lids = np.linalg.norm(ict.units["eyeBlinkLeft"] + ict.units["eyeBlinkRight"], axis=1) > 0.02
    face = ict.surfaces["face"].rows
    inside, gain = mouth_rows(ict)
    return HeadMesh(
        parts=parts,
        vertices=vertices.astype(np.float32),
        units=units,
        rig=ict_units,
        skin_count=ict.skin_count,
        skin_triangles=np.concatenate([surface.faces for surface in skin]).astype(np.int32),
        cloth_height=cloth,
        eyeballs=np.concatenate([ict.surfaces[f"{side}_eye"].rows for side in ("left", "right")]),
        eye_light=0.65,
        layers=np.r_[np.unique(ict.surfaces["lashes"].rows), len(ict.vertices) : len(vertices)],
        lip_line=ict.landmarks[[62, 66]],
        lips=np.intersect1d(np.flatnonzero(lips.max(1) > 0.03), face),
        lids=np.intersect1d(np.flatnonzero(lids), face),
        chin_height=float(vertices[ict.landmarks[8], 1]),
        points=face_rows(ict),
        mouth_inside=inside,
        mouth_gain=gain,
        landmarks=tuple((int(ict.landmarks[place]), number) for place, number in _LANDMARKS),
    )


def face_rows(ict: IctAssets) -> FaceRows:
    """Vertices of corners, lids and lips."""
    points = ict.landmarks
    face = np.unique(ict.surfaces["face"].rows)
    x, y, z = ict.vertices[face].T
    upper, lower = ict.points(62, 66)
    middle = (np.abs(x) < 1e-3) & (z > upper[2] - LIP_THICKNESS)

    lids = [ict.points(*pair).mean(0) for pair in ((37, 38), (43, 44), (41, 40), (47, 46))]
    lids = [face[np.linalg.norm(ict.vertices[face] - p, axis=1).argmin()] for p in lids]
    return FaceRows(
        pairs=np.concatenate([points[[36, 45, 39, 42]], lids, points[[48, 54]]]),
        upper_lip=face[middle & (y >= upper[1]) & (y < upper[1] + LIP_THICKNESS)],
        lower_lip=face[middle & (y <= lower[1]) & (y > lower[1] - LIP_THICKNESS)],
    )


def mouth_rows(ict: IctAssets) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``(n,)`` of teeth, gums, tongue and lining, and how well each takes light."""
    rows = {name: np.unique(ict.surfaces[name].rows) for name in ("teeth", "gums", "tongue")}
    back = ict.surfaces["back"]
    rows["lining"] = np.unique(back.faces[triangles_of_island(back, LINING_UV)])
    gain = np.repeat([MOUTH_GAIN[name] for name in rows], [len(part) for part in rows.values()])
    return np.concatenate(list(rows.values())), gain


def mouth_materials(*, teeth_tint: tuple[float, float, float]) -> dict[str, Material]:
    """What teeth, gums and tongue look like."""
    return {
        "teeth": Material(solid((246, 222, 208)), tint=teeth_tint, specular=0.08, gloss=30),
        "gums": Material(solid((168, 84, 84)), specular=0.08, gloss=20, softness=0.5),
        "tongue": Material(solid((178, 92, 90)), specular=0.06, gloss=18, softness=0.5),
    }


def _blinks_over_eyes(vertices: np.ndarray, ict: IctAssets) -> dict[str, np.ndarray]:
    """The blink of each side bent around this identity's eyeballs: no eye may show through."""
    from scipy.spatial import cKDTree

    blinks = {}
    for side in SIDES:
        ball = vertices[np.unique(ict.surfaces[f"{side.lower()}_eye"].rows)]
        centre = (ball.max(0) + ball.min(0)) / 2
        radius = np.linalg.norm(ball - centre, axis=1)
        blink = blinks[f"eyeBlink{side}"] = ict.units[f"eyeBlink{side}"].copy()
        rows = np.flatnonzero(np.linalg.norm(blink, axis=1) > 0.01)
        offset = vertices[rows] + blink[rows] - centre
        distance = np.linalg.norm(offset, axis=1, keepdims=True)
        towards = offset / np.maximum(distance, 1e-6)
        nearest = cKDTree((ball - centre) / radius[:, None]).query(towards)[1]
        missing = np.clip(radius[nearest][:, None] + LID_THICKNESS - distance, 0, 0.08)
        blink[rows] += towards * missing
    return blinks


def _parts(wardrobe: IctWardrobe, person: IctPerson, rng: np.random.Generator) -> list[Part]:
    ict = wardrobe.ict
    texture = wardrobe.makehuman.texture(person.skin)

    def part(name: str, material: Material, uv: np.ndarray | None = None) -> Part:
        surface = ict.surfaces[name]
        return Part(surface if uv is None else replace(surface, uv=uv), material)

    parts = []
    for name in ("face", "back"):
        painted = paint_skin(wardrobe.tiles[name], texture, person.paint, rng)
        skin = Material(
            painted, tint=tuple(person.skin_tint), specular=0.08, gloss=16, softness=1.0
        )
        parts.append(part(name, skin))
    eye = Material(paint_eye(person.iris, rng), tint=(0.92, 0.9, 0.9), specular=0.5, gloss=80)
    parts += [part(name, eye, _eye_uv(ict, name)) for name in ("left_eye", "right_eye")]
    lash = paint_lashes(np.minimum(person.hair_colour * 0.5, 40), rng)
    mouth = mouth_materials(teeth_tint=tuple(person.teeth_tint))
    parts += [part(name, look) for name, look in mouth.items()]
    return [*parts, part("lashes", Material(lash, cutout=True), _lash_uv(ict))]


def _eye_uv(ict: IctAssets, name: str) -> np.ndarray:
    """Flat from the front; the back half shows white."""
    points = ict.vertices[ict.surfaces[name].rows]
    middle = (points.min(0) + points.max(0)) / 2
    uv = (points[:, :2] - middle[:2]) / IRIS_SPAN + 0.5
    return np.clip(uv, 0.01, 0.99).astype(np.float32)


def _lash_uv(ict: IctAssets) -> np.ndarray:
    """Across: along the lid; up: from the root at the lid to the tip."""
    from scipy.spatial import cKDTree

    points = ict.vertices[ict.surfaces["lashes"].rows]
    distance = cKDTree(ict.vertices[ict.surfaces["face"].rows]).query(points)[0]
    root = np.clip(distance / 0.055, 0.02, 0.98)
    # Lower lashes are few and thin: they show only the texture's faint end.
    middle = ict.points(36, 39, 42, 45)[:, 1].mean()
    lower = points[:, 1] < middle - 0.02
    root = np.where(lower, 0.55 + 0.43 * root, root)
    along = (np.abs(points[:, 0]) - 0.17) / 0.38
    return np.stack([np.clip(along, 0.01, 0.99), root], 1).astype(np.float32)


def _hair(
    wardrobe: IctWardrobe, name: str, person: IctPerson, change: np.ndarray
) -> tuple[Part, np.ndarray]:
    """The hair mesh on this head's shape, dyed."""
    index, weights = wardrobe.hair_anchor[name]
    points = wardrobe.hair[name] + (change[index] * weights[..., None]).sum(1)
    proxy = wardrobe.makehuman.proxies[name]
    if person.mirror_hair:
        points = points * np.array([-1, 1, 1], np.float32)
    texture = wardrobe.makehuman.texture(f"hair_{name}", longest_side_px=256).copy()
    # Grey strands take any colour; the textures' own brown would turn to green as blond or grey.
    grey = texture[..., :3] @ np.array([0.3, 0.59, 0.11], np.float32)
    texture[..., :3] = grey[..., None].astype(np.uint8)
    mean = ((grey[texture[..., 3] > 128] / 255) ** DISPLAY_GAMMA).mean()
    tint = (person.hair_colour / 255) ** DISPLAY_GAMMA / max(mean, 0.01)
    tint = tuple(tint * min(1.0, MAX_HAIR_TINT / tint.max()))
    material = Material(texture, tint=tint, specular=0.03, gloss=20, cutout=True)
    surface = replace(proxy.surface, rows=proxy.surface.rows + len(wardrobe.ict.vertices))
    return Part(surface, material), points.astype(np.float32)
