"""MakeHuman heads: shapes from sliders, photographed skins, modelled hair."""

from dataclasses import replace

import numpy as np

from joyflash_cli.studio.heads.face_state import FaceState, Split
from joyflash_cli.studio.heads.makehuman_identity import Person, sample_person
from joyflash_cli.studio.heads.makehuman_pack import MakeHumanAssets
from joyflash_cli.studio.heads.mesh_head import HeadMesh, MeshHead, collar_height
from joyflash_cli.studio.heads.mouth_light import FaceRows
from joyflash_cli.studio.heads.rasteriser import NO_CLOTH, Material, Part
from joyflash_cli.studio.heads.rig import face_units, units_in_use
from joyflash_cli.studio.heads.surroundings import Surroundings

_LIP_LINE = (474, 521)
"""Head vertices in the middle of the closed mouth."""
_INNER_MOUTH_SEEDS = (605, 608)
"""Head vertices on the inside of the upper and the lower lip."""
_CHIN = 732
_UPPER_LIP = (362, 455, 466, 467, 509, 468, 474, 520, 537)
_LOWER_LIP = (492, 496, 495, 513, 494, 493, 523, 540)
"""Head vertices down the middle of each lip, from its outside to its back."""
_LEFT_POINTS = (5261, 5225, 5270, 5255, 2911)
"""Head vertices of the face points that come in pairs, on the person's left, at positive x."""

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
    mesh = _build(assets, sample_person(assets, rng, split=split))
    return MeshHead(mesh, rng, size_px=size_px, surroundings=surroundings)


def makehuman_units(state: FaceState) -> dict[str, float]:
    """Weights of the ARKit units: the common rig, with amounts that suit this pack's units."""
    return face_units(state, gain=UNIT_GAIN)


def _build(assets: MakeHumanAssets, person: Person) -> HeadMesh:
    """The head with everything it wears, in one list of vertices."""
    head, unit_names = person.vertices, units_in_use()
    skin = Material(assets.texture(person.skin), tint=person.skin_tint, specular=0.07, gloss=14,
                    softness=1.0)  # fmt: skip
    parts, vertices, start = [Part(assets.surface, skin)], [head], len(head)
    units = {name: [assets.units[name]] for name in unit_names}
    rows = {}
    for name, material in _proxy_materials(assets, person):
        proxy = assets.proxies[name]
        fitted, still = proxy.fit(head), name == person.hair
        if still and person.mirror_hair:
            fitted = fitted * np.array([-1, 1, 1], np.float32)
        surface = replace(proxy.surface, rows=proxy.surface.rows + start)
        parts.append(Part(surface, material))
        vertices.append(fitted)
        for unit, displacements in units.items():
            follow = proxy.follow(assets.units[unit])
            displacements.append(0 * follow if still else follow)
        rows[name] = np.arange(start, start + len(fitted))
        start += len(fitted)
    cloth = np.full(start, NO_CLOTH, np.float32)
    cloth[: len(head)] = collar_height(assets.vertices, person.collar)
    blink = assets.units["eyeBlinkLeft"] + assets.units["eyeBlinkRight"]
    lids = np.flatnonzero(np.linalg.norm(blink, axis=1) > 0.02)
    inside = (rows["teeth"], rows["tongue"], _inner_mouth_rows(assets))
    return HeadMesh(
        parts=parts,
        vertices=np.concatenate(vertices).astype(np.float32),
        units={name: np.concatenate(moved).astype(np.float32) for name, moved in units.items()},
        rig=makehuman_units,
        skin_count=len(head),
        skin_triangles=assets.surface.faces.astype(np.int32),
        cloth_height=cloth,
        eyeballs=rows["eyes"],
        eye_light=0.6,
        layers=np.arange(rows["tongue"][-1] + 1, start),
        lip_line=np.array(_LIP_LINE),
        lips=_lip_rows(assets),
        lids=np.intersect1d(lids, assets.surface.rows),
        chin_height=float(head[_CHIN, 1]),
        points=_points(assets),
        mouth_inside=np.concatenate(inside),
        mouth_gain=np.repeat((TEETH_GAIN, TONGUE_GAIN, LINING_GAIN), [len(r) for r in inside]),
        landmarks=_LANDMARKS,
    )


def _points(assets: MakeHumanAssets) -> FaceRows:
    mirror, pairs = np.array([-1, 1, 1], np.float32), []
    for left in _LEFT_POINTS:
        distance = np.linalg.norm(assets.vertices - assets.vertices[left] * mirror, axis=1)
        pairs += [distance.argmin(), left]
    return FaceRows(np.array(pairs), np.array(_UPPER_LIP), np.array(_LOWER_LIP))


def _proxy_materials(assets: MakeHumanAssets, person: Person) -> list[tuple[str, Material]]:
    """What the head wears, by the proxy's name; lashes, brows and hair last."""

    def look(texture: str, longest_side_px: int, **settings) -> Material:
        return Material(assets.texture(texture, longest_side_px=longest_side_px), **settings)

    tongue = np.full((2, 2, 4), (176, 88, 84, 255), np.uint8)
    materials = [
        ("eyes", look(person.eyes, 64, tint=(0.9, 0.88, 0.88), specular=0.5, gloss=80, cutout=True,
                      coverage=False)),
        ("teeth", look("teeth", 128, tint=(1.0, 0.79, 0.68), specular=0.08, gloss=30)),
        ("tongue", Material(tongue, specular=0.08, gloss=20, softness=0.5)),
        (person.brow, look(person.brow, 128, cutout=True, tint=person.brow_tint)),
        (person.lash, look(person.lash, 128, cutout=True, tint=(0.9, 0.75, 0.65))),
    ]  # fmt: skip
    if person.hair is not None:
        hair = look(f"hair_{person.hair}", 256, tint=person.hair_tint, specular=0.03, gloss=20,
                    cutout=True)  # fmt: skip
        materials.append((person.hair, hair))
    return materials


def _inner_mouth_rows(assets: MakeHumanAssets) -> np.ndarray:
    """Head vertices of the mouth's inside: behind the front surface and connected to its middle."""
    rows = np.unique(assets.surface.rows)
    x, y, z = assets.vertices[rows].T
    near = rows[(np.abs(x) < 0.45) & (y > 6.2) & (y < 7.0) & (z > 0.4)]
    points = assets.vertices[near]
    close = np.abs(points[:, None, :2] - points[None, :, :2]).max(-1) < 0.04
    front = np.where(close, points[None, :, 2], -np.inf).max(1)
    behind = np.zeros(len(assets.vertices), bool)
    behind[near[front - points[:, 2] > 0.07]] = True
    edges = assets.surface.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
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
    return np.intersect1d(np.flatnonzero(moved), assets.surface.rows)
