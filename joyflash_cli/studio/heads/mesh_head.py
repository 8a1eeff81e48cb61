"""A head made of triangles: posed by face units, turned, lit and rendered frame by frame.

MakeHuman and ICT heads differ in how their mesh comes about; from there on they are the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from joyflash_cli.media.inputs.face_points import NUM_POINTS, points_of
from joyflash_cli.studio.heads.face_points import box_around
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.studio.heads.mouth_light import FaceRows, exposure_for, mouth_openness
from joyflash_cli.studio.heads.rasteriser import Lens, Part, Scene
from joyflash_cli.studio.heads.rasteriser_kernels import vertex_normals
from joyflash_cli.studio.heads.rig import Units
from joyflash_cli.studio.heads.surroundings import (
    Surroundings,
    sample_background,
    sample_lighting,
)

CAMERA_DISTANCE = 13.0
EYE_LINE = 0.40
"""Height of the eyes in the picture, from the top."""
EYE_TO_MOUTH = 0.25
"""Distance from the eyes to the closed mouth, as a fraction of the picture."""
_HEIGHT_TO_WIDTH = 0.74
"""Eyes to mouth over the width across both eyeballs, on the base head."""
FULLY_OPEN = FaceState(visemes=np.array([1, 0.6, 0, 0, 0.6, 0], np.float32))
ROUNDED = FaceState(visemes=np.array([1, 0, 1, 0, 0, 0], np.float32))


@dataclass(frozen=True)
class HeadMesh:
    """One identity's geometry, in decimetres, y up, looking along +z.

    Attributes:
        parts: Drawn together, the face's skin first; their rows index ``vertices``.
        vertices: ``(vertices, 3)`` neutral pose.
        units: Unit name to its displacement ``(vertices, 3)``.
        rig: From a face state to weights of the units, by name.
        skin_count: Vertices below this index get their normals anew in every frame.
        skin_triangles: ``(triangles, 3)`` int32 rows of the skin.
        cloth_height: ``(vertices,)`` signed height above the collar line.
        eyeballs: ``(rows,)`` vertices of both eyeballs.
        eye_light: Least light that reaches them.
        layers: Vertices of lashes, brows and hair, which shade themselves far too much.
        lip_line: Vertices in the middle of the closed mouth.
        lips: Vertices that bound the mouth in any shape.
        lids: Vertices that bound the eyes.
        chin_height: Height below which the neck begins.
        points: Corners, lids and lips.
        mouth_inside: ``(n,)`` vertices of teeth, gums, tongue and the mouth's lining.
        mouth_gain: ``(n,)`` how well each of them takes the light that comes in.
        landmarks: Vertices of facial points, each with the point's canonical number.
    """

    parts: list[Part]
    vertices: np.ndarray
    units: dict[str, np.ndarray]
    rig: Callable[[FaceState], dict[str, float]]
    skin_count: int
    skin_triangles: np.ndarray
    cloth_height: np.ndarray
    eyeballs: np.ndarray
    eye_light: float
    layers: np.ndarray
    lip_line: np.ndarray
    lips: np.ndarray
    lids: np.ndarray
    chin_height: float
    points: FaceRows
    mouth_inside: np.ndarray
    mouth_gain: np.ndarray
    landmarks: tuple[tuple[int, int], ...]


class MeshHead:
    """One identity; renders face states. See ``face_state.Head``.

    The head turns about the top of the neck and the shoulders follow by a quarter. Positive yaw
    turns to the picture's right, positive pitch looks down, positive roll tilts to the picture's
    left.

    Args:
        mesh: Geometry and materials.
        rng: Draws the framing, and the surroundings if there are none.
        size_px: Side of the square picture.
        surroundings: Light and background.
    """

    def __init__(
        self,
        mesh: HeadMesh,
        rng: np.random.Generator,
        *,
        size_px: int,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.size_px = size_px
        self._mesh, self._units = mesh, Units(mesh.units)
        self._scene = scene = Scene(mesh.parts, size_px)
        faces = scene.rows[scene.triangles]
        self._rest_normals = vertex_normals(mesh.vertices, faces.astype(np.int32))
        self._openness = self._open_to_sky()
        if surroundings is None:
            surroundings = Surroundings(sample_lighting(rng), sample_background(rng, size_px))
        self._surroundings = surroundings
        self._mouth_gain = mesh.mouth_gain * exposure_for(mesh.parts[0].material)
        self._inside = np.asarray(np.isin(faces, mesh.mouth_inside).all(axis=1))
        eyes = mesh.vertices[mesh.eyeballs]
        self._eye_centre = (eyes.max(0) + eyes.min(0)) / 2
        self._follow = _head_weight(mesh.vertices, mesh.chin_height)
        self._lens = self._frame_face(rng)
        self.mouth_box = self._box(mesh.lips, [FaceState(), FULLY_OPEN, ROUNDED])
        self.eyes_box = self._box(mesh.lids, [FaceState()])

    def _open_to_sky(self) -> np.ndarray:
        """Light that reaches each vertex outside of the mouth: ambient occlusion."""
        mesh = self._mesh
        seen = self._scene.openness(mesh.vertices, self._rest_normals)
        openness = 0.3 + 0.7 * seen
        openness[mesh.eyeballs] = np.maximum(openness[mesh.eyeballs], mesh.eye_light)
        openness[mesh.layers] = 0.5 + 0.5 * seen[mesh.layers]
        return openness.astype(np.float32)

    def render(self, state: FaceState) -> np.ndarray:
        """RGB picture ``(size_px, size_px, 3)`` uint8 of a face state."""
        shape = self.shape(state)
        vertices, normals = self._pose(shape, state)
        inside = self._mesh.mouth_inside
        openness = self._openness.copy()
        openness[inside] = mouth_openness(shape, inside, self._mesh.points, gain=self._mouth_gain)
        return self._scene.render(
            vertices,
            normals,
            occlusion=openness,
            cloth_height=self._mesh.cloth_height,
            lens=self._lens_at(state),
            lighting=self._surroundings.lighting,
            background=self._surroundings.background,
        )

    def render_with_mouth(self, state: FaceState) -> tuple[np.ndarray, np.ndarray]:
        """The picture, and how much of each pixel shows the mouth's inside ``(S, S)`` 0..1."""
        return self.render(state), self._scene.share_of(self._inside)

    def points(self, state: FaceState) -> np.ndarray:
        """Points ``(12, 2)`` of the face in the picture of a face state, see ``FACE_POINTS``."""
        rows = self._mesh.points
        follow = np.append(self._follow[rows.pairs], np.ones(2, np.float32))
        turned = self._turn(rows.places(self.shape(state)), follow, state)
        return self._project(turned, self._lens_at(state))

    def canonical_points(self, state: FaceState) -> np.ndarray:
        """Points ``(P, 2)`` in pixels, NaN where unknown; see ``media.inputs.face_points``."""
        found = np.full((NUM_POINTS, 2), np.nan)
        vertices, numbers = zip(*self._mesh.landmarks, strict=True)
        rows = np.array(vertices)
        seen = self._turn(self.shape(state)[rows], self._follow[rows], state)
        found[points_of(numbers)] = self._project(seen, self._lens_at(state))
        return found

    def shape(self, state: FaceState) -> np.ndarray:
        """Vertices ``(vertices, 3)`` of an expression, before the head is turned."""
        weights = self._units.weights(self._mesh.rig(state))
        return self._units.move(self._mesh.vertices, weights)

    def _pose(self, vertices: np.ndarray, state: FaceState) -> tuple[np.ndarray, np.ndarray]:
        """Vertices and normals of an expression in camera space."""
        normals = self._rest_normals.copy()
        skin = slice(0, self._mesh.skin_count)
        normals[skin] = vertex_normals(vertices[skin], self._mesh.skin_triangles)
        turn = head_turn(state.yaw, state.pitch, state.roll).astype(np.float32)
        follow = self._follow[:, None]
        turned = follow * (normals @ turn.T) + (1 - follow) * normals
        return self._turn(vertices, self._follow, state), turned

    def _turn(self, points: np.ndarray, follow: np.ndarray, state: FaceState) -> np.ndarray:
        """Points ``(n, 3)`` of the head in camera space, each following the turn by its share."""
        turn = head_turn(state.yaw, state.pitch, state.roll).astype(np.float32)
        pivot = self._eye_centre - np.array([0.0, 0.9, 1.1], np.float32)
        local = points - pivot
        share = follow[:, None]
        posed = share * (local @ turn.T) + (1 - share) * local + (pivot - self._eye_centre)
        posed[:, 2] -= CAMERA_DISTANCE
        return posed

    def _lens_at(self, state: FaceState) -> Lens:
        return Lens(
            focal=self._lens.focal,
            centre_x=self._lens.centre_x + state.shift_x,
            centre_y=self._lens.centre_y + state.shift_y,
        )

    def _project(self, points: np.ndarray, lens: Lens) -> np.ndarray:
        """Pixels ``(n, 2)`` of points ``(n, 3)`` in camera space."""
        x = lens.centre_x - points[:, 0] / points[:, 2] * lens.focal / 2
        y = lens.centre_y + points[:, 1] / points[:, 2] * lens.focal / 2
        return np.stack([x, y], 1) * self.size_px

    def _frame_face(self, rng: np.random.Generator) -> Lens:
        lip_line = self._mesh.vertices[self._mesh.lip_line, 1].mean()
        eyes_apart = np.ptp(self._mesh.vertices[self._mesh.eyeballs, 0])
        # Half by height, half by width, so that a broad face does not fill the picture.
        eye_to_mouth = np.sqrt((self._eye_centre[1] - lip_line) * eyes_apart * _HEIGHT_TO_WIDTH)
        spread = self._surroundings.framing_spread
        scale = EYE_TO_MOUTH * (1 + spread * rng.uniform(-0.06, 0.06))
        return Lens(
            focal=2 * scale * CAMERA_DISTANCE / eye_to_mouth,
            centre_x=0.5 + spread * rng.uniform(-0.03, 0.03),
            centre_y=EYE_LINE + spread * rng.uniform(-0.03, 0.03),
        )

    def _box(self, rows: np.ndarray, states: list[FaceState]) -> tuple[int, int, int, int]:
        posed = [self._pose(self.shape(state), state)[0][rows] for state in states]
        points = self._project(np.concatenate(posed), self._lens) / self.size_px
        return box_around(points, self.size_px)


def collar_height(base: np.ndarray, collar: tuple[float, float, float]) -> np.ndarray:
    """Height above the collar line, measured on the base head so that it fits every shape.

    Args:
        base: ``(vertices, 3)`` mean head.
        collar: Height, depth of the neckline and its width, in decimetres.
    """
    x, y, z = base.T
    height, depth, width = collar
    neckline = depth * np.exp(-(x**2) / width) * np.clip(z / 0.5, 0, 1)
    return (y - (height + 0.12 * np.abs(x) - neckline)).astype(np.float32)


def _head_weight(vertices: np.ndarray, chin_height: float) -> np.ndarray:
    """How much of the head's turn each vertex follows: 1 above the chin, a quarter below."""
    rise = np.clip((vertices[:, 1] - (chin_height - 0.9)) / 0.8, 0, 1)
    return (0.25 + 0.75 * rise * rise * (3 - 2 * rise)).astype(np.float32)


def head_turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation ``(3, 3)`` of a head, see ``MeshHead``."""

    def about(axis: int, angle: float) -> np.ndarray:
        first, second = (axis + 1) % 3, (axis + 2) % 3
        matrix = np.eye(3)
        matrix[first, first] = matrix[second, second] = np.cos(angle)
        matrix[second, first], matrix[first, second] = np.sin(angle), -np.sin(angle)
        return matrix

    return about(2, roll) @ about(1, yaw) @ about(0, pitch)
