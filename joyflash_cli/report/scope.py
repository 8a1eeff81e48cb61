"""Where the readers apply: they know heads framed as the embedded model frames them."""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.measures.origin import made_by
from joyflash_cli.measures.reader import EYES_BOX, MOUTH_BOX, face_box
from joyflash_cli.media.outputs.probe import MediaInfo
from joyflash_cli.report.sources import ClipSource
from joyflash_cli.types import Square

READER_PROFILES = ("tiny",)
"""Profiles that frame a head as the readers were trained."""

SHIFT_TOLERANCE = 0.08
"""Farthest that eyes and mouth may lie from the profile's places, of the side, to be read."""

READING_PX = 256
"""Side of the squares that are read out of larger frames."""


@dataclass(frozen=True)
class ReaderBoxes:
    """Where mouth, eyes and face lie in a clip, pixels ``(x0, y0, x1, y1)``.

    Attributes:
        square: Part of the frames that is read; ``None`` reads all.
        mouth: In what is read.
        eyes: Likewise.
        face: In the frames.
    """

    square: Square | None
    mouth: np.ndarray
    eyes: np.ndarray
    face: tuple[int, int, int, int]

    def read_from(self, frames: np.ndarray) -> np.ndarray:
        """What is read of frames ``(F, H, W, 3)`` uint8."""
        from joyflash_cli.media.scene import cut_out

        if self.square is None:
            return frames
        return np.stack([cut_out(frame, self.square, READING_PX) for frame in frames])


def reader_boxes(source: ClipSource, info: MediaInfo, first: np.ndarray) -> ReaderBoxes | str:
    """The boxes to read a clip with, or why the readers do not apply.

    They apply to videos of a profile that frames heads as the readers were trained, where the
    record says in which square of the picture or the square is all of it, and to square videos of
    unknown origin whose first frame shows a face in that place.

    Args:
        source: Its record says the profile.
        info: Its metadata says the profile where there is no record.
        first: The first frame, ``(H, W, 3)`` uint8.
    """
    height, width = first.shape[:2]
    square = _recorded_square(source)
    if square is None and height != width:
        return f"the frame is {width} x {height}; the readers know square, framed heads"
    profile = made_by(source.record, info.metadata)
    if profile is None and not _shows_framed_face(first):
        return "the first frame shows no face where the embedded model would put it"
    if profile is not None and profile not in READER_PROFILES:
        return f"the readers know heads framed by {READER_PROFILES[0]}, not by {profile}"
    side = width if square is None else READING_PX
    mouth, eyes = MOUTH_BOX * side, EYES_BOX * side
    box = face_box(mouth, eyes)
    if square is not None:
        corners = [square.point(*(box[[x, y]] / side)) for x in (0, 2) for y in (1, 3)]
        box = np.concatenate([np.min(corners, 0), np.max(corners, 0)])
        box = box.clip(0, [width, height, width, height])
    left, top, right, bottom = (int(edge) for edge in box.round())
    return ReaderBoxes(square, mouth, eyes, (left, top, right, bottom))


def _recorded_square(source: ClipSource) -> Square | None:
    """Where the record says that the face's square lies in the frames."""
    parameters = source.record.get("parameters")
    recorded = parameters.get("square") if isinstance(parameters, dict) else None
    try:
        return None if recorded is None else Square(**{k: float(v) for k, v in recorded.items()})
    except (AttributeError, TypeError, ValueError):
        return None  # somebody else's record


def _shows_framed_face(first: np.ndarray) -> bool:
    """Whether the largest face lies where the embedded checkpoint's rule puts it."""
    from joyflash_cli.errors import CheckpointError
    from joyflash_cli.media.inputs.faces import find_faces
    from joyflash_cli.media.inputs.framing import FramingRule, is_framed
    from joyflash_cli.weights.store import resolve_checkpoint

    faces = find_faces(first)
    if not faces:
        return False
    try:
        rule = resolve_checkpoint(READER_PROFILES[0]).description.framing
    except CheckpointError:
        return False
    return isinstance(rule, FramingRule) and is_framed(
        faces[0], float(len(first)), rule, tolerance=SHIFT_TOLERANCE
    )
