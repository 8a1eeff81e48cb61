"""MakeHuman heads: one identity posed, lit and rendered frame by frame."""

import numpy as np

from joyflash_cli.data.face_state import FaceState, Split
from joyflash_cli.data.heads.assets import MakeHumanAssets
from joyflash_cli.data.heads.makehuman_identity import Person, sample_person
from joyflash_cli.data.heads.makehuman_look import (
    Look,
    sample_background,
    sample_lighting,
    sample_look,
)
from joyflash_cli.data.heads.rig import face_units, units_in_use
from joyflash_cli.data.rasteriser import (
    NO_CLOTH,
    Lens,
    Material,
    Part,
    Scene,
    vertex_normals,
)

CAMERA_DISTANCE = 13.0
EYE_LINE = 0.40
"""Height of the eyes in the picture, from the top."""
EYE_TO_MOUTH = 0.25
"""Distance from the eyes to the closed mouth, as a fraction of the picture."""
BOX_PADDING = 0.04

_LIP_LINE = (474, 521)
"""Head vertices in the middle of the closed mouth."""
_INNER_MOUTH_SEEDS = (605, 608)
"""Head vertices on the inside of the upper and the lower lip."""
_CHIN = 732
_HEIGHT_TO_WIDTH = 0.74
"""Eyes to mouth over the width across both eyeballs, on the base head."""
_FULLY_OPEN = FaceState(visemes=np.array([1, 0.6, 0, 0, 0.6, 0], np.float32))
_ROUNDED = FaceState(visemes=np.array([1, 0, 1, 0, 0, 0], np.float32))


class MakeHumanHead:
    """One identity; renders face states. See ``face_state.Head``.

    The head turns about the top of the neck and the shoulders follow by a quarter. Positive yaw
    turns to the picture's right, positive pitch looks down, positive roll tilts to the picture's
    left.

    Args:
        assets: The head pack.
        person: Shape, skin and hair.
        look: Colours.
        rng: Draws light, background and framing.
        size_px: Side of the square picture.
    """

    def __init__(
        self,
        assets: MakeHumanAssets,
        person: Person,
        *,
        look: Look,
        rng: np.random.Generator,
        size_px: int,
    ) -> None:
        self.size_px = size_px
        self.person = person
        self._units = units_in_use()
        self._head_count = len(assets.vertices)
        self._skin_triangles = assets.rows[assets.triangles].astype(np.int32)
        parts, vertices, displacements = _build(assets, person, look, self._units)
        self._scene = Scene(parts, size_px)
        self._rest = vertices
        moving = np.flatnonzero(np.abs(displacements).max((0, 2)) > 1e-6)
        self._moving = moving
        self._displacements = np.ascontiguousarray(displacements[:, moving]).reshape(
            len(self._units), -1
        )
        rows = self._scene.rows[self._scene.triangles].astype(np.int32)
        self._rest_normals = vertex_normals(self._rest, rows)
        self._openness = _openness(self._scene, self._rest, self._rest_normals, assets)
        self._cloth = np.full(len(vertices), NO_CLOTH, np.float32)
        self._cloth[: self._head_count] = _cloth_height(assets.vertices, look.collar)
        eyes = assets.proxies["eyes"].fit(person.vertices)
        self._eye_centre = (eyes.max(0) + eyes.min(0)) / 2
        self._eye_rows = np.arange(self._head_count, self._head_count + len(eyes))
        self._follow = _head_weight(self._rest, person.vertices)
        self._lighting = sample_lighting(rng)
        self._background = sample_background(rng, size_px)
        self._lens = self._frame_face(rng)
        self.mouth_box = self._box(_lip_rows(assets), [FaceState(), _FULLY_OPEN, _ROUNDED])
        eye_rows = np.flatnonzero(
            np.linalg.norm(assets.units["eyeBlinkLeft"] + assets.units["eyeBlinkRight"], axis=1)
            > 0.02
        )
        self.eyes_box = self._box(np.intersect1d(eye_rows, assets.rows), [FaceState()])

    def render(self, state: FaceState) -> np.ndarray:
        """RGB picture ``(size_px, size_px, 3)`` uint8 of a face state."""
        vertices, normals = self._pose(state)
        lens = Lens(
            focal=self._lens.focal,
            centre_x=self._lens.centre_x + state.shift_x,
            centre_y=self._lens.centre_y + state.shift_y,
        )
        return self._scene.render(
            vertices,
            normals,
            occlusion=self._openness,
            cloth_height=self._cloth,
            lens=lens,
            lighting=self._lighting,
            background=self._background,
        )

    def _pose(self, state: FaceState) -> tuple[np.ndarray, np.ndarray]:
        """Vertices and normals in camera space."""
        units = face_units(state)
        weights = np.array([units.get(name, 0.0) for name in self._units], np.float32)
        vertices = self._rest.copy()
        vertices[self._moving] += (weights @ self._displacements).reshape(-1, 3)
        normals = self._rest_normals.copy()
        normals[: self._head_count] = vertex_normals(
            vertices[: self._head_count], self._skin_triangles
        )
        turn = _rotation(state.yaw, state.pitch, state.roll).astype(np.float32)
        pivot = self._eye_centre - np.array([0.0, 0.9, 1.1], np.float32)
        local = vertices - pivot
        follow = self._follow[:, None]
        posed = follow * (local @ turn.T) + (1 - follow) * local + (pivot - self._eye_centre)
        posed[:, 2] -= CAMERA_DISTANCE
        return posed, follow * (normals @ turn.T) + (1 - follow) * normals

    def _frame_face(self, rng: np.random.Generator) -> Lens:
        lip_line = self._rest[list(_LIP_LINE), 1].mean()
        eyes_apart = np.ptp(self._rest[self._eye_rows, 0])
        # Half by height, half by width, so that a broad face does not fill the picture.
        eye_to_mouth = np.sqrt((self._eye_centre[1] - lip_line) * eyes_apart * _HEIGHT_TO_WIDTH)
        scale = EYE_TO_MOUTH * (1 + rng.uniform(-0.06, 0.06))
        return Lens(
            focal=2 * scale * CAMERA_DISTANCE / eye_to_mouth,
            centre_x=0.5 + rng.uniform(-0.03, 0.03),
            centre_y=EYE_LINE + rng.uniform(-0.03, 0.03),
        )

    def _box(self, rows: np.ndarray, states: list[FaceState]) -> tuple[int, int, int, int]:
        points = np.concatenate([self._pose(state)[0][rows] for state in states])
        lens = self._lens
        x = lens.centre_x - points[:, 0] / points[:, 2] * lens.focal / 2
        y = lens.centre_y + points[:, 1] / points[:, 2] * lens.focal / 2
        corners = (x.min() - BOX_PADDING, y.min() - BOX_PADDING,
                   x.max() + BOX_PADDING, y.max() + BOX_PADDING)  # fmt: skip
        x0, y0, x1, y1 = (round(float(np.clip(c, 0, 1)) * self.size_px) for c in corners)
        return x0, y0, x1, y1


def sample_makehuman(
    assets: MakeHumanAssets,
    rng: np.random.Generator,
    *,
    size_px: int = 128,
    split: Split,
) -> MakeHumanHead:
    """Draws one identity with clothes, light, background and framing.

    Args:
        assets: The head pack.
        rng: The only source of chance: one seed gives one identity.
        size_px: Side of the square picture.
        split: ``train`` never uses a held-out skin or hair, ``held-out`` always has a held-out
            skin and half of the time a held-out hair.
    """
    person = sample_person(assets, rng, split=split)
    look = sample_look(person, rng)
    return MakeHumanHead(assets, person, look=look, rng=rng, size_px=size_px)


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
                           tint=(0.9, 0.86, 0.8), specular=0.08, gloss=30)),
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
    """Light that reaches each vertex: ambient occlusion, and depth behind the lips in the mouth."""
    seen = scene.openness(rest, normals)
    openness = 0.3 + 0.7 * seen
    head_count = len(assets.vertices)
    lips = rest[list(_LIP_LINE)].mean(0)
    depth = lips[2] - rest[:, 2]
    # Teeth and tongue are closed in at rest, yet light comes in as soon as the mouth opens: how
    # much depends on how deep they lie.
    into_mouth = np.clip(0.8 - 0.95 * (depth - 0.08), 0.08, 0.8)
    start = head_count + len(assets.proxies["eyes"].reference)
    stop = start + sum(len(assets.proxies[name].reference) for name in ("teeth", "tongue"))
    openness[start:stop] = into_mouth[start:stop]
    tongue = slice(stop - len(assets.proxies["tongue"].reference), stop)
    openness[tongue] = np.clip(0.5 - 0.8 * depth[tongue], 0.06, 0.5)
    openness[head_count:start] = np.maximum(openness[head_count:start], 0.6)
    # Lashes, brows and hair shade themselves far too much through their layers.
    openness[stop:] = 0.5 + 0.5 * seen[stop:]
    inside = _inner_mouth_rows(assets)
    openness[inside] = np.clip(0.6 - 1.9 * depth[inside], 0.03, 0.6)
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


def _cloth_height(base: np.ndarray, collar: tuple[float, float, float]) -> np.ndarray:
    """Height above the collar line, measured on the base head so that it fits every shape."""
    x, y, z = base.T
    height, depth, width = collar
    neckline = depth * np.exp(-(x**2) / width) * np.clip(z / 0.5, 0, 1)
    return (y - (height + 0.12 * np.abs(x) - neckline)).astype(np.float32)


def _head_weight(vertices: np.ndarray, head: np.ndarray) -> np.ndarray:
    """How much of the head's turn each vertex follows: 1 above the chin, a quarter below."""
    chin = head[_CHIN, 1]
    rise = np.clip((vertices[:, 1] - (chin - 0.9)) / 0.8, 0, 1)
    return (0.25 + 0.75 * rise * rise * (3 - 2 * rise)).astype(np.float32)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    def about(axis: int, angle: float) -> np.ndarray:
        first, second = (axis + 1) % 3, (axis + 2) % 3
        matrix = np.eye(3)
        matrix[first, first] = matrix[second, second] = np.cos(angle)
        matrix[second, first], matrix[first, second] = np.sin(angle), -np.sin(angle)
        return matrix

    return about(2, roll) @ about(1, yaw) @ about(0, pitch)
