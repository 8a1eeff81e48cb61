"""How well faces are found and framed, on real people that no network was trained on.

The truth is what ``studio.clips.real_faces`` reads: recorded points of photographs and film frames.
Pictures without a face come from a folder of their own.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from joyflash_cli.errors import DataError, ImageError
from joyflash_cli.measures.film import face_shapes
from joyflash_cli.measures.sync import STILL, correlation
from joyflash_cli.media.inputs.face_points import EYE_CORNERS, MOUTH_CORNERS
from joyflash_cli.media.inputs.faces import Face, find_faces
from joyflash_cli.media.inputs.framing import FramingRule, frame_picture
from joyflash_cli.media.inputs.picture import Picture, read_picture
from joyflash_cli.media.inputs.similarity import Similarity, cut
from joyflash_cli.studio.clips.real_faces import PointedPicture, read_film_frames, read_photos

FRONTAL_YAW = 0.35
"""Largest ``Face.yaw`` of a face from the front."""

ROLL_DEGREES = 30.0
FRAMES_PER_CLIP = 3

RULE = FramingRule(size_px=256, eyes_x=0.497, eyes_y=0.425, eyes_to_mouth=0.252)
"""The embedded model's."""


@dataclass(frozen=True)
class _Read:
    """One held-out picture and the face that was found nearest to the true one."""

    truth: PointedPicture
    face: Face | None

    @property
    def is_frontal(self) -> bool:
        return abs(Face(self.truth.points, 1.0).yaw) < FRONTAL_YAW

    @property
    def error(self) -> float:
        """Mean distance of the points over the true distance of the outer eye corners."""
        if self.face is None:
            return float("nan")
        away = np.linalg.norm(self.face.points - self.truth.points, axis=1)
        return float(away.mean()) / Face(self.truth.points, 1.0).outer_eye_distance


def evaluate_points(
    real_dir: Path,
    *,
    faceless_dir: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict:
    """Figures of the embedded face networks.

    Args:
        real_dir: Folder of ``photos.json`` and ``clips.json``.
        faceless_dir: Pictures of which none shows a face.
        progress: Told (stage, done, of).

    Returns:
        Point errors and ``shapes`` by set, upright and rolled; faces that were missed; the spread
        of eyes and mouth in framed pictures; pictures without a face that passed; milliseconds a
        megapixel.

    Raises:
        DataError: If a folder lacks its lists or holds no picture.
    """
    tell = progress if progress is not None else lambda stage, done, of: None
    photos = (photo for photo in read_photos(real_dir) if photo.held_out)
    frames = read_film_frames(real_dir, frames_per_clip=FRAMES_PER_CLIP, only_held_out=True)
    pictures = [*photos, *frames]
    upright = _read_all(pictures, "upright", tell)
    frontal = [read for read in upright if read.is_frontal]
    rolled = _read_all([_rolled(read.truth, index) for index, read in enumerate(frontal)],
                       "rolled", tell)  # fmt: skip
    report = {
        "faces": len(upright),
        "missed": sum(read.face is None for read in upright),
        "refused": sum(bool(read.face and read.face.flaw) for read in upright),
        "frontal": _errors(frontal),
        "turned": _errors([read for read in upright if not read.is_frontal]),
        "rolled_30_degrees": _errors(rolled),
        "framed_spread": _spread([read.truth for read in frontal]),
        "ms_per_megapixel": _speed([read.truth.pixels for read in frontal]),
    }
    if faceless_dir is not None:
        report["faceless"] = _accepted(faceless_dir)
    return report


def _read_all(
    pictures: Sequence[PointedPicture], stage: str, tell: Callable[[str, int, int], None]
) -> list[_Read]:
    reads = []
    for index, picture in enumerate(pictures):
        truth = Face(picture.points, 1.0)
        near = [
            face
            for face in find_faces(picture.pixels)
            if np.linalg.norm(face.centre - truth.centre) < truth.eyes_to_mouth
        ]
        reads.append(_Read(picture, near[0] if near else None))
        tell(stage, index + 1, len(pictures))
    return reads


def _rolled(picture: PointedPicture, index: int) -> PointedPicture:
    """The picture turned about its middle, one way or the other, with grey corners."""
    height, width = picture.pixels.shape[:2]
    side = int(np.ceil(np.hypot(height, width)))
    degrees = ROLL_DEGREES if index % 2 else -ROLL_DEGREES
    turned = Similarity(1.0, degrees, 0.0, 0.0)
    corner = np.array([width / 2, height / 2]) - turned.to_picture(np.full(2, side / 2))
    place = Similarity(1.0, degrees, *corner.tolist())
    pixels, points = cut(picture.pixels, place, side), place.to_frame(picture.points)
    return replace(picture, pixels=pixels, points=points)


def _errors(reads: Sequence[_Read]) -> dict[str, Any]:
    """Mean error and shapes by set and of all, of the faces that were found."""
    found = [read for read in reads if read.face]
    kinds = sorted({read.truth.kind for read in found})
    sets = {kind: [read for read in found if read.truth.kind == kind] for kind in kinds}
    sets["all"] = found
    means = {
        kind: float(np.mean([read.error for read in part])) if part else float("nan")
        for kind, part in sets.items()
    }
    shapes = {kind: _shapes(part) for kind, part in sets.items()}
    return {**means, "faces": len(found), "shapes": shapes}


def _shapes(reads: Sequence[_Read]) -> dict[str, dict[str, float | None]]:
    """How measured openings, widths and lid openings relate to the recorded ones.

    A mouth that is always seen half open has a small error, but a ``slope`` of the measured on the
    recorded opening of 0.5; ``r`` is their correlation. ``None`` where the faces hardly differ.
    """
    if len(reads) < 3:
        return {}
    measured = face_shapes(np.stack([read.face.points for read in reads if read.face]))
    recorded = face_shapes(np.stack([read.truth.points for read in reads]))
    return {name: _relation(measured[name], recorded[name]) for name in recorded}


def _relation(measured: np.ndarray, recorded: np.ndarray) -> dict[str, float | None]:
    if recorded.std() < STILL:
        return {"slope": None, "r": None}
    slope = np.polyfit(recorded.astype(np.float64), measured.astype(np.float64), 1)[0]
    return {"slope": float(slope), "r": correlation(measured, recorded)}


def _spread(pictures: Sequence[PointedPicture]) -> dict[str, float]:
    """Standard deviations of the true eyes and mouths in framed pictures, of the side."""
    places = []
    for picture in pictures:
        framed = frame_picture(Picture(picture.pixels), RULE)
        if framed.face is None or framed.quarters:  # the latter are counted among the errors
            continue
        truth = framed.place.to_frame(picture.points) / RULE.size_px
        places.append(np.concatenate([truth[EYE_CORNERS].mean(0), truth[MOUTH_CORNERS].mean(0)]))
    names = ("eyes_x", "eyes_y", "mouth_x", "mouth_y")
    spread = np.std(places, axis=0) if places else np.full(4, np.nan)
    return {name: float(value) for name, value in zip(names, spread, strict=True)}


def _speed(pictures: Sequence[np.ndarray], *, least_s: float = 2.0) -> float:
    """Milliseconds that a megapixel takes, on pictures enlarged to one."""
    spent, area = 0.0, 0
    for picture in pictures:
        scale = np.sqrt(picture.shape[0] * picture.shape[1]) / 1000
        large = cut(picture, Similarity(scale, 0.0, 0.0, 0.0), 1000)
        started = time.process_time()
        find_faces(large)
        spent, area = spent + time.process_time() - started, area + 1
        if spent > least_s:
            break
    return 1000 * spent / max(area, 1)


def _accepted(directory: Path) -> dict[str, object]:
    """Which pictures without a face would be rendered all the same."""
    passed, count = [], 0
    for path in sorted(directory.iterdir()):
        try:
            picture = read_picture(path)
        except ImageError:
            continue
        count += 1
        try:
            frame_picture(picture, RULE, needs_face=True)
        except ImageError:
            continue
        passed.append(path.name)
    if not count:
        raise DataError(f"{directory} holds no picture", hint="give PNG or JPEG files")
    return {"pictures": count, "accepted": len(passed), "names": ", ".join(passed)}
