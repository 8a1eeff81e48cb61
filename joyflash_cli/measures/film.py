"""What is read from the frames of any film of one speaking face, at any size and frame rate.

The project's own points network follows the face; everything else is measured where it says that
lips, lids and cheeks are. Memory is about 10 kB a frame.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.measures.quality import crop, frame_changes, luma, mean_colour, sharpness
from joyflash_cli.measures.reader import EYES_BOX, FRAME_PX, MOUTH_BOX, PLACES, Readers, face_box
from joyflash_cli.media.inputs.face_points import EYE_CORNERS, LIPS_INNER, MOUTH_CORNERS, points_of
from joyflash_cli.media.inputs.faces import MIN_CONFIDENCE, Face, read_points
from joyflash_cli.media.inputs.similarity import Similarity, cut, similarity_between

MOUTH_SHAPE = (48, 64)
"""Rows and columns of the picture that is kept of every mouth."""

MOUTH_REACH = 0.8
"""Columns of that picture over the distance of the outer eye corners."""

OPEN_MOUTH = 0.06
"""Lips this far apart, over the distance of the outer eye corners, count as open."""

CHEEK_SIDE = 0.1
"""Side of a patch of cheek over the distance of the outer eye corners."""

MIN_SEEN = 0.5
"""Share of the frames on which the face must be made out for a film to be measured."""

_LIPS_MIDDLE = points_of((13, 14))
_LIDS = points_of((160, 159, 158, 385, 386, 387)), points_of((144, 145, 153, 380, 374, 373))
_BATCH = 32
_LEAST_PIXELS = 20


@dataclass(frozen=True, eq=False)
class FilmReading:
    """One film of one face.

    Attributes:
        fps: Frames per second.
        seen: Frames on which the face was made out, ``(F,)`` bool; elsewhere the tracks of lips
            and lids are interpolated.
        opening: Distance of the inner lips over that of the outer eye corners, ``(F,)``.
        width: Distance of the mouth's corners in the same measure, ``(F,)``.
        lids: Opening of the lids over the width of the eye, mean of both, ``(F,)``.
        mouths: Pictures of the mouth, ``(F, 48, 64, 3)`` uint8, upright and of one scale.
        inside: Luma between the lips in 0..255, 95th percentile and mean, ``(F, 2)``; NaN where
            they are closed.
        skin: Median luma of the cheeks, ``(F,)``.
        skin_colour: Median colour of the cheeks of the first frame in 0..255, ``(3,)``.
        colour: Mean colour of the frames, ``(F, 3)``.
        sharpness: Mean gradient in the face, ``(F,)``.
        changes: Mean absolute difference to the frame before, ``(F - 1,)``.
        identity: Embeddings of the face with its mouth hidden, ``(F, D)``.
    """

    fps: float
    seen: np.ndarray
    opening: np.ndarray
    width: np.ndarray
    lids: np.ndarray
    mouths: np.ndarray
    inside: np.ndarray
    skin: np.ndarray
    skin_colour: np.ndarray
    colour: np.ndarray
    sharpness: np.ndarray
    changes: np.ndarray
    identity: np.ndarray

    @property
    def open_frames(self) -> np.ndarray:
        """Indices ``(n,)`` of seen frames whose mouth is open and shows something inside."""
        return np.flatnonzero(self.seen & ~np.isnan(self.inside[:, 0]))


def read_film(frames: Iterable[np.ndarray], *, fps: float, readers: Readers) -> FilmReading:
    """Everything that is read from a film, in one pass.

    Args:
        frames: ``(H, W, 3)`` uint8 RGB each, of one size; the largest face of the first is read.
        fps: Frames per second.
        readers: Embed the person.

    Raises:
        DataError: If the first frame shows no face, or too few of the others do.
    """
    parts: dict[str, list[np.ndarray]] = {}
    face: Face | None = None
    last: np.ndarray | None = None
    for batch in batches(frames, _BATCH):
        faces = read_points(batch, face)
        if not faces:
            break
        sure = [found for found in faces if found.confidence > MIN_CONFIDENCE]
        face = sure[-1] if sure else face or faces[0]
        for name, values in _look(batch, faces, last, readers).items():
            parts.setdefault(name, []).append(values)
        last = batch[-1]
    if not parts:
        raise DataError("its first frame shows no face", hint="give films of one face")
    found = {name: np.concatenate(values) for name, values in parts.items()}
    if found["seen"].mean() < MIN_SEEN:
        raise DataError(
            f"its face is made out on {found['seen'].mean():.0%} of the frames; "
            f"{MIN_SEEN:.0%} are needed",
            hint="give films of one face from the front",
        )
    for name in ("opening", "width", "lids"):
        # Straight lines over frames on which it was not seen.
        frames = np.arange(len(found[name]))
        found[name] = np.interp(frames, frames[found["seen"]], found[name][found["seen"]])
    found["skin_colour"] = found["skin_colour"][0]
    return FilmReading(fps=fps, **found)


def embed_face(picture: np.ndarray, readers: Readers) -> np.ndarray:
    """Embedding ``(D,)`` of the largest face of a picture ``(H, W, 3)``, its mouth hidden.

    Raises:
        DataError: If it shows no face.
    """
    faces = read_points([picture])
    if not faces:
        raise DataError("the reference picture shows no face", hint="give a picture of one face")
    upright = cut(picture, _framed(faces[0]), FRAME_PX)[None]
    return readers.embed(upright, MOUTH_BOX * FRAME_PX, EYES_BOX * FRAME_PX)[0]


def batches(frames: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """The frames of a film, so many at a time."""
    remaining = iter(frames)
    while batch := list(islice(remaining, size)):
        yield batch


def _look(
    frames: list[np.ndarray], faces: list[Face], last: np.ndarray | None, readers: Readers
) -> dict[str, np.ndarray]:
    """One row of every attribute of ``FilmReading`` for each frame."""
    pairs = list(zip(frames, faces, strict=True))
    points = np.stack([face.points for face in faces]).astype(np.float64)
    shapes = face_shapes(points)
    mouths = np.stack([_mouth(frame, face) for frame, face in pairs])
    cheeks = [_cheeks(frame, face) for frame, face in pairs]
    lights = [
        _between_lips(mouth, face) if gap > OPEN_MOUTH else (np.nan, np.nan)
        for mouth, face, gap in zip(mouths, faces, shapes["opening"], strict=True)
    ]
    upright = np.stack([cut(frame, _framed(face), FRAME_PX) for frame, face in pairs])
    before = [] if last is None else [last]
    return {
        "seen": np.array([face.confidence > MIN_CONFIDENCE for face in faces]),
        **shapes,
        "mouths": mouths,
        "inside": np.array(lights),
        "skin": np.array([np.median(luma(patch)) for patch in cheeks]),
        "skin_colour": np.array([np.median(patch, axis=0) for patch in cheeks]),
        "colour": mean_colour(np.stack(frames)),
        "sharpness": np.array([_face_sharpness(frame, face) for frame, face in pairs]),
        "changes": frame_changes(np.stack([*before, *frames])),
        "identity": readers.embed(upright, MOUTH_BOX * FRAME_PX, EYES_BOX * FRAME_PX),
    }


def face_shapes(points: np.ndarray) -> dict[str, np.ndarray]:
    """How far lips and lids are apart in faces of points ``(F, P, 2)``, ``(F,)`` each.

    Returns:
        ``opening`` between the inner lips and ``width`` between the mouth's corners over the
        distance of the outer eye corners; ``lids`` over the width of the eye, mean of both and of
        three distances an eye, because lids of few pixels are read roughly.
    """
    eyes_apart = _length(points[:, EYE_CORNERS[0]] - points[:, EYE_CORNERS[3]])
    upper, lower = (points[:, lid] for lid in _LIDS)
    heights = _length(upper - lower).reshape(len(points), 2, 3).mean(-1)
    corners = points[:, EYE_CORNERS].reshape(len(points), 2, 2, 2)
    return {
        "opening": _length(np.subtract(*points[:, _LIPS_MIDDLE].swapaxes(0, 1))) / eyes_apart,
        "width": _length(np.subtract(*points[:, MOUTH_CORNERS].swapaxes(0, 1))) / eyes_apart,
        "lids": (heights / _length(corners[:, :, 0] - corners[:, :, 1])).mean(-1),
    }


def _framed(face: Face) -> Similarity:
    """The frame in which the readers learned heads."""
    return similarity_between(PLACES * FRAME_PX, np.stack([face.eyes, face.mouth]))


def _mouth_place(face: Face) -> Similarity:
    """The picture of a mouth: its middle is the corners', its scale and turn are the face's."""
    side = MOUTH_SHAPE[1]
    turned = Similarity(MOUTH_REACH * face.outer_eye_distance / side, face.roll_degrees, 0.0, 0.0)
    x, y = (face.mouth - turned.to_picture(np.full(2, side / 2))).tolist()
    return Similarity(turned.scale, turned.degrees, x, y)


def _mouth(frame: np.ndarray, face: Face) -> np.ndarray:
    rows, columns = MOUTH_SHAPE
    top = (columns - rows) // 2
    return cut(frame, _mouth_place(face), columns)[top : top + rows]


def _between_lips(mouth: np.ndarray, face: Face) -> tuple[float, float]:
    """95th percentile and mean of the luma between the inner lips; NaN where too little shows."""
    rows, columns = MOUTH_SHAPE
    outline = _mouth_place(face).to_frame(face.points[LIPS_INNER].astype(np.float64))
    shown = _inside(outline - [0, (columns - rows) // 2], MOUTH_SHAPE)
    if shown.sum() < _LEAST_PIXELS:
        return np.nan, np.nan
    light = luma(mouth[shown])
    return float(np.percentile(light, 95)), float(light.mean())


def _inside(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose middles lie inside a closed outline ``(n, 2)``, by the even-odd rule."""
    rows, columns = (np.arange(length) + 0.5 for length in shape)
    start, stop = outline, np.roll(outline, -1, axis=0)
    crosses = (start[:, 1] > rows[:, None]) != (stop[:, 1] > rows[:, None])
    rise = np.where(start[:, 1] == stop[:, 1], 1.0, stop[:, 1] - start[:, 1])
    share = (rows[:, None] - start[:, 1]) / rise
    where = start[:, 0] + share * (stop[:, 0] - start[:, 0])
    right = crosses[:, None] & (columns[:, None] < where[:, None])
    return right.sum(-1) % 2 == 1


def _cheeks(frame: np.ndarray, face: Face) -> np.ndarray:
    """Pixels ``(n, 3)`` half-way from the outer eye corners to those of the mouth."""
    half = max(1.0, CHEEK_SIDE * face.outer_eye_distance / 2)
    middles = (face.points[EYE_CORNERS[[0, 3]]] + face.points[MOUTH_CORNERS]) / 2
    height, width = frame.shape[:2]
    middles = middles.clip(half + 1, np.array([width, height]) - half - 1)
    patches = [_box(frame, middle - half, middle + half) for middle in middles]
    return np.concatenate([patch.reshape(-1, 3) for patch in patches])


def _face_sharpness(frame: np.ndarray, face: Face) -> float:
    low, high = face_box(MOUTH_BOX * FRAME_PX, EYES_BOX * FRAME_PX).reshape(2, 2)
    corners = _framed(face).to_picture(np.array([low, high, [low[0], high[1]], [high[0], low[1]]]))
    limits = np.array(frame.shape[1::-1])
    low, high = corners.min(0).clip(0, limits - 2), corners.max(0)
    region = _box(frame, low, np.maximum(high, low + 2))
    return float(sharpness(region[None])[0])


def _box(frame: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = np.concatenate([low, high]).round().astype(int).tolist()
    return crop(frame, (x0, y0, x1, y1))


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1)
