"""Where the faces of a picture are and where their points lie, by two small networks of our own.

The finder looks at the whole picture at several sizes; the points network then looks at every face
it found, twice: the second time upright and as large as it was trained for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from joyflash_cli.media.inputs.face_points import (
    CROP_EYES_TO_MOUTH,
    CROP_PX,
    EYE_CORNERS,
    FINDER_STRIDE,
    MIRRORED,
    MOUTH_CORNERS,
    NOSE_TIP,
)
from joyflash_cli.media.inputs.similarity import Similarity, cut, similarity_between
from joyflash_cli.types import to_signed

if TYPE_CHECKING:
    from torch import Tensor

LEVELS_PX = (256, 128, 64)
"""Long sides at which the finder sees a picture: faces from about 1/16 of it to a close-up."""

FINE_LEVELS_PX = (512, 1024)
"""Looked at one after the other when nothing was found: faces from about 1/60 of the picture."""

MIN_HEAT = 0.25
"""What the finder must say of a place for the points network to look there."""

MIN_CONFIDENCE = 0.8
"""What the points network must say for a face to be one."""

MIN_MOUTH, MIN_FACING = 0.3, 0.6
"""Below the first the mouth is covered, below the second the face is turned away too far."""

MAX_DISAGREEMENT = 0.085
"""Largest mean distance, of the outer eye distance, between points read as seen and mirrored.

Points of faces agree; on what is not a face every look invents others."""

MAX_SPREAD = 0.068
"""Largest mean spread of the points' maps, of the crop's side; what is no face blurs them.

On 122 unseen people it was 0.060 or less but for two profiles, on pictures without a face that
passed otherwise 0.071 or more."""

_TURNED_TOLERANCE = 1.2
"""The far side of a profile is a guess: maps may be this much wider, and looks need not agree."""

SIZE_OF_EYES_TO_MOUTH = 2.5
"""``Face.size`` reaches from the brows to below the mouth."""

_CANDIDATES = 10
_MIN_ROUGH_CONFIDENCE = 0.1
_SAME_FACE = 0.8
_CHEEK_TO_CHEEK = 1.5
"""Between the middles of two heads side by side, in eye-to-mouth distances, at the least."""

_SAME_ROLL_DEGREES = 40.0
_BATCH = 16


@dataclass(frozen=True, eq=False)
class Face:
    """A face and its points.

    Attributes:
        points: ``(P, 2)`` float32, columns and rows in pixels of the picture; ``face_points``
            names them.
        confidence: That this is a face, 0..1.
        mouth_seen: That nothing covers its mouth, 0..1.
        facing: That it is not turned away too far, 0..1.
    """

    points: np.ndarray
    confidence: float
    mouth_seen: float = 1.0
    facing: float = 1.0

    @property
    def eyes(self) -> np.ndarray:
        """Middle between the eyes, ``(2,)``."""
        return self.points[EYE_CORNERS].mean(0)

    @property
    def mouth(self) -> np.ndarray:
        """Middle between the corners of the mouth, ``(2,)``."""
        return self.points[MOUTH_CORNERS].mean(0)

    @property
    def centre(self) -> np.ndarray:
        """Midway between eyes and mouth, ``(2,)``."""
        return (self.eyes + self.mouth) / 2

    @property
    def eyes_to_mouth(self) -> float:
        """Distance from ``eyes`` to ``mouth``, pixels."""
        return float(np.linalg.norm(self.mouth - self.eyes))

    @property
    def outer_eye_distance(self) -> float:
        """Distance between the outer corners of the eyes, pixels."""
        return float(np.linalg.norm(self.points[EYE_CORNERS[0]] - self.points[EYE_CORNERS[3]]))

    @property
    def size(self) -> float:
        """Side of a square from the brows to below the mouth, pixels."""
        return SIZE_OF_EYES_TO_MOUTH * self.eyes_to_mouth

    @property
    def roll_degrees(self) -> float:
        """Turn of the eyes-to-mouth line from upright, clockwise, -180..180."""
        down = self.mouth - self.eyes
        return float(np.rad2deg(np.arctan2(-down[0], down[1])))

    @property
    def yaw(self) -> float:
        """How far the nose's tip lies beside the middle of the eyes, in half eye distances.

        0 from the front, about 0.6 in three-quarter view, above 1 in profile; positive to the
        picture's right.
        """
        down = (self.mouth - self.eyes) / max(self.eyes_to_mouth, 1e-6)
        across = np.array([down[1], -down[0]])
        nose = float((self.points[NOSE_TIP] - self.eyes) @ across)
        return 2 * nose / max(self.outer_eye_distance, 1e-6)

    @property
    def flaw(self) -> str:
        """Why this face cannot be made to speak, in words; empty if it can."""
        if self.facing < MIN_FACING:
            return "the face is turned away too far"
        if self.mouth_seen < MIN_MOUTH:
            return "the mouth of the face is covered"
        return ""


@dataclass(frozen=True)
class _Place:
    """What the finder says: where, how large, how rolled, how surely."""

    centre: np.ndarray
    eyes_to_mouth: float
    roll_degrees: float
    heat: float


def find_faces(pixels: np.ndarray) -> list[Face]:
    """Faces in a picture, at any angle, the largest first; an empty list where there is none.

    Covered and turned faces are among them: see ``Face.flaw``.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
    """
    faces = _faces_at(pixels, LEVELS_PX)
    for level_px in FINE_LEVELS_PX:
        if not faces and max(pixels.shape[:2]) > level_px / 2:
            faces = _faces_at(pixels, (level_px,))
    return sorted(faces, key=lambda face: -face.size)


def read_points(frames: Sequence[np.ndarray], face: Face | None = None) -> list[Face]:
    """One face followed through a film, one ``Face`` a frame.

    Every frame is looked at from where the face was a few frames ago, then again from its own
    points. Frames on which it cannot be made out have a low ``confidence``.

    Args:
        frames: ``(H, W, 3)`` uint8 RGB each.
        face: Where it is in the first frame; the largest of that frame if ``None``.

    Returns:
        As many faces as frames; an empty list if the first frame shows none.
    """
    if face is None:
        found = find_faces(frames[0]) if len(frames) else []
        if not found:
            return []
        face = found[0]
    track: list[Face] = []
    for start in range(0, len(frames), _BATCH // 2):
        part = frames[start : start + _BATCH // 2]
        rough = _read(part, [face] * len(part), mirrored=False)
        track += _read(part, rough, mirrored=True)
        if track[-1].confidence > MIN_CONFIDENCE:
            face = track[-1]
    return track


def _faces_at(pixels: np.ndarray, levels: Sequence[int]) -> list[Face]:
    places = _apart([place for level in levels for place in _search(pixels, level)])
    places = places[:_CANDIDATES]
    rough = _read([pixels] * len(places), places, mirrored=False)
    sure = [face for face in rough if face.confidence > _MIN_ROUGH_CONFIDENCE]
    faces = _read([pixels] * len(sure), sure, mirrored=True)
    faces = [face for face in faces if face.confidence > MIN_CONFIDENCE]
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: (bool(face.flaw), -face.confidence)):
        if all(_distance(face, other) > _CHEEK_TO_CHEEK for other in kept):
            kept.append(face)
    return kept


def _distance(one: Face | _Place, other: Face | _Place) -> float:
    """Between the middles of two faces, in eye-to-mouth distances of the larger."""
    away = float(np.linalg.norm(one.centre - other.centre))
    return away / max(one.eyes_to_mouth, other.eyes_to_mouth, 1e-6)


def _apart(places: list[_Place]) -> list[_Place]:
    """The surest places, each of another face or at another angle."""
    kept: list[_Place] = []
    for place in sorted(places, key=lambda place: -place.heat):
        if all(
            _distance(place, other) > _SAME_FACE
            or abs((place.roll_degrees - other.roll_degrees + 180) % 360 - 180) > _SAME_ROLL_DEGREES
            for other in kept
        ):
            kept.append(place)
    return kept


def _search(pixels: np.ndarray, level_px: int) -> list[_Place]:
    """What the finder sees in a picture shrunk to a long side of ``level_px``."""
    import torch
    from torch.nn import functional

    from joyflash_cli.media.inputs.face_networks import load_face_networks

    scale = max(pixels.shape[:2]) / level_px
    side = -(-level_px // 16) * 16
    small = _shrunk(pixels, scale, side)
    with torch.inference_mode():
        seen = load_face_networks().finder(_to_tensor([small]))[0]
        heat = seen[0].sigmoid()
        peaks = functional.max_pool2d(heat[None], 3, 1, 1)[0]
        rows, columns = torch.nonzero((heat == peaks) & (heat > MIN_HEAT), as_tuple=True)
        found = torch.cat([heat[None], seen[1:]])[:, rows, columns].T.tolist()
    places = []
    for row, column, values in zip(rows.tolist(), columns.tolist(), found, strict=True):
        heat_here, dx, dy, size, cosine, sine = values
        centre = np.array([column + 0.5 + dx, row + 0.5 + dy]) * FINDER_STRIDE * scale
        distance = float(np.exp(size)) * FINDER_STRIDE * scale
        roll = float(np.rad2deg(np.arctan2(sine, cosine)))
        places.append(_Place(centre, distance, roll, heat_here))
    return places


def _shrunk(pixels: np.ndarray, scale: float, side: int) -> np.ndarray:
    """The picture at ``1 / scale`` in the upper left of a mid-grey square ``(side, side, 3)``."""
    from PIL import Image

    height, width = (max(1, round(length / scale)) for length in pixels.shape[:2])
    image = Image.fromarray(pixels)
    small = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    square = np.full((side, side, 3), 128, np.uint8)
    square[:height, :width] = np.asarray(small)
    return square


def _read(
    pictures: Sequence[np.ndarray], places: Sequence[Face | _Place], *, mirrored: bool
) -> list[Face]:
    """Faces as the points network sees them at the given places, one per picture.

    Args:
        pictures: ``(H, W, 3)`` uint8 each.
        places: Where to look, one a picture.
        mirrored: Whether the mirror image is asked, too, and must agree; without it this is but a
            rough look.
    """
    import torch

    from joyflash_cli.media.inputs.face_networks import load_face_networks

    if len(places) > _BATCH:
        first, rest = slice(None, _BATCH), slice(_BATCH, None)
        found = _read(pictures[first], places[first], mirrored=mirrored)
        return found + _read(pictures[rest], places[rest], mirrored=mirrored)
    if not places:
        return []
    frames = [_upright(place) for place in places]
    crops = [cut(pixels, frame, CROP_PX) for pixels, frame in zip(pictures, frames, strict=True)]
    with torch.inference_mode():
        seen = _to_tensor(crops)
        reading = load_face_networks().points(torch.cat([seen, seen.flip(3)]) if mirrored else seen)
        points = reading.points.unflatten(0, (-1, len(crops))).numpy() * CROP_PX
        spreads = reading.spread.unflatten(0, (-1, len(crops))).mean((0, 2)).tolist()
        chances = reading.logits.unflatten(0, (-1, len(crops))).mean(0).sigmoid().tolist()
    if mirrored:
        points[1] = points[1][:, MIRRORED] * [-1, 1] + [CROP_PX, 0]
    faces = []
    for index, frame in enumerate(frames):
        where = frame.to_picture(points[:, index].mean(0)).astype(np.float32)
        face = Face(where, *chances[index])
        apart = np.linalg.norm(points[0, index] - points[-1, index], axis=1).mean() * frame.scale
        is_turned = face.facing < MIN_FACING
        agrees = is_turned or apart < MAX_DISAGREEMENT * face.outer_eye_distance
        sharp = spreads[index] < MAX_SPREAD * (_TURNED_TOLERANCE if is_turned else 1.0)
        is_sure = not mirrored or (agrees and sharp)
        faces.append(face if is_sure else replace(face, confidence=0.0))
    return faces


def _upright(place: Face | _Place) -> Similarity:
    """The crop in which a face stands upright."""
    middle = np.full(2, CROP_PX / 2)
    angle = np.deg2rad(place.roll_degrees)
    down = np.array([-np.sin(angle), np.cos(angle)]) * max(place.eyes_to_mouth, 1.0)
    half = np.array([0.0, CROP_EYES_TO_MOUTH * CROP_PX / 2])
    return similarity_between(
        np.stack([middle - half, middle + half]),
        np.stack([place.centre - down / 2, place.centre + down / 2]),
    )


def _to_tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """``(B, 3, S, S)`` float32 in -1..1, channels last."""
    import torch

    return to_signed(np.stack(pictures)).contiguous(memory_format=torch.channels_last)
