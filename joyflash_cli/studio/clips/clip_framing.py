"""One cut for a whole clip: framed by its first frame, so that the camera stands still."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from joyflash_cli.errors import ImageError
from joyflash_cli.media.inputs.faces import find_faces
from joyflash_cli.media.inputs.framing import Framing, FramingRule, frame_picture
from joyflash_cli.media.inputs.picture import Picture
from joyflash_cli.media.inputs.similarity import cut_frame, scaled


class ClipFraming:
    """Cuts every frame of a clip as the first one is framed.

    Args:
        rule: Of a checkpoint: by face, or by size.
        needs_face: Whether a first frame without a face that can speak is refused with an
            ``ImageError``.
    """

    def __init__(self, rule: Framing, *, needs_face: bool = False) -> None:
        self._rule = rule
        self._needs_face = needs_face
        self._cut: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The frame ``(H, W, 3)`` uint8 in the checkpoint's size."""
        if self._cut is None:
            self._cut = self._framed_by(pixels)
        return self._cut(pixels)

    def _framed_by(self, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        framed = frame_picture(Picture(first), self._rule, needs_face=self._needs_face)
        height, width = framed.pixels.shape[:2]
        place = framed.place
        if isinstance(self._rule, FramingRule):
            return lambda pixels: cut_frame(np.rot90(pixels, framed.quarters), place, width)
        right, bottom = place.to_picture(np.array([width, height])).tolist()
        box = (place.x, place.y, right, bottom)
        return lambda pixels: scaled(np.rot90(pixels, framed.quarters), box, (width, height))


def measure_framing(frames: Sequence[np.ndarray]) -> FramingRule:
    """The median place of eyes and mouth over many frames of one size: the rule for a profile.

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
    eyes = np.median([face.eyes for face in largest], axis=0) / size_px
    distance = float(np.median([face.eyes_to_mouth for face in largest])) / size_px
    return FramingRule(size_px, float(eyes[0]), float(eyes[1]), distance)
