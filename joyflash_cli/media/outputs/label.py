"""A small text in a corner of every frame, which screenshots and re-encodings keep.

Where it stands and whether it is light or dark is decided once, from the picture, so that it rests
while the face moves. A plate behind it keeps it readable whatever comes to lie there.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from joyflash_cli.errors import UsageError

MIN_TEXT_PX, TEXT_SHARE = 11, 0.032
"""Height of the letters: at least, and as a share of the frame's shorter side."""

MAX_CHARS = 120
FONTS = (
    "", "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
)  # fmt: skip
"""Pillow's own, then what systems have."""

PLATE_OPACITY = 0.62
"""So the contrast is above 4.5:1, which WCAG asks for, over white as over black."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, pixels."""


class Label:
    """A label as it is drawn into frames of one size.

    Args:
        text: What it says.
        picture: What the frames look like, ``(H, W, 3)`` uint8.
        face: Where no label should be, if anywhere else is possible.

    Attributes:
        box: Where it stands: left, top, right, bottom.

    Raises:
        UsageError: ``E-LABEL`` for a text that cannot be drawn or is too long for the picture.
    """

    def __init__(self, text: str, picture: np.ndarray, face: Box | None = None) -> None:
        height, width = picture.shape[:2]
        text = " ".join(text.split())
        if not text:
            raise _refused("the label is empty", "leave --label out, or give it a text")
        if len(text) > MAX_CHARS:
            too_long = f"a label of {len(text)} characters is too long"
            raise _refused(too_long, f"at most {MAX_CHARS} are")
        mask = _drawn(text, width, height)
        margin = max(2, mask.shape[0] // 3)
        self.box = _quietest_corner(picture, mask.shape, margin, face)
        left, top, right, bottom = self.box
        is_dark = picture[top:bottom, left:right].mean() < 128
        plate, letters = (0.0, 255.0) if is_dark else (255.0, 0.0)
        ink = mask[..., None].astype(np.float32) / 255
        self._kept = (1 - PLATE_OPACITY) * (1 - ink)
        self._added = PLATE_OPACITY * plate * (1 - ink) + letters * ink + 0.5

    def draw(self, frames: np.ndarray) -> None:
        """Puts the label into frames ``(F, H, W, 3)`` uint8."""
        left, top, right, bottom = self.box
        for frame in frames[:, top:bottom, left:right]:
            frame[:] = frame * self._kept + self._added


def _drawn(text: str, width: int, height: int) -> np.ndarray:
    """How opaque the letters are, ``(h, w)`` uint8, with the plate's edge around them."""
    from PIL import Image, ImageDraw

    name = _font_for(text)
    wanted = max(MIN_TEXT_PX, round(TEXT_SHARE * min(width, height)))
    for size in range(wanted, MIN_TEXT_PX - 1, -1):
        font = _font(name, size)
        edge = max(3, size // 3)
        ascent, descent = font.getmetrics()
        shape = (round(font.getlength(text)) + 2 * edge, ascent + descent + edge)
        if shape[0] + 4 <= width and shape[1] + 4 <= height:
            plate = Image.new("L", shape)
            ImageDraw.Draw(plate).text((edge, edge // 2), text, fill=255, font=font)
            return np.asarray(plate)
    raise _refused(
        f"the label is {shape[0]} px wide and {shape[1]} px high; "
        f"the video has {width} x {height} px",
        "give a shorter --label or a larger video",
    )


def _quietest_corner(
    picture: np.ndarray, shape: tuple[int, ...], margin: int, face: Box | None
) -> tuple[int, int, int, int]:
    """The corner away from the face where least is going on; below and on the right if all are."""
    height, width = picture.shape[:2]
    margin = min(margin, width - shape[1], height - shape[0])
    rows, columns = (height - margin - shape[0], margin), (width - margin - shape[1], margin)

    def cost(place: tuple[int, int]) -> float:
        top, left = place
        cut = picture[top : top + shape[0], left : left + shape[1]]
        unrest, covered = float(cut.mean(axis=-1).std()) / 255, 0.0
        if face is not None:
            shared_width = min(left + shape[1], face[2]) - max(left, face[0])
            shared_height = min(top + shape[0], face[3]) - max(top, face[1])
            covered = max(shared_width, 0.0) * max(shared_height, 0.0) / (shape[0] * shape[1])
        return round(unrest, 1) + round(covered, 1)

    top, left = min(itertools.product(rows, columns), key=cost)
    return left, top, left + shape[1], top + shape[0]


def _font_for(text: str) -> str:
    """The first font that has every letter; the built-in one has those of English alone."""
    missing = ""
    for name in FONTS:
        try:
            font = _font(name, MIN_TEXT_PX)
        except OSError:
            continue  # not on this machine
        unknown = _shape(font, "\uffff")
        lacks = [
            letter
            for letter in text
            if not letter.isspace()
            and (not letter.isprintable() or _shape(font, letter) == unknown)
        ]
        if not lacks:
            return name
        missing = missing or lacks[0]
    raise _refused(
        f"no font on this machine has the label's character {missing!r}",
        "install fonts-dejavu or fonts-noto, or use English letters",
    )


def _font(name: str, size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


def _shape(font: Any, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _refused(what: str, hint: str) -> UsageError:
    return UsageError(what, hint=hint, code="E-LABEL")
