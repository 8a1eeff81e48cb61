"""MakeHuman heads: shapes from sliders, photographed skins, modelled hair."""

import numpy as np

from joyflash_cli.studio.heads.assets import MakeHumanAssets
from joyflash_cli.studio.heads.face_state import FaceState, Split
from joyflash_cli.studio.heads.makehuman_identity import Person, sample_person
from joyflash_cli.studio.heads.makehuman_look import (
    Look,
    sample_background,
    sample_lighting,
    sample_look,
)
from joyflash_cli.studio.heads.mesh_head import (
    HeadMesh,
    MeshHead,
    Surroundings,
    collar_height,
    rest_normals,
)
from joyflash_cli.studio.heads.mouth_light import FaceRows
from joyflash_cli.studio.heads.rasteriser import NO_CLOTH, Material, Part, Scene
from joyflash_cli.studio.heads.rig import face_units, units_in_use

_LIP_LINE = (474, 521)
"""Head vertices in the middle of the closed mouth."""
_INNER_MOUTH_SEEDS = (605, 608)
"""Head vertices on the inside of the upper and the lower lip."""
_CHIN = 732
_UPPER_LIP = (362, 455, 466, 467, 509, 468, 474, 520, 537)
_LOWER_LIP = (492, 496, 495, 513, 494, 493, 523, 540)
"""Head vertices down the middle of each lip, from its outside to its back."""
_LEFT_POINTS = {"outer_eyes": 5261, "inner_eyes": 5225, "upper_lids": 5270, "lower_lids": 5255,
                "mouth_corners": 2911}  # fmt: skip
"""Head vertices on the person's left, at positive x; the others are their mirror images."""

UNIT_GAIN = dict.fromkeys(("jawOpen", "mouthClose", "mouthLowerDownLeft", "mouthLowerDownRight",
                           "mouthUpperUpLeft", "mouthUpperUpRight"), 0.75)  # fmt: skip
"""Factors on the common rig's weights, so that speech opens the lips as far as measured on people:
0.15 of the distance between the outer eye corners at the 95th percentile."""
TEETH_GAIN, TONGUE_GAIN, LINING_GAIN = 1.35, 1.1, 1.0
"""How well each takes the light that comes in between the lips."""

_LANDMARKS = (
    (1064, 33), (1735, 133), (4138, 362), (3485, 263), (435, 61), (2924, 291), (467, 0), (496, 17),
    (474, 13), (521, 14), (297, 1), (2808, 2), (_CHIN, 152),
)  # fmt: skip
"""Head vertices and the canonical numbers of their points; those of ICT heads, through its warp."""


def sample_makehuman(
    assets: MakeHumanAssets,
    rng: np.random.Generator,
    *,
    size_px: int = 128,
    split: Split,
    surroundings: Surroundings | None = None,
) -> MeshHead:
    """Draws one identity with clothes, light, background and framing.

    Args:
        assets: The head pack.
        rng: The only source of chance: one seed gives one identity.
        size_px: Side of the square picture.
        split: ``train`` never uses a held-out skin or hair, ``held-out`` always has a held-out
            skin and half of the time a held-out hair.
        surroundings: Light and background; drawn if not given.
    """
    person = sample_person(assets, rng, split=split)
    look = sample_look(person, rng)
    mesh = _build_mesh(assets, person, look)
    scene = Scene(mesh.parts, size_px)
    openness = _openness(scene, mesh.vertices, rest_normals(mesh, scene), assets)
    if surroundings is None:
        surroundings = Surroundings(sample_lighting(rng), sample_background(rng, size_px))
    return MeshHead(
        mesh, scene, rig=makehuman_units, openness=openness, surroundings=surroundings, rng=rng
    )


def makehuman_units(state: FaceState) -> dict[str, float]:
    """Weights of the ARKit units: the common rig, with amounts that suit this pack's units."""
    units = face_units(state)
    return {name: weight * UNIT_GAIN.get(name, 1.0) for name, weight in units.items()}


def _build_mesh(assets: MakeHumanAssets, person: Person, look: Look) -> HeadMesh:
    units = units_in_use()
    parts, vertices, displacements = _build(assets, person, look, units)
    head_count = len(assets.vertices)
    cloth = np.full(len(vertices), NO_CLOTH, np.float32)
    cloth[:head_count] = collar_height(assets.vertices, look.collar)
    blink = assets.units["eyeBlinkLeft"] + assets.units["eyeBlinkRight"]
    lids = np.flatnonzero(np.linalg.norm(blink, axis=1) > 0.02)
    eye_count = len(assets.proxies["eyes"].reference)
    inside = _inside_rows(assets)
    return HeadMesh(
        parts=parts,
        vertices=vertices,
        units=units,
        displacements=displacements,
        skin_count=head_count,
        skin_triangles=assets.rows[assets.triangles].astype(np.int32),
        cloth_height=cloth,
        eyeballs=np.arange(head_count, head_count + eye_count),
        lip_line=np.array(_LIP_LINE),
        lips=_lip_rows(assets),
        lids=np.intersect1d(lids, assets.rows),
        chin_height=float(person.vertices[_CHIN, 1]),
        points=_points(assets),
        mouth_inside=np.concatenate(list(inside)),
        mouth_gain=np.repeat((TEETH_GAIN, TONGUE_GAIN, LINING_GAIN), [len(r) for r in inside]),
        landmarks=_LANDMARKS,
    )


def _points(assets: MakeHumanAssets) -> FaceRows:
    mirror = np.array([-1, 1, 1], np.float32)
    pairs = {}
    for name, left in _LEFT_POINTS.items():
        distance = np.linalg.norm(assets.vertices - assets.vertices[left] * mirror, axis=1)
        pairs[name] = np.array([distance.argmin(), left])
    return FaceRows(**pairs, upper_lip=np.array(_UPPER_LIP), lower_lip=np.array(_LOWER_LIP))


def _inside_rows(assets: MakeHumanAssets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices of teeth, tongue and the mouth's lining."""
    start = len(assets.vertices) + len(assets.proxies["eyes"].reference)
    middle = start + len(assets.proxies["teeth"].reference)
    stop = middle + len(assets.proxies["tongue"].reference)
    return np.arange(start, middle), np.arange(middle, stop), _inner_mouth_rows(assets)


def _build(
    assets: MakeHumanAssets, person: Person, look: Look, units: tuple[str, ...]
) -> tuple[list[Part], np.ndarray, np.ndarray]:
    """Parts, shared vertices and per-unit displacements ``(units, vertices, 3)``."""
    head = person.vertices
    skin = Material(assets.texture(person.skin), tint=look.skin_tint, specular=0.07, gloss=14,
                    softness=1.0)  # fmt: skip
    parts = [Part(assets.rows, assets.uv, assets.triangles, skin)]
    vertices = [head]
    displacements = [np.stack([assets.units[name] for name in units])]
    start = len(head)
    for name, material in _proxy_materials(assets, person, look):
        proxy = assets.proxies[name]
        fitted = proxy.fit(head)
        is_hair = name == person.hair
        if is_hair and look.mirror_hair:
            fitted = fitted * np.array([-1, 1, 1], np.float32)
        parts.append(Part(proxy.rows + start, proxy.uv, proxy.triangles, material))
        vertices.append(fitted)
        displacements.append(
            np.zeros((len(units), *fitted.shape), np.float32)
            if is_hair
            else np.stack([proxy.follow(assets.units[unit]) for unit in units])
        )
        start += len(fitted)
    stacked = np.concatenate(vertices).astype(np.float32)
    return parts, stacked, np.concatenate(displacements, 1).astype(np.float32)


def _proxy_materials(
    assets: MakeHumanAssets, person: Person, look: Look
) -> list[tuple[str, Material]]:
    tongue = np.full((2, 2, 4), (176, 88, 84, 255), np.uint8)
    materials = [
        ("eyes", Material(assets.texture(look.eye_texture, longest_side_px=64),
                          tint=(0.9, 0.88, 0.88), specular=0.5, gloss=80, cutout=True,
                          coverage=False)),
        ("teeth", Material(assets.texture("teeth", longest_side_px=128),
                           tint=(1.0, 0.79, 0.68), specular=0.08, gloss=30)),
        ("tongue", Material(tongue, specular=0.08, gloss=20, softness=0.5)),
        (look.brow, Material(assets.texture(look.brow, longest_side_px=128), cutout=True,
                             tint=look.brow_tint)),
        (look.lash, Material(assets.texture(look.lash, longest_side_px=128), cutout=True,
                             tint=(0.9, 0.75, 0.65))),
    ]  # fmt: skip
    if person.hair is not None:
        hair = assets.texture(f"hair_{person.hair}", longest_side_px=256)
        look_of_hair = Material(hair, tint=look.hair_tint, specular=0.03, gloss=20, cutout=True)
        materials.append((person.hair, look_of_hair))
    return materials


def _openness(
    scene: Scene, rest: np.ndarray, normals: np.ndarray, assets: MakeHumanAssets
) -> np.ndarray:
    """Light that reaches each vertex outside of the mouth: ambient occlusion."""
    seen = scene.openness(rest, normals)
    openness = 0.3 + 0.7 * seen
    head_count = len(assets.vertices)
    eyes = slice(head_count, head_count + len(assets.proxies["eyes"].reference))
    openness[eyes] = np.maximum(openness[eyes], 0.6)
    # Lashes, brows and hair shade themselves far too much through their layers.
    worn = slice(int(_inside_rows(assets)[1][-1]) + 1, None)
    openness[worn] = 0.5 + 0.5 * seen[worn]
    return openness.astype(np.float32)


def _inner_mouth_rows(assets: MakeHumanAssets) -> np.ndarray:
    """Head vertices of the mouth's inside: behind the front surface and connected to its middle."""
    rows = np.unique(assets.rows)
    x, y, z = assets.vertices[rows].T
    near = rows[(np.abs(x) < 0.45) & (y > 6.2) & (y < 7.0) & (z > 0.4)]
    points = assets.vertices[near]
    close = np.abs(points[:, None, :2] - points[None, :, :2]).max(-1) < 0.04
    front = np.where(close, points[None, :, 2], -np.inf).max(1)
    behind = np.zeros(len(assets.vertices), bool)
    behind[near[front - points[:, 2] > 0.07]] = True
    edges = assets.rows[assets.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)]
    edges = edges[behind[edges].all(1)]
    inside = np.zeros(len(assets.vertices), bool)
    inside[list(_INNER_MOUTH_SEEDS)] = True
    reached = 0
    while inside.sum() > reached:
        reached = inside.sum()
        inside[edges[inside[edges].any(1)]] = True
    return np.flatnonzero(inside)


def _lip_rows(assets: MakeHumanAssets) -> np.ndarray:
    moved = np.linalg.norm(assets.units["mouthRollLower"], axis=1) > 0.015
    moved |= np.linalg.norm(assets.units["mouthRollUpper"], axis=1) > 0.03
    return np.intersect1d(np.flatnonzero(moved), assets.rows)
