"""What the video shows: the whole picture with its face's square in it, or the square alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from joyflash_cli.errors import UsageError
from joyflash_cli.media.inputs.framing import Framed, FramingRule, SizeRule, cut_notes
from joyflash_cli.media.inputs.similarity import Similarity, cut_frame
from joyflash_cli.types import Scene, Square

PICTURE, FACE = "picture", "face"
MAX_SIZE_PX = 1280
"""Longer side of a video that shows the picture, unless another is asked for."""

MIN_MAX_SIZE_PX, MAX_MAX_SIZE_PX = 64, 4096
FACE_SIZES_PX = (256, 512)
MIN_SIDE_PX = 16
"""Shorter sides are filled up by cutting the longer one: players refuse smaller videos."""


@dataclass(frozen=True)
class FrameOptions:
    """What the video shows; ``None`` leaves a choice to the program.

    Attributes:
        frame: ``"picture"``, all of it, or ``"face"``, the square of the face.
        size_px: Side of the face's square.
        max_size_px: Longest side of a video that shows the picture.
    """

    frame: str | None = None
    size_px: int | None = None
    max_size_px: int | None = None

    def resolved(self, rule: FramingRule | SizeRule, profile: str) -> FrameOptions:
        """The same with every choice made; nothing is left to choose for full-size profiles.

        Args:
            rule: How the profile frames a picture.
            profile: Its name.

        Raises:
            UsageError: ``E-FRAME`` for an unknown value, options that exclude each other, or any
                option for a profile that has sizes of its own.
        """
        if not isinstance(rule, FramingRule):
            if self != DEFAULT_FRAME:
                raise _refused(
                    f"profile {profile} has a frame of its own",
                    "leave --frame, --size and --max-size out",
                )
            return self
        frame = PICTURE if self.frame is None else self.frame
        if frame not in (PICTURE, FACE):
            raise _refused(f"the frame {frame!r:.80} is not known", f"use {PICTURE} or {FACE}")
        if frame == FACE:
            if self.max_size_px is not None:
                raise _refused("--max-size is for --frame picture", "use --size 256 or 512")
            side = FACE_SIZES_PX[0] if self.size_px is None else self.size_px
            if side not in FACE_SIZES_PX:
                known = " or ".join(str(known) for known in FACE_SIZES_PX)
                raise _refused(f"a face of {side} px is not possible", f"use --size {known}")
            return FrameOptions(FACE, side, None)
        if self.size_px is not None:
            raise _refused("--size is for --frame face", "use --max-size N, or add --frame face")
        longest = MAX_SIZE_PX if self.max_size_px is None else self.max_size_px
        if not MIN_MAX_SIZE_PX <= longest <= MAX_MAX_SIZE_PX:
            raise _refused(
                f"a longer side of {longest} px is not possible",
                f"{MIN_MAX_SIZE_PX} to {MAX_MAX_SIZE_PX} are",
            )
        return FrameOptions(PICTURE, None, longest)

    def to_dict(self) -> dict[str, Any]:
        """What was chosen, for a record."""
        chosen = {"frame": self.frame, "size": self.size_px, "max_size": self.max_size_px}
        return {name: value for name, value in chosen.items() if value is not None}

    def scene(self, framed: Framed) -> Scene | None:
        """What resolved options show; ``None`` where the profile shows its own frame."""
        if self.max_size_px is not None:
            return picture_scene(framed, max_side_px=self.max_size_px // 2 * 2)
        if self.size_px is not None:
            square = Square(0.0, 0.0, float(self.size_px))
            cut = cut_out(framed.picture, framed.square, self.size_px)
            return Scene(cut, square, goes_on=False)
        return None

    def notes(self, framed: Framed) -> tuple[str, ...]:
        """What the user should know of a picture that is shown so."""
        return () if self.size_px is None else cut_notes(framed, self.size_px)


DEFAULT_FRAME = FrameOptions()


def picture_scene(framed: Framed, *, max_side_px: int) -> Scene:
    """The whole picture in its own proportions, never enlarged, both sides even.

    A picture that is small enough keeps its own pixels; an odd side loses its last row or column.
    A larger one is reduced until its longer side has ``max_side_px``; what the even size leaves
    over, less than two pixels, is cut evenly from both ends.

    Args:
        framed: The picture with the square of its face.
        max_side_px: Of the longer side; even.
    """
    from PIL import Image

    pixels = framed.picture
    height, width = pixels.shape[:2]
    scale = min(1.0, max_side_px / max(height, width))
    if scale == 1.0 and min(height, width) >= MIN_SIDE_PX:
        even = np.ascontiguousarray(pixels[: height // 2 * 2, : width // 2 * 2])
        return Scene(even, framed.square, goes_on=True)
    size = (_even(width * scale), _even(height * scale))
    scale = max(size[0] / width, size[1] / height)  # so that the picture covers the size
    left, top = (width - size[0] / scale) / 2, (height - size[1] / scale) / 2
    box = (max(left, 0.0), max(top, 0.0), min(width - left, width), min(height - top, height))
    reduced = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, box=box)
    square = framed.square.seen(left=left, top=top, scale=scale)
    return Scene(np.array(reduced), square, goes_on=True)


def _even(length: float) -> int:
    return max(MIN_SIDE_PX, round(length / 2) * 2)


def fit_scene(scene: Scene, size_px: tuple[int, int]) -> Scene:
    """The scene in a video of another size, which it covers; the face is not what is cut.

    Args:
        scene: Any.
        size_px: ``(width, height)`` of the video.
    """
    from PIL import Image

    scale = max(new / old for new, old in zip(size_px, scene.size_px, strict=True))
    lefts = []
    middle = scene.square.point(0.5, 0.5)
    for new, old, at in zip(size_px, scene.size_px, middle, strict=True):
        lefts.append(min(max(at - new / scale / 2, 0.0), old - new / scale))
    left, top = lefts
    box = (left, top, left + size_px[0] / scale, top + size_px[1] / scale)
    fitted = Image.fromarray(scene.pixels).resize(size_px, Image.Resampling.LANCZOS, box=box)
    return Scene(
        np.array(fitted), scene.square.seen(left=left, top=top, scale=scale), scene.goes_on
    )


def cut_out(pixels: np.ndarray, square: Square, side_px: int) -> np.ndarray:
    """A square of a picture, ``(side_px, side_px, 3)`` uint8."""
    degrees = math.degrees(square.angle)
    place = Similarity(square.side / side_px, degrees, square.left, square.top)
    return cut_frame(pixels, place, side_px)


def _refused(what: str, hint: str) -> UsageError:
    return UsageError(what, hint=hint, code="E-FRAME")
