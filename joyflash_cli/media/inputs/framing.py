"""A picture framed as a profile was trained: by its face, or scaled to an allowed size.

Small profiles are framed by the face: square, eyes and mouth where they are expected. Full-size
models were trained on whole pictures: theirs keep the picture's own shape, or take the allowed size
nearest to it; they are scaled until they cover the frame and cut in the middle, as their references
do, moved only when the face would be cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from joyflash_cli.config import check_ranges
from joyflash_cli.errors import ConfigError, ImageError
from joyflash_cli.media.inputs.faces import Face, find_faces
from joyflash_cli.media.inputs.picture import Picture
from joyflash_cli.media.inputs.similarity import (
    Similarity,
    cut_frame,
    scaled,
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


def _upright_face(
    picture: Picture, *, face_index: int | None, needs_face: bool
) -> tuple[Picture, Face | None, int]:
    """A picture turned upright by quarters, and its face that was asked for or the largest.

    Returns:
        The picture with what the user should know among its warnings; its face, in its pixels;
        the counter-clockwise quarter turns.
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
            what = "portrait from the front, cropped closely if the face is small in it"
            if found:
                what = "picture that shows eyes and mouth from the front"
            raise ImageError(why, hint=f"give a {what}, {WAY_ON}", code="E-IMAGE-FACE")
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
        points, (height, width) = face.points, pixels.shape[:2]
        for _ in range(quarters):
            points = np.stack([points[:, 1], width - points[:, 0]], -1)
            height, width = width, height
        face = replace(face, points=points)
        pixels = np.ascontiguousarray(np.rot90(pixels, quarters))
    return replace(picture, pixels=pixels, warnings=tuple(notes)), face, quarters


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


PATCH_PX = 16
"""A token of the full-size models is 16 pixels high and wide; frames hold whole tokens."""

FACE_MARGIN = 0.5
"""What belongs to a face beyond ``Face.size`` (brows to mouth), in the same measure."""


@dataclass(frozen=True)
class SizeRule:
    """Which sizes a profile renders; exactly one of the two fields is given.

    Attributes:
        sizes: Allowed ``(width, height)``; the one whose shape is nearest to the picture's is
            taken.
        nearest: By which shapes are compared: ``proportion`` takes wide and tall alike; ``ratio``
            is the difference of height over width (OmniAvatar), the first size on a tie.
        area_px: Pixels of a frame that keeps the picture's own shape, as nearly as whole tokens
            allow and never more than this.

    Raises:
        ConfigError: If both or none are given, or a size is no multiple of 16.
    """

    sizes: tuple[tuple[int, int], ...] = ()
    area_px: int | None = None
    nearest: Literal["proportion", "ratio"] = "proportion"

    def __post_init__(self) -> None:
        if bool(self.sizes) == (self.area_px is not None):
            raise ConfigError("framing needs either sizes or area_px", hint="give one of them")
        for width, height in self.sizes:
            if min(width, height) < PATCH_PX or width % PATCH_PX or height % PATCH_PX:
                raise ConfigError(
                    f"framing size {width} x {height} is not made of multiples of {PATCH_PX}",
                    hint=f"use {_multiple(width)} x {_multiple(height)}",
                )
        if self.area_px is not None and self.area_px < PATCH_PX * PATCH_PX:
            raise ConfigError(f"framing area_px is {self.area_px}; at least 256 is needed")

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the video for a picture of this size, pixels."""
        if self.area_px is None and self.nearest == "ratio":
            ratio = height / width
            return min(self.sizes, key=lambda size: abs(size[1] / size[0] - ratio))
        if self.area_px is None:
            aspect = math.log(width / height)
            return min(self.sizes, key=lambda size: abs(math.log(size[0] / size[1]) - aspect))
        scale = math.sqrt(self.area_px / (width * height))
        # The tolerance keeps 480 from becoming 464 by a rounding error.
        return _multiple(width * scale + 1e-6), _multiple(height * scale + 1e-6)


Framing = FramingRule | SizeRule
"""How a checkpoint's pictures are cut: by the face, or by allowed sizes."""


def largest_size(rule: Framing) -> tuple[int, int]:
    """Width and height of the largest video that a rule allows, pixels."""
    if isinstance(rule, FramingRule):
        return rule.size_px, rule.size_px
    if rule.sizes:
        return max(rule.sizes, key=lambda size: size[0] * size[1])
    return rule.frame_size(1, 1)


def frame_picture(
    picture: Picture,
    rule: Framing,
    *,
    face_index: int | None = None,
    needs_face: bool = False,
) -> Framed:
    """A picture framed as the profile was trained, never stretched.

    By a ``FramingRule``: the square that shows the face where it belongs. Tilted faces are turned
    upright; a square picture whose face already lies in its place is only resized; where the square
    leaves the picture its edge is continued, blurred.

    By a ``SizeRule``: the picture scaled until it covers the frame, the rest cut away. The cut is
    in the middle; it moves only as far as the face needs to be whole.

    Args:
        picture: As ``read_picture`` gives it; its warnings are carried on.
        rule: Of the checkpoint.
        face_index: Which face that can speak, 0 the largest; by default the largest, with a warning
            when there are several.
        needs_face: Whether a picture without a face that can speak is refused; else its middle is
            used.

    Raises:
        ImageError: ``E-IMAGE-FACE`` if there is no face, or none of that index.
    """
    picture, face, quarters = _upright_face(picture, face_index=face_index, needs_face=needs_face)
    notes = list(picture.warnings)
    if isinstance(rule, FramingRule):
        place = _face_place(picture.pixels, face, rule)
        pixels = cut_frame(picture.pixels, place, rule.size_px)
    else:
        place, pixels = _covering(picture.pixels, face, rule, notes)
    return Framed(pixels, place, face, picture.pixels, quarters, tuple(notes))


def _face_place(pixels: np.ndarray, face: Face | None, rule: FramingRule) -> Similarity:
    """From the frame to the picture ``(H, W, 3)``: by its face, or its middle without one."""
    height, width = pixels.shape[:2]
    if face is None:
        side = float(min(height, width))
        return Similarity(side / rule.size_px, 0.0, (width - side) / 2, (height - side) / 2)
    if width == height and is_framed(face, float(width), rule, tolerance=IN_PLACE):
        return Similarity(width / rule.size_px, 0.0, 0.0, 0.0)
    # Other numbers of threads add in another order: what is far below a pixel is rounded away, so
    # that the same picture gives the same frame.
    found = np.round(np.stack([face.eyes, face.mouth]).astype(float) * 16) / 16
    return similarity_between(rule.targets * rule.size_px, found)


def _covering(
    pixels: np.ndarray, face: Face | None, rule: SizeRule, notes: list[str]
) -> tuple[Similarity, np.ndarray]:
    height, width = pixels.shape[:2]
    frame_width, frame_height = rule.frame_size(width, height)
    scale = max(frame_width / width, frame_height / height)
    if scale > _SOFT_UPSCALE:
        notes.append(
            f"the picture is small: {width} x {height} pixels are enlarged to cover "
            f"{frame_width} x {frame_height}; the video will be soft"
        )
    size = (frame_width / scale, frame_height / scale)
    left = _cut_start(width, size[0], None if face is None else _extent(face, 0))
    top = _cut_start(height, size[1], None if face is None else _extent(face, 1))
    box = (left, top, left + size[0], top + size[1])
    return Similarity(1 / scale, 0.0, left, top), scaled(pixels, box, (frame_width, frame_height))


def _extent(face: Face, axis: int) -> tuple[float, float]:
    half, middle = (0.5 + FACE_MARGIN) * face.size, float(face.centre[axis])
    return middle - half, middle + half


def _cut_start(length: int, kept: float, face: tuple[float, float] | None) -> float:
    """Where the kept part begins: in the middle, or as near to it as the face allows."""
    middle = (length - kept) / 2
    if face is None:
        return middle
    low, high = face[1] - kept, face[0]
    # A face larger than the frame is shown by its own middle.
    wanted = (low + high) / 2 if low > high else min(max(middle, low), high)
    return min(max(wanted, 0.0), length - kept)


def _multiple(length: float) -> int:
    return max(PATCH_PX, int(length) // PATCH_PX * PATCH_PX)
