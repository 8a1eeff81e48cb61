"""The faces that SyncNet looks at: one face followed through a film and cut as it was trained.

The published protocol finds faces with S3FD. Where its weights were not brought, the outline of the
project's own face points stands for its box. Everything after the box is the protocol's: tracks,
median filter, crop.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.measures.film import batches
from joyflash_cli.measures.syncnet import FACE_PX, FPS
from joyflash_cli.media.inputs.face_points import OUTLINE
from joyflash_cli.media.inputs.faces import MIN_CONFIDENCE, Face, read_points

MIN_TRACK_FRAMES = 100
MAX_GAP_FRAMES = 25
"""Frames on which a face may be missed within a track."""

MIN_FACE_PX = 100
SAME_FACE_OVERLAP = 0.5
"""Boxes that overlap less, as intersection over union, are not of one track."""

CROP_SCALE = 0.40
FILL = 110
"""Grey of what lies outside the frame."""

MEDIAN_FRAMES = 13
_BATCH = 32
_SEARCH_FRAMES = 5


@dataclass(frozen=True, eq=False)
class Track:
    """One face on consecutive frames.

    Attributes:
        start: Its first frame.
        boxes: ``(F, 4)``: left, top, right, bottom in pixels.
    """

    start: int
    boxes: np.ndarray

    @property
    def stop(self) -> int:
        """The frame after its last."""
        return self.start + len(self.boxes)


def overlap_of(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes ``(4,)``: left, top, right, bottom."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float((high - low).clip(0).prod())
    areas = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod())
    return shared / max(areas - shared, 1e-9)


def face_boxes(frames: Iterable[np.ndarray]) -> np.ndarray:
    """The box of the face on every frame ``(F, 4)``, NaN where none is made out.

    Args:
        frames: ``(H, W, 3)`` uint8 RGB each; of several faces the largest is followed.
    """
    boxes: list[np.ndarray] = []
    face: Face | None = None
    for batch in batches(frames, _BATCH):
        while batch:
            found = read_points(batch, face)
            if not found:  # none on the first frame: look again a little later
                boxes += [np.full(4, np.nan)] * len(batch[:_SEARCH_FRAMES])
                batch = batch[_SEARCH_FRAMES:]
                continue
            boxes += [_box(one) for one in found]
            sure = [one for one in found if one.confidence > MIN_CONFIDENCE]
            face, batch = (sure[-1] if sure else None), []
    return np.array(boxes).reshape(-1, 4)


def found_boxes(
    frames: Iterable[np.ndarray], find: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The same by a detector that looks at every frame for itself.

    Args:
        frames: ``(H, W, 3)`` uint8 RGB each.
        find: From a frame to its boxes ``(n, 4)``. The one that overlaps the last face most counts,
            else the largest.
    """
    boxes: list[np.ndarray] = []
    last: np.ndarray | None = None
    for frame in frames:
        found = find(frame)
        if not len(found):
            boxes.append(np.full(4, np.nan))
            continue
        sizes = (found[:, 2:] - found[:, :2]).prod(1)
        if last is not None:
            overlaps = np.array([overlap_of(box, last) for box in found])
            sizes = overlaps if overlaps.max() > SAME_FACE_OVERLAP else sizes
        last = found[int(sizes.argmax())]
        boxes.append(last)
    return np.array(boxes).reshape(-1, 4)


def longest_track(boxes: np.ndarray) -> Track:
    """The longest track that is fit to be measured.

    Args:
        boxes: ``(F, 4)``, NaN where no face is.

    Raises:
        DataError: When the film has none of 100 frames with a face of 100 pixels.
    """
    tracks = list(_tracks(boxes))
    if not tracks:
        raise DataError("no face is made out")
    track = max(tracks, key=lambda one: len(one.boxes))
    if len(track.boxes) < MIN_TRACK_FRAMES:
        raise DataError(
            f"its face is seen for {len(track.boxes) / FPS:.1f} s on end; the protocol needs "
            f"{MIN_TRACK_FRAMES / FPS:.0f} s"
        )
    side = (track.boxes[:, 2:] - track.boxes[:, :2]).mean(0).max()
    if side < MIN_FACE_PX:
        raise DataError(f"its face is {side:.0f} px large; the protocol needs {MIN_FACE_PX} px")
    return track


def cut_faces(frames: Iterable[np.ndarray], track: Track) -> Iterator[np.ndarray]:
    """The faces of a track, ``(224, 224, 3)`` uint8 each.

    Args:
        frames: Of the whole film, from its first.
        track: Where to cut.
    """
    half = _median((track.boxes[:, 2:] - track.boxes[:, :2]).max(1) / 2)
    x = _median((track.boxes[:, 0] + track.boxes[:, 2]) / 2)
    y = _median((track.boxes[:, 1] + track.boxes[:, 3]) / 2)
    for index, frame in enumerate(frames):
        place = index - track.start
        if place >= len(track.boxes):
            return
        if place >= 0:
            yield cut_face(frame, x[place], y[place], half[place])


def cut_face(frame: np.ndarray, x: float, y: float, half: float) -> np.ndarray:
    """The crop ``(224, 224, 3)`` uint8 around a face.

    Args:
        frame: ``(H, W, 3)`` uint8.
        x: Column of the middle of the face's box.
        y: Row of it.
        half: Half of the box's longer side, pixels.
    """
    # Places are rounded down from a frame that is widened by whole pixels, as published.
    margin = int(half * (1 + 2 * CROP_SCALE))
    reach = half * (1 + CROP_SCALE)
    top, bottom = int(y + margin - half), int(y + margin + half * (1 + 2 * CROP_SCALE))
    left, right = int(x + margin - reach), int(x + margin + reach)
    shown = _region(frame, (left - margin, top - margin, right - margin, bottom - margin))
    return _resized(shown)


def _box(face: Face) -> np.ndarray:
    if face.confidence <= MIN_CONFIDENCE:
        return np.full(4, np.nan)
    outline = face.points[OUTLINE].astype(np.float64)
    return np.concatenate([outline.min(0), outline.max(0)])


def _tracks(boxes: np.ndarray) -> Iterator[Track]:
    """Tracks in order, with straight lines over the frames that they miss."""
    seen = np.flatnonzero(~np.isnan(boxes[:, 0]))
    breaks = [
        place
        for place, (last, now) in enumerate(zip(seen[:-1], seen[1:], strict=True), start=1)
        if now - last > MAX_GAP_FRAMES or overlap_of(boxes[last], boxes[now]) <= SAME_FACE_OVERLAP
    ]
    for part in np.split(seen, breaks):
        if len(part):
            every = np.arange(part[0], part[-1] + 1)
            sides = [np.interp(every, part, boxes[part, side]) for side in range(4)]
            yield Track(int(part[0]), np.stack(sides, 1))


def _median(values: np.ndarray) -> np.ndarray:
    """The running median of 13, zeros beyond both ends, as published."""
    padded = np.pad(values, MEDIAN_FRAMES // 2)
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, MEDIAN_FRAMES), axis=1)


def _region(frame: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """A part of a frame that may reach beyond it, where it is grey."""
    left, top, right, bottom = box
    height, width = frame.shape[:2]
    region = np.full((max(bottom - top, 1), max(right - left, 1), 3), FILL, np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if x0 < x1 and y0 < y1:
        region[y0 - top : y1 - top, x0 - left : x1 - left] = frame[y0:y1, x0:x1]
    return region


def _resized(picture: np.ndarray) -> np.ndarray:
    """Bilinear without antialiasing, as the training's resizing was."""
    import torch
    from torch.nn import functional

    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    small = functional.interpolate(pixels, (FACE_PX, FACE_PX), mode="bilinear", align_corners=False)
    return small[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
