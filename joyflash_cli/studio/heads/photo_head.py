"""People of photographs that speak: a head fitted under the picture moves the picture's own pixels.

Skin, hair, light and background stay the photograph's. Only what a closed mouth hides, teeth,
tongue and throat, is rendered, in the photograph's light. At rest the picture is the photograph.
"""

from dataclasses import replace

import numpy as np

from joyflash_cli.studio.heads.face_points import LOWER_LIDS, UPPER_LIDS, box_around
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.studio.heads.ict import face_rows, ict_units, mouth_materials, mouth_rows
from joyflash_cli.studio.heads.ict_atlas import LINING_UV
from joyflash_cli.studio.heads.ict_pack import IctAssets, triangles_of_island
from joyflash_cli.studio.heads.ict_paint import solid
from joyflash_cli.studio.heads.mesh_head import FULLY_OPEN, ROUNDED, head_turn
from joyflash_cli.studio.heads.mouth_light import mouth_openness
from joyflash_cli.studio.heads.photo_fit import (
    Photo,
    colour_of,
    fit_photo,
    light_of,
    lip_vertices,
    lips_apart,
)
from joyflash_cli.studio.heads.rasteriser import NO_CLOTH, Lens, Material, Part, Scene, Surface
from joyflash_cli.studio.heads.rasteriser_kernels import vertex_normals
from joyflash_cli.studio.heads.rig import Units

FAR = 400.0
"""Distance of the camera in decimetres: a fit without perspective is drawn without it."""
TEETH_FOLLOW_LIPS = 0.7
SKIN_FOR_LIDS = 0.5
"""A closing lid unfolds skin from above, in openings of the eye: its own hardly shows if open."""
LID_EDGE = 0.15
"""The same at the lid's edge, where the eye's white might come along."""
BEHIND_LIDS = 0.3
"""How far eyeballs are set back, so that a fitted lid always covers them."""


class PhotoHead:
    """One photographed person; follows the ``Head`` protocol.

    Args:
        ict: The head pack, with the units that the rig uses.
        photo: The picture.
        size_px: Side of the pictures to make.

    Attributes:
        fit_error: Root mean square distance of the fitted points, in sides of the picture.
    """

    def __init__(self, ict: IctAssets, photo: Photo, *, size_px: int) -> None:
        self.size_px = size_px
        self._ict = ict
        self._photo = np.ascontiguousarray(photo.pixels, np.float32)
        self._fit = fit_photo(ict, photo.points)
        self.fit_error = self._fit.error
        self._units = Units(ict.units)
        self._rest_units = self._units.weights(ict_units(FaceState()))
        self._rows = face_rows(ict)
        skin, mouth = _skin(ict), _mouth(ict)
        self._scene = Scene([*skin, *mouth], size_px)
        self._inside = np.repeat(
            [False, True],
            [sum(len(part.surface.triangles) for part in parts) for parts in (skin, mouth)],
        )
        self._inside_rows, self._gain = mouth_rows(ict)
        self._eyes = np.concatenate([ict.surfaces[f"{s}_eye"].rows for s in ("left", "right")])
        balls = self._fit.vertices[self._eyes]
        middle = (balls.max(0) + balls.min(0)) / 2
        self._pivot = middle - np.array([0.0, 0.9, 1.1], np.float32)
        chin = self._fit.vertices[ict.landmarks[8], 1]
        rise = np.clip((self._fit.vertices[:, 1] - (chin - 0.9)) / 0.8, 0, 1)
        self._follow = (rise * rise * (3 - 2 * rise)).astype(np.float32)
        triangles = self._scene.rows[self._scene.triangles].astype(np.int32)
        normals = vertex_normals(self._fit.vertices, triangles)
        self._normals = (normals @ self._fit.rotation.T).astype(np.float32)
        self._teeth_aside = 0.0
        self._blinks = self._blink_gains()
        rest = self._shape(FaceState())
        # Turned faces are fitted with a few degrees of error, which would put teeth beside lips.
        upper = self._rows.lip_edges(rest)[0]
        self._teeth_aside = TEETH_FOLLOW_LIPS * float(
            upper[0] - rest[np.unique(ict.surfaces["teeth"].rows), 0].mean()
        )
        self._lid_skin = self._unfolded()
        self._source, self._tone = lips_apart(self._place(rest), photo.points, ict)
        found = self._place(self._rows.places(rest)) * len(photo.pixels)
        self._lighting = light_of(photo.pixels, found)
        self._colour = colour_of(photo.pixels, found)
        self.mouth_box = self._box(
            lip_vertices(ict, moved=0.03)[0], [FaceState(), FULLY_OPEN, ROUNDED]
        )
        lids = np.abs(ict.units["eyeBlinkLeft"] + ict.units["eyeBlinkRight"]).max(1) > 0.02
        self.eyes_box = self._box(np.flatnonzero(lids), [FaceState()])

    def render(self, state: FaceState) -> np.ndarray:
        """RGB picture ``(size_px, size_px, 3)`` uint8 of a face state."""
        shape = self._shape(state)
        inside = self._inside_rows
        openness = np.ones(len(shape), np.float32)
        openness[inside] = mouth_openness(shape, inside, self._rows, gain=self._gain)
        posed = shape.copy()
        posed[self._eyes, 2] -= BEHIND_LIDS
        posed[:, 2] -= FAR
        picture = self._scene.render(
            posed,
            self._normals,
            occlusion=openness,
            cloth_height=np.full(len(shape), NO_CLOTH, np.float32),
            lens=Lens(2 * FAR * self._fit.scale, self._fit.shift[0], -self._fit.shift[1]),
            lighting=self._lighting,
            background=np.zeros((self.size_px, self.size_px, 3), np.float32),
        )
        if self._colour < 1:
            grey = picture.mean(-1, keepdims=True)
            picture = (grey + (picture - grey) * self._colour).astype(np.uint8)
        source = self._source.copy()
        source[:, 1] -= max(state.blink, 0.0) * self._lid_skin
        self._scene.redraw(self._photo, source, self._tone, inside=self._inside, picture=picture)
        return picture

    def render_with_mouth(self, state: FaceState) -> tuple[np.ndarray, np.ndarray]:
        """The picture, and how much of each pixel shows the mouth's inside ``(S, S)`` 0..1."""
        return self.render(state), self._scene.share_of(self._inside)

    def points(self, state: FaceState) -> np.ndarray:
        """Points ``(12, 2)`` of the face in the picture of a face state, see ``FACE_POINTS``."""
        return self._place(self._rows.places(self._shape(state))) * self.size_px

    def _shape(self, state: FaceState) -> np.ndarray:
        """Vertices ``(vertices, 3)`` in decimetres of the camera, bent to the photograph."""
        weights = self._units.weights(ict_units(state)) - self._rest_units
        for index, gain in self._blinks.items():
            weights[index] *= gain
        return self._seen(weights, state)

    def _seen(self, weights: np.ndarray, state: FaceState) -> np.ndarray:
        vertices = self._units.move(self._fit.vertices, weights)
        turn = head_turn(state.yaw, state.pitch, state.roll).astype(np.float32) - np.eye(3)
        vertices += self._follow[:, None] * ((vertices - self._pivot) @ turn.T)
        seen = (vertices @ self._fit.rotation.T).astype(np.float32)
        seen[:, :2] += self._fit.bend
        seen[self._inside_rows, 0] += self._teeth_aside
        shift = np.array([state.shift_x, -state.shift_y]) / self._fit.scale
        seen[:, :2] += self._follow[:, None] * shift
        return seen

    def _eye_opening(self, shape: np.ndarray, place: int) -> float:
        """Height between the lids of the eye that is left (0) or right (1) in the picture."""
        lids = [self._rows.pairs[lid][place] for lid in (UPPER_LIDS, LOWER_LIDS)]
        return shape[lids[0], 1] - shape[lids[1], 1]

    def _blink_gains(self) -> dict[int, float]:
        """Factor on the blink of each side that just shuts this eye."""
        gains = {}
        still = self._seen(0 * self._rest_units, FaceState())
        # The person's right is on the picture's left, where the rows begin.
        for place, side in enumerate(("Right", "Left")):
            shut = 0 * self._rest_units
            index = self._units.names.index(f"eyeBlink{side}")
            shut[index] = 1
            opened, closed = (
                self._eye_opening(v, place) for v in (still, self._seen(shut, FaceState()))
            )
            gains[index] = float(np.clip(opened / max(opened - closed, 1e-3), 0.4, 2.0))
        return gains

    def _unfolded(self) -> np.ndarray:
        """How far up the photograph a lid's vertices ``(vertices,)`` look when it is shut."""
        up = np.zeros(len(self._fit.vertices), np.float32)
        rest = self._shape(FaceState())
        for place, index in enumerate(self._blinks):
            moved = np.clip(-self._ict.units[self._units.names[index]][:, 1], 0, None)
            share = moved / moved.max()
            opening = self._eye_opening(rest, place) * self._fit.scale
            # The crease stays, the lashes at the edge nearly so: no white of the eye may show.
            up += (4 * share * (1 - share) * SKIN_FOR_LIDS + share * LID_EDGE) * opening
        return up

    def _place(self, shape: np.ndarray) -> np.ndarray:
        """Fractions of the picture's side ``(n, 2)`` of points in decimetres of the camera."""
        return (shape[:, :2] * self._fit.scale + self._fit.shift) * np.array([1, -1])

    def _box(self, rows: np.ndarray, states: list[FaceState]) -> tuple[int, int, int, int]:
        places = np.concatenate([self._place(self._shape(state)[rows]) for state in states])
        return box_around(places, self.size_px)


def _skin(ict: IctAssets) -> list[Part]:
    """Skin and eyes in black, for the photograph to be added."""
    black = Material(solid((0, 0, 0)), tint=(0.0, 0.0, 0.0))
    outside = _back(ict, inside=False)
    others = [ict.surfaces[name] for name in ("face", "left_eye", "right_eye")]
    return [Part(surface, black) for surface in (others[0], outside, *others[1:])]


def _mouth(ict: IctAssets) -> list[Part]:
    dark = Material(solid((112, 46, 46)), softness=0.5)
    looks = mouth_materials(teeth_tint=(0.86, 0.82, 0.74))
    rest = [Part(ict.surfaces[name], look) for name, look in looks.items()]
    return [Part(_back(ict, inside=True), dark), *rest]


def _back(ict: IctAssets, *, inside: bool) -> Surface:
    """The mouth's lining, or the back of the head, which share vertices and texture."""
    back = ict.surfaces["back"]
    return replace(back, triangles=back.triangles[triangles_of_island(back, LINING_UV) == inside])
