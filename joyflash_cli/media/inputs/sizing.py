"""Frames of full-size profiles: the picture's own shape, or the allowed size nearest to it.

Small profiles are framed by the face (``framing``). Full-size models were trained on whole
pictures: theirs are scaled until they cover the frame and cut in the middle, as their references
do, moved only when the face would be cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from joyflash_cli.errors import ConfigError
from joyflash_cli.media.inputs.faces import Face
from joyflash_cli.media.inputs.framing import Framed, FramingRule, choose_upright_face, frame_face
from joyflash_cli.media.inputs.picture import Picture
from joyflash_cli.media.inputs.similarity import Similarity

PATCH_PX = 16
"""A token of the full-size models is 16 pixels high and wide; frames hold whole tokens."""

FACE_MARGIN = 0.5
"""What belongs to a face beyond ``Face.size`` (brows to mouth), in the same measure."""

_SOFT_UPSCALE = 1.5


@dataclass(frozen=True)
class SizeRule:
    """Which sizes a profile renders; exactly one of the two fields is given.

    Attributes:
        sizes: Allowed ``(width, height)``; the one whose shape is nearest to the picture's is
            taken.
        area_px: Pixels of a frame that keeps the picture's own shape, as nearly as whole tokens
            allow and never more than this.

    Raises:
        ConfigError: If both or none are given, or a size is no multiple of 16.
    """

    sizes: tuple[tuple[int, int], ...] = ()
    area_px: int | None = None

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
    """A picture framed as the profile was trained, by face or by size.

    Args:
        picture: As ``read_picture`` gives it.
        rule: Of the checkpoint.
        face_index: Which face, 0 the largest; by default the largest.
        needs_face: Whether a picture without a face that can speak is refused.

    Raises:
        ImageError: ``E-IMAGE-FACE`` if there is no face, or none of that index.
    """
    if isinstance(rule, FramingRule):
        return frame_face(picture, rule, face_index=face_index, needs_face=needs_face)
    return cover(picture, rule, face_index=face_index, needs_face=needs_face)


def cover(
    picture: Picture, rule: SizeRule, *, face_index: int | None = None, needs_face: bool = False
) -> Framed:
    """The picture scaled until it covers the frame, the rest cut away, never stretched.

    The cut is in the middle; it moves only as far as the face needs to be whole.

    Raises:
        ImageError: ``E-IMAGE-FACE`` if there is no face, or none of that index.
    """
    picture, face, quarters = choose_upright_face(
        picture, face_index=face_index, needs_face=needs_face
    )
    notes = list(picture.warnings)
    height, width = picture.pixels.shape[:2]
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
    pixels = scaled(picture.pixels, (left, top, left + size[0], top + size[1]),
                     (frame_width, frame_height))  # fmt: skip
    place = Similarity(1 / scale, 0.0, left, top)
    return Framed(pixels, place, face, picture.pixels, quarters, tuple(notes))


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


def scaled(
    pixels: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    """The box ``(left, top, right, bottom)`` at this ``(width, height)``, bilinear, antialiased."""
    from PIL import Image

    right, bottom = float(pixels.shape[1]), float(pixels.shape[0])
    inside = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], right), min(box[3], bottom))
    picture = Image.fromarray(pixels)
    return np.array(picture.resize(size, Image.Resampling.BILINEAR, box=inside))


def _multiple(length: float) -> int:
    return max(PATCH_PX, int(length) // PATCH_PX * PATCH_PX)
