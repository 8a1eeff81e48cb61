"""A picture cut the way a profile was trained: square, eyes and mouth where they are expected."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from joyflash_cli.config import check_ranges
from joyflash_cli.errors import ConfigError, ImageError
from joyflash_cli.media.inputs.faces import Face, find_faces
from joyflash_cli.media.inputs.picture import Picture
from joyflash_cli.media.inputs.similarity import (
    Similarity,
    cut_smoothly,
    extend,
    similarity_between,
)
from joyflash_cli.types import Square

IN_PLACE = 0.01
"""A square picture whose eyes and mouth are this near to their places (fraction of the side) is
taken whole: framing twice changes nothing."""

TOLD_ROLL_DEGREES = 8.0
"""Smaller tilts are set straight without a word: nobody holds the head or a camera that still."""

WAY_ON = "or --allow-no-face to show the picture's middle"

_VISIBLE_FILL = 0.02
_SOFT_UPSCALE = 1.5


@dataclass(frozen=True)
class FramingRule:
    """Where eyes and mouth lay in the training frames; recorded with the profile.

    Attributes:
        size_px: Side of the square frame, pixels.
        eyes_x: Middle between the eyes, fraction of the side from the left; the mouth's as well.
        eyes_y: Middle between the eyes, fraction of the side from the top.
        eyes_to_mouth: Distance from there to the middle of the mouth, fraction of the side.
    """

    size_px: int
    eyes_x: float
    eyes_y: float
    eyes_to_mouth: float

    def __post_init__(self) -> None:
        if self.size_px < 1:
            raise ConfigError(f"framing size_px is {self.size_px}; it must be positive")
        check_ranges(self, {"size_px": (1, 8192)})
        for name in ("eyes_x", "eyes_y", "eyes_to_mouth"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise ConfigError(f"framing {name} is {value}; it must lie between 0 and 1")

    @property
    def targets(self) -> np.ndarray:
        """Places ``(2, 2)`` of eyes and mouth, as fractions of the side."""
        return np.array(
            [[self.eyes_x, self.eyes_y], [self.eyes_x, self.eyes_y + self.eyes_to_mouth]]
        )


@dataclass(frozen=True)
class Framed:
    """A framed picture.

    Attributes:
        pixels: ``(S, S, 3)`` uint8 RGB; ``(H, W, 3)`` where a profile has a frame of its own shape.
        place: From the frame to ``picture``.
        face: The face it was framed by, in pixels of ``picture``; ``None`` for a centre crop.
        picture: ``(H, W, 3)`` uint8 RGB, the whole picture it was cut from, turned upright by
            quarters where it lay on its side.
        quarters: Counter-clockwise quarter turns that did so.
        warnings: Sentences the user should see.
    """

    pixels: np.ndarray
    place: Similarity
    face: Face | None
    picture: np.ndarray
    quarters: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def box(self) -> tuple[float, float, float]:
        """Upper left corner of the frame in ``picture`` and the longer side there, pixels."""
        return self.place.x, self.place.y, self.place.scale * max(self.pixels.shape[:2])

    @property
    def square(self) -> Square:
        """The same with its turn, as scenes describe it."""
        return Square(*self.box, math.radians(self.place.degrees))


def frame_face(
    picture: Picture, rule: FramingRule, *, face_index: int | None = None, needs_face: bool = False
) -> Framed:
    """The square of a picture that shows the face as the profile was trained, never stretched.

    Tilted faces are turned upright. A square picture whose face already lies in its place is only
    resized. Where the square leaves the picture its edge is continued, blurred.

    Args:
        picture: As :func:`read_picture` gives it; its warnings are carried on.
        rule: Where the face belongs.
        face_index: Which face, 0 the largest; by default the largest, with a warning when there
            are several.
        needs_face: Whether a picture without a face that can speak is refused; else its middle is
            used.

    Raises:
        ImageError: ``E-IMAGE-FACE`` if there is no face, or none of that index.
    """
    picture, face, quarters = choose_upright_face(
        picture, face_index=face_index, needs_face=needs_face
    )
    height, width = picture.pixels.shape[:2]
    if face is None:
        side = float(min(height, width))
        place = Similarity(side / rule.size_px, 0.0, (width - side) / 2, (height - side) / 2)
    elif width == height and is_framed(face, float(width), rule, tolerance=IN_PLACE):
        place = Similarity(width / rule.size_px, 0.0, 0.0, 0.0)
    else:
        # Other numbers of threads add in another order: what is far below a pixel is rounded away,
        # so that the same picture gives the same frame.
        found = np.round(np.stack([face.eyes, face.mouth]).astype(float) * 16) / 16
        place = similarity_between(rule.targets * rule.size_px, found)
    pixels = cut_frame(picture.pixels, place, rule.size_px)
    return Framed(pixels, place, face, picture.pixels, quarters, picture.warnings)


def choose_upright_face(
    picture: Picture, *, face_index: int | None = None, needs_face: bool = False
) -> tuple[Picture, Face | None, int]:
    """A picture turned upright by quarters, and its face that was asked for or the largest.

    Args:
        picture: As :func:`read_picture` gives it.
        face_index: Which of the faces that can speak, 0 the largest.
        needs_face: Whether ``None`` is refused.

    Returns:
        The picture with what the user should know among its warnings; its face, in its pixels;
        the counter-clockwise quarter turns.

    Raises:
        ImageError: ``E-IMAGE-FACE``, see :func:`frame_face`.
    """
    found = find_faces(picture.pixels)
    faces = [face for face in found if not face.flaw]
    notes = list(picture.warnings)
    if face_index is not None and not 0 <= face_index < len(faces):
        raise ImageError(
            f"counted from 0, face {face_index} was asked for and {len(faces)} found",
            hint="leave the face out to use the largest",
            code="E-IMAGE-FACE",
        )
    if not faces:
        why = found[0].flaw if found else "no face was found"
        if needs_face:
            raise ImageError(why, hint=_what_to_give(bool(found)), code="E-IMAGE-FACE")
        notes.append(f"{why}; the middle of the picture is used")
        return replace(picture, warnings=tuple(notes)), None, 0
    if len(faces) > 1 and face_index is None:
        notes.append(f"{len(faces)} faces were found; the largest is used")
    face = faces[face_index or 0]
    quarters = round(face.roll_degrees / 90) % 4
    pixels = picture.pixels
    if quarters:
        how = "stood on its head" if quarters == 2 else "lay on its side"
        notes.append(f"the picture {how}; it was turned upright")
        face = _turned(face, pixels.shape[:2], quarters)
        pixels = np.ascontiguousarray(np.rot90(pixels, quarters))
    return replace(picture, pixels=pixels, warnings=tuple(notes)), face, quarters


def _what_to_give(was_found: bool) -> str:
    if was_found:
        return f"give a picture that shows eyes and mouth from the front, {WAY_ON}"
    return f"give a portrait from the front, cropped closely if the face is small in it, {WAY_ON}"


def _turned(face: Face, size: tuple[int, int], quarters: int) -> Face:
    """A face of a picture ``(height, width)`` in the picture that ``np.rot90`` makes of it."""
    points, (height, width) = face.points, size
    for _ in range(quarters):
        points = np.stack([points[:, 1], width - points[:, 0]], -1)
        height, width = width, height
    return replace(face, points=points)


def is_framed(face: Face, side: float, rule: FramingRule, *, tolerance: float) -> bool:
    """Whether eyes and mouth lie in their places in a square of ``side`` pixels.

    Args:
        face: In pixels of the square.
        side: Of the square.
        rule: Where they belong.
        tolerance: Farthest from there, as a fraction of the side.
    """
    found = np.stack([face.eyes, face.mouth]) / side
    return bool(np.linalg.norm(found - rule.targets, axis=1).max() <= tolerance)


def cut_notes(framed: Framed, side_px: int) -> tuple[str, ...]:
    """What the user should know of a video that shows the square alone, ``side_px`` wide."""
    notes = []
    tilt, side = abs(framed.place.degrees), framed.square.side
    if tilt > TOLD_ROLL_DEGREES:
        notes.append(f"the face is tilted by {tilt:.0f} degrees; it is turned upright")
    height, width = framed.picture.shape[:2]
    left, top, right, bottom = framed.square.bounds()
    beyond = max(-left, -top, right - width, bottom - height) / side
    if framed.face is not None and beyond > _VISIBLE_FILL:
        notes.append(
            f"the face is near the edge: {beyond:.0%} of the frame lies outside the picture and "
            "was filled with its blurred edge"
        )
    if side_px > _SOFT_UPSCALE * side:
        notes.append(
            f"the face is small: {side:.0f} pixels are enlarged to {side_px}; "
            "the video will be soft"
        )
    return tuple(notes)


_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def cut_frame(pixels: np.ndarray, place: Similarity, size_px: int) -> np.ndarray:
    """The square of a picture as ``Framed.place`` says, ``(size_px, size_px, 3)`` uint8.

    Beyond the picture its blurred edge continues.
    """
    height, width = pixels.shape[:2]
    if place == Similarity(1.0, 0.0, 0.0, 0.0) and width == height == size_px:
        return pixels.copy()
    corners = place.to_picture(size_px * _CORNERS)
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    # Far outside nothing of the picture's rest is needed: cut first, extend then.
    first = np.clip(low, 0, [width - 1, height - 1])
    last = np.clip(high, first + 1, [width, height])
    part = pixels[first[1] : last[1], first[0] : last[0]]
    left, above = np.maximum(first - low, 0).tolist()
    right, below = np.maximum(high - last, 0).tolist()
    if max(left, above, right, below):
        part = extend(part, (above, below, left, right))
    x, y = place.x - int(first[0]) + left, place.y - int(first[1]) + above
    return cut_smoothly(part, replace(place, x=x, y=y), size_px)
