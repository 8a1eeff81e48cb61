"""A picture cut the way a profile was trained: square, the face where the model expects it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from joyflash_cli.config import check_ranges
from joyflash_cli.errors import ConfigError, ImageError
from joyflash_cli.media.faces import FaceBox, find_faces
from joyflash_cli.media.picture import Picture
from joyflash_cli.types import Square

SIZE_TOLERANCE = 1.25
"""A face up to this factor larger or smaller than the rule still counts as framed."""

SHIFT_TOLERANCE = 0.08
"""A face this far from the rule's place (fraction of the side) still counts as framed."""

_VISIBLE_FILL = 0.02
_SOFT_UPSCALE = 1.5


@dataclass(frozen=True)
class FramingRule:
    """Where the detector's box lay in the training frames; recorded with the profile.

    Attributes:
        size_px: Side of the square frame, pixels.
        face_centre_x: Middle of the box, fraction of the side from the left.
        face_centre_y: Middle of the box, fraction of the side from the top.
        face_size: Side of the box, fraction of the frame's side.
    """

    size_px: int
    face_centre_x: float
    face_centre_y: float
    face_size: float

    def __post_init__(self) -> None:
        if self.size_px < 1:
            raise ConfigError(f"framing size_px is {self.size_px}; it must be positive")
        check_ranges(self, {"size_px": (1, 8192)})
        for name in ("face_centre_x", "face_centre_y", "face_size"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise ConfigError(f"framing {name} is {value}; it must lie between 0 and 1")


@dataclass(frozen=True)
class Framed:
    """A framed picture.

    Attributes:
        pixels: ``(S, S, 3)`` uint8 RGB.
        box: The square taken from the picture, ``(left, top, side)`` in its pixels.
        face: The face it was framed by; ``None`` for a centre crop.
        warnings: Sentences the user should see.
    """

    pixels: np.ndarray
    box: tuple[float, float, float]
    face: FaceBox | None
    warnings: tuple[str, ...] = ()

    @property
    def square(self) -> Square:
        """The same square, as scenes describe it."""
        return Square(*self.box)


def frame_face(picture: Picture, rule: FramingRule, *, face_index: int | None = None) -> Framed:
    """The square of a picture that shows the face as the profile was trained, never stretched.

    A square picture whose face already lies within tolerance is only resized, so framing twice
    changes nothing. Where the square leaves the picture its edge is continued, blurred.

    Args:
        picture: As :func:`read_picture` gives it; its warnings are carried on.
        rule: Where the face belongs.
        face_index: Which face, 0 the largest; by default the largest, with a warning when there
            are several.

    Raises:
        ImageError: ``E-IMAGE-FACE`` if there is no face of that index.
    """
    notes = list(picture.warnings)
    faces = find_faces(picture.pixels)
    face = choose_face(faces, face_index, notes)
    height, width = picture.pixels.shape[:2]
    if face is None:
        side = float(min(height, width))
        box = ((width - side) / 2, (height - side) / 2, side)
    elif width == height and is_framed(face, float(width), rule):
        box = (0.0, 0.0, float(width))
    else:
        box = _crop_box(face, (width, height), rule, notes)
    if rule.size_px > _SOFT_UPSCALE * box[2]:
        notes.append(
            f"the face is small: {box[2]:.0f} pixels are enlarged to {rule.size_px}; "
            "the video will be soft"
        )
    return Framed(_cut(picture.pixels, box, rule.size_px), box, face, tuple(notes))


def measure_framing(frames: Sequence[np.ndarray]) -> FramingRule:
    """The median place of the face over many frames of one size: the rule for a profile.

    Args:
        frames: ``(S, S, 3)`` uint8 each; those without a detected face are left out.

    Raises:
        ImageError: If the frames differ in size, are not square, or none shows a face.
    """
    shapes = {frame.shape for frame in frames}
    if len(shapes) != 1 or next(iter(shapes))[0] != next(iter(shapes))[1]:
        raise ImageError(f"framing needs square frames of one size; got {sorted(shapes)}")
    size_px = next(iter(shapes))[0]
    largest = [faces[0] for faces in map(find_faces, frames) if faces]
    if not largest:
        raise ImageError(
            f"no face was found in {len(frames)} frames",
            hint="give frames that show faces from the front",
            code="E-IMAGE-FACE",
        )
    return FramingRule(
        size_px=size_px,
        face_centre_x=float(np.median([face.centre[0] for face in largest])) / size_px,
        face_centre_y=float(np.median([face.centre[1] for face in largest])) / size_px,
        face_size=float(np.median([face.size for face in largest])) / size_px,
    )


def choose_face(faces: list[FaceBox], face_index: int | None, notes: list[str]) -> FaceBox | None:
    """The face that was asked for, or the largest; what the user should know goes to ``notes``."""
    if face_index is not None:
        if not 0 <= face_index < len(faces):
            raise ImageError(
                f"face {face_index} was asked for; {len(faces)} found, counted from 0",
                hint="leave the face out to use the largest",
                code="E-IMAGE-FACE",
            )
        return faces[face_index]
    if not faces:
        notes.append("no face was found; the middle of the picture is used")
        return None
    if len(faces) > 1:
        notes.append(f"{len(faces)} faces were found; the largest is used")
    return faces[0]


def is_framed(face: FaceBox, side: float, rule: FramingRule) -> bool:
    """Whether a face already lies in its place in a square of ``side`` pixels, within tolerance."""
    ratio = face.size / side / rule.face_size
    shift_x = abs(face.centre[0] / side - rule.face_centre_x)
    shift_y = abs(face.centre[1] / side - rule.face_centre_y)
    fits = 1 / SIZE_TOLERANCE <= ratio <= SIZE_TOLERANCE
    return fits and max(shift_x, shift_y) <= SHIFT_TOLERANCE


def _crop_box(
    face: FaceBox, size: tuple[int, int], rule: FramingRule, notes: list[str]
) -> tuple[float, float, float]:
    """The square that puts the face in its place; moved within tolerance to stay inside."""
    side = face.size / rule.face_size
    left = face.centre[0] - rule.face_centre_x * side
    top = face.centre[1] - rule.face_centre_y * side
    left = _moved_inside(left, side, size[0])
    top = _moved_inside(top, side, size[1])
    beyond = max(-left, -top, left + side - size[0], top + side - size[1]) / side
    if beyond > _VISIBLE_FILL:
        notes.append(
            f"the face is near the edge: {beyond:.0%} of the frame lies outside the picture and "
            "was filled with its blurred edge"
        )
    return left, top, side


def _moved_inside(start: float, side: float, length: int) -> float:
    limit = SHIFT_TOLERANCE * side
    # Where it cannot fit, what is missing is shared as evenly as the tolerance allows.
    spare = length - side
    wanted = min(max(start, 0.0), spare) if spare > 0 else spare / 2
    return start + float(np.clip(wanted - start, -limit, limit))


def cut_square(pixels: np.ndarray, box: tuple[float, float, float], size_px: int) -> np.ndarray:
    """Another frame cut as ``Framed.box`` says, ``(size_px, size_px, 3)`` uint8."""
    return _cut(pixels, box, size_px)


def _cut(pixels: np.ndarray, box: tuple[float, float, float], size_px: int) -> np.ndarray:
    """The square ``(left, top, side)`` resized with antialiasing to ``(size_px, size_px, 3)``."""
    from PIL import Image

    height, width = pixels.shape[:2]
    left, top, side = box
    if box == (0.0, 0.0, float(width)) and width == height == size_px:
        return pixels.copy()
    margins = (
        max(0, int(np.ceil(-top))),
        max(0, int(np.ceil(top + side - height))),
        max(0, int(np.ceil(-left))),
        max(0, int(np.ceil(left + side - width))),
    )
    if any(margins):
        # Far outside nothing of the picture's rest is needed: cut first, extend then.
        pixels, left, top = _around(pixels, box)
        extended = extend_edges(pixels, margins)
        left, top = left + margins[2], top + margins[0]
    else:
        extended = pixels
    frame = Image.fromarray(extended).resize(
        (size_px, size_px),
        Image.Resampling.LANCZOS,
        box=(
            max(left, 0.0),
            max(top, 0.0),
            min(left + side, float(extended.shape[1])),
            min(top + side, float(extended.shape[0])),
        ),
    )
    return np.array(frame)


def _around(pixels: np.ndarray, box: tuple[float, float, float]) -> tuple[np.ndarray, float, float]:
    """The part of the picture under the square, and the square's corner in it."""
    left, top, side = box
    first_column, first_row = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
    last_column, last_row = int(np.ceil(left + side)), int(np.ceil(top + side))
    part = pixels[first_row:last_row, first_column:last_column]
    return part, left - first_column, top - first_row


def extend_edges(pixels: np.ndarray, margins: tuple[int, int, int, int]) -> np.ndarray:
    """The picture with its edge continued outward, blurred: no black bars, no streaks.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        margins: Rows above, rows below, columns left, columns right.
    """
    from PIL import Image, ImageFilter

    above, below, before, after = margins
    padded = np.pad(pixels, ((above, below), (before, after), (0, 0)), mode="edge")
    radius = max(1.0, max(margins) / 4)
    blurred = np.asarray(Image.fromarray(padded).filter(ImageFilter.GaussianBlur(radius)))
    rows = _distance(len(padded), above, len(pixels))
    columns = _distance(padded.shape[1], before, pixels.shape[1])
    distance = np.maximum(rows[:, None], columns[None, :])
    # The blur fades in over its own radius, so that the picture's border does not show as a line.
    weight = np.clip(distance / radius, 0.0, 1.0)[:, :, None]
    return np.round(padded * (1 - weight) + blurred * weight).astype(np.uint8)


def _distance(length: int, first: int, inside: int) -> np.ndarray:
    """How far each row (or column) lies outside ``first <= i < first + inside``."""
    index = np.arange(length)
    return np.maximum(np.maximum(first - index, index - (first + inside - 1)), 0).astype(np.float32)
