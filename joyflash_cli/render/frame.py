"""Which part of the picture a video shows, and how large: as asked, checked and completed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from joyflash_cli.errors import UsageError
from joyflash_cli.types import Scene
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    from joyflash_cli.media.inputs.framing import Framed

PICTURE, FACE = "picture", "face"
MAX_SIZE_PX = 1280
"""Longer side of a video that shows the picture, unless another is asked for."""

MIN_MAX_SIZE_PX, MAX_MAX_SIZE_PX = 64, 4096
FACE_SIZES_PX = (256, 512)


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

    def resolved(self, files: CheckpointFiles) -> "FrameOptions":
        """The same with every choice made; nothing is left to choose for full-size profiles.

        Raises:
            UsageError: ``E-FRAME`` for an unknown value, options that exclude each other, or any
                option for a profile that has sizes of its own.
        """
        from joyflash_cli.media.inputs.framing import FramingRule

        if not isinstance(files.description.framing, FramingRule):
            if self != DEFAULT_FRAME:
                raise _refused(
                    f"profile {files.name} has a frame of its own",
                    "leave --frame, --size and --max-size out",
                )
            return self
        frame = PICTURE if self.frame is None else self.frame
        if frame not in (PICTURE, FACE):
            raise _refused(f"the frame {frame!r:.80} is not known", f"use {PICTURE} or {FACE}")
        if frame == FACE:
            return self._as_face()
        if self.size_px is not None:
            raise _refused("--size is for --frame face", "use --max-size N, or add --frame face")
        longest = MAX_SIZE_PX if self.max_size_px is None else self.max_size_px
        if not MIN_MAX_SIZE_PX <= longest <= MAX_MAX_SIZE_PX:
            raise _refused(
                f"a longer side of {longest} px is not possible",
                f"{MIN_MAX_SIZE_PX} to {MAX_MAX_SIZE_PX} are",
            )
        return FrameOptions(PICTURE, None, longest)

    def _as_face(self) -> "FrameOptions":
        if self.max_size_px is not None:
            raise _refused("--max-size is for --frame picture", "use --size 256 or 512")
        side = FACE_SIZES_PX[0] if self.size_px is None else self.size_px
        if side not in FACE_SIZES_PX:
            known = " or ".join(str(known) for known in FACE_SIZES_PX)
            raise _refused(f"a face of {side} px is not possible", f"use --size {known}")
        return FrameOptions(FACE, side, None)

    def to_dict(self) -> dict[str, Any]:
        """What was chosen, for a record."""
        chosen = {"frame": self.frame, "size": self.size_px, "max_size": self.max_size_px}
        return {name: value for name, value in chosen.items() if value is not None}


DEFAULT_FRAME = FrameOptions()


def read_scene(options: FrameOptions, framed: "Framed") -> Scene | None:
    """What resolved options show of a picture; ``None`` where the profile shows its own frame."""
    from joyflash_cli.media.scene import face_scene, picture_scene

    if options.max_size_px is not None:
        return picture_scene(framed, max_side_px=options.max_size_px // 2 * 2)
    if options.size_px is not None:
        return face_scene(framed, side_px=options.size_px)
    return None


def notes_of(options: FrameOptions, framed: "Framed") -> tuple[str, ...]:
    """What the user should know of a picture that is shown so."""
    from joyflash_cli.media.inputs.framing import cut_notes

    return () if options.size_px is None else cut_notes(framed, options.size_px)


def _refused(what: str, hint: str) -> UsageError:
    return UsageError(what, hint=hint, code="E-FRAME")
