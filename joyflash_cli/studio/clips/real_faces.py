"""Photographs and films of real people with recorded points: a folder with two lists.

``photos.json`` names pictures and ``photos.npz`` holds their points; ``clips.json`` names films,
and beside each lies an ``.npz`` with the points of its frames. Points are in the canonical
numbering of 478.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.media.inputs.face_points import CANONICAL

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


def read_photos(directory: Path) -> Iterator[PointedPicture]:
    """The photographs that ``photos.json`` and ``photos.npz`` of a folder describe.

    Raises:
        DataError: If a list is missing.
    """
    from joyflash_cli.media.inputs.picture import read_picture

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


def read_film_frames(
    directory: Path, *, frames_per_clip: int, only_held_out: bool = False
) -> Iterator[PointedPicture]:
    """Frames of the clips that ``clips.json`` of a folder describes, evenly spread.

    Raises:
        DataError: If the list is missing or a clip cannot be decoded.
    """
    from joyflash_cli.studio.clips.clip_file import read_frames

    for row in _read_list(directory / "clips.json"):
        path = directory / row["file"]
        held_out = row["person"] in HELD_OUT_CLIPS
        if only_held_out and not held_out:
            continue
        frames = read_frames(path)
        points = np.load(path.with_suffix(".npz"))["points"][:, list(CANONICAL)].astype(np.float32)
        count = min(len(frames), len(points))
        for index in np.linspace(0, count - 1, min(frames_per_clip, count)).astype(int):
            yield PointedPicture(frames[index], points[index], 0.0, held_out, "clip")


def _read_list(path: Path) -> list[dict]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read", hint="set points.pictures to the folder of real faces"
        ) from error
