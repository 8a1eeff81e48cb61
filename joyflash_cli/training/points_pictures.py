"""Faces with known points on disk: photographs, film frames, rendered and drawn heads.

Every face is kept once as a square around it, at one size, so that training only has to warp it.
A part of the collection is one ``NAME.npz`` without pixels and one ``NAME.npy`` with them.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.media.face_points import CANONICAL, EYE_CORNERS, MOUTH_CORNERS
from joyflash_cli.media.similarity import Similarity, cut

SQUARE_PX = 256
_EYES_TO_MOUTH_PX = 52.0
"""Of a stored face; the square then reaches over hair and shoulders."""

_FACE_HEIGHT = 0.47
"""Height of the middle between eyes and mouth in the square, as a fraction."""

HELD_OUT_CLIPS = ("grid-s31", "grid-s33", "grid-unknown3", "grid-unknown4")
_HELD_OUT_LONDON_EVERY, _HELD_OUT_GENERATED_EVERY = 5, 10


@dataclass(frozen=True)
class PointedPicture:
    """One picture of one face.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 RGB.
        points: ``(P, 2)`` float, pixels; those that are not known are NaN.
        turned: How far the face is turned away, 0 towards us .. 1 not a face to animate any more.
        held_out: Whether the person is kept from training.
        kind: ``london``, ``clip``, ``sfhq``, ``rendered`` and the like.
    """

    pixels: np.ndarray
    points: np.ndarray
    turned: float
    held_out: bool
    kind: str


@dataclass(frozen=True)
class PictureStore:
    """Many faces, all in squares of one size.

    Attributes:
        pixels: ``(N, S, S, 3)`` uint8, perhaps a memory map.
        points: ``(N, P, 2)`` float32 in pixels of the square.
        inside: ``(N, 4)`` what the picture fills of the square: left, top, right, bottom.
        turned: ``(N,)`` see ``PointedPicture``.
        held_out: ``(N,)`` bool.
        kind: ``(N,)`` words.
    """

    pixels: np.ndarray
    points: np.ndarray
    inside: np.ndarray
    turned: np.ndarray
    held_out: np.ndarray
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.points)


def eyes_and_mouth(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres ``(..., 2)`` of the eyes and of the mouth of points ``(..., P, 2)``."""
    return points[..., EYE_CORNERS, :].mean(-2), points[..., MOUTH_CORNERS, :].mean(-2)


def write_part(directory: Path, name: str, pictures: Iterator[PointedPicture]) -> None:
    """Write a part of the collection unless it is there; its ``.npz`` comes last."""
    if (directory / f"{name}.npz").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    rows = [_square(picture) for picture in pictures]
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    np.save(directory / f"{name}.npy", columns[0])
    names = ("points", "inside", "turned", "held_out", "kind")
    partial = directory / f"{name}.part.npz"
    np.savez(partial, **dict(zip(names, columns[1:], strict=True)))
    os.replace(partial, directory / f"{name}.npz")


def load_parts(directory: Path, names: tuple[str, ...]) -> list[PictureStore]:
    """The parts that are on disk, pixels by memory map.

    Raises:
        DataError: If one is missing.
    """
    stores = []
    for name in names:
        try:
            with np.load(directory / f"{name}.npz") as part:
                pixels = np.load(directory / f"{name}.npy", mmap_mode="r")
                stores.append(PictureStore(pixels, **{key: part[key] for key in part.files}))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{directory / name}.npz cannot be read", hint="delete it; it is made again"
            ) from error
    return stores


def _square(picture: PointedPicture) -> tuple[np.ndarray, ...]:
    eyes, mouth = eyes_and_mouth(picture.points)
    # Width counts as well: of a face from above or below, eyes and mouth are close.
    corners = picture.points[EYE_CORNERS]
    wide = float(np.linalg.norm(corners[0] - corners[3]))
    distance = max(float(np.linalg.norm(mouth - eyes)), 0.6 * wide)
    scale = distance / _EYES_TO_MOUTH_PX
    corner = (eyes + mouth) / 2 - scale * SQUARE_PX * np.array([0.5, _FACE_HEIGHT])
    place = Similarity(scale, 0.0, *corner.tolist())
    height, width = picture.pixels.shape[:2]
    inside = place.to_frame(np.array([[0.0, 0.0], [width, height]])).reshape(4)
    return (
        cut(picture.pixels, place, SQUARE_PX),
        place.to_frame(picture.points).astype(np.float32),
        np.clip(inside, 0, SQUARE_PX).astype(np.float32),
        np.float32(picture.turned),
        np.bool_(picture.held_out),
        np.array(picture.kind, "U16"),
    )


def read_photos(directory: Path) -> Iterator[PointedPicture]:
    """The photographs that ``photos.json`` and ``photos.npz`` of a folder describe.

    Raises:
        DataError: If a list is missing.
    """
    from joyflash_cli.media.picture import read_picture

    rows = _read_list(directory / "photos.json")
    points = np.load(directory / "photos.npz")["points"][:, list(CANONICAL)].astype(np.float32)
    counts: dict[str, int] = {}
    for row, known in zip(rows, points, strict=True):
        kind = row["set"]
        place = counts[kind] = counts.get(kind, -1) + 1
        number = int(row["person"].rpartition("-")[2]) if kind == "london" else place
        every = {"london": _HELD_OUT_LONDON_EVERY, "sfhq": _HELD_OUT_GENERATED_EVERY}.get(kind)
        yield PointedPicture(
            pixels=read_picture(directory / row["file"]).pixels,
            points=known,
            turned=abs(row["yaw"]),
            held_out=every is not None and number % every == 0,
            kind=kind,
        )


def read_film_frames(directory: Path, *, frames_per_clip: int) -> Iterator[PointedPicture]:
    """Frames of the clips that ``clips.json`` of a folder describes, evenly spread.

    Raises:
        DataError: If the list is missing or a clip cannot be decoded.
    """
    from joyflash_cli.media.clip_file import read_frames

    for row in _read_list(directory / "clips.json"):
        path = directory / row["file"]
        frames = read_frames(path)
        points = np.load(path.with_suffix(".npz"))["points"][:, list(CANONICAL)].astype(np.float32)
        count = min(len(frames), len(points))
        for index in np.linspace(0, count - 1, min(frames_per_clip, count)).astype(int):
            held_out = row["person"] in HELD_OUT_CLIPS
            yield PointedPicture(frames[index], points[index], 0.0, held_out, "clip")


def _read_list(path: Path) -> list[dict]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read", hint="set points.pictures to the folder of real faces"
        ) from error
