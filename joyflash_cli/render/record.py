"""The record beside a video: how it was made, for people, batches and reports.

``hello.mp4`` gets ``hello.mp4.json``, written when the video is complete or kept as partial. One
JSON object with these keys, all present, in this order:

=====================  =============================================================================
``format``             1; changes when a key changes its meaning.
``generator``          ``"JoyFlash"``.
``version``            Version of the program.
``ai_generated``       ``true``.
``notice``             The sentence that the video's own ``comment`` carries: "AI-generated ...".
``created``            UTC time, ISO 8601.
``status``             ``"complete"``, or ``"partial"`` when stopped or failed before the end.
``error``              One line for a failed render, else ``null``.
``output``             File name of the video, in the folder of this record.
``profile``            Name of the checkpoint.
``checkpoint_version`` The checkpoint's own version.
``weights_sha256``     Of all weights and the description, see :func:`weights_sha256`.
``image_sha256``       Of the picture file's bytes; ``null`` if it never was a file.
``audio_sha256``       Of the sound file's bytes, or of the bytes that came through a pipe; ``null``
                       if it never was bytes.
``image``, ``audio``   Names of the files, ``"-"`` for standard input, or ``null``.
``seed``               Integer.
``prompt``             Text, empty without.
``parameters``         Every other choice of the run: frame and size, look-ahead, sampler settings;
                       and where the face's square lies, ``face_box`` in the picture and ``square``
                       in the video.
``device``, ``dtype``  Where and in which number format the transformer ran.
``fps``                Frames per second.
``width``, ``height``  Pixels of a frame.
``video_frames``       Frames written.
``video_s``            ``video_frames / fps``.
``audio_s``            Seconds of sound that were given (as far as it was read).
``audio_track``        Which of several sound tracks was heard, from 0; ``null`` where there is one.
``truncated``          Whether the sound ended before the length that it says it has.
``skipped``            Damaged parts of the sound that became silence: ``[beginning, length]`` each,
                       in seconds.
``wall_s``             From the start of sampling until the file was closed.
``load_s``             Loading the weights.
``first_frame_s``      From the start of sampling until the first frames were decoded.
``realtime_factor``    ``video_s / wall_s``.
``block_timings_s``    For each block written, in order: seconds its sampling and decoding took.
``signed_by``          Whose certificate signed the video, in the notation of RFC 4514; ``null``
                       where none did.
``warnings``           List of sentences the user was shown.
=====================  =============================================================================
"""

import contextlib
import functools
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from joyflash_cli import __version__
from joyflash_cli.description import OPTIONAL_PARTS, PARTS
from joyflash_cli.errors import DataError
from joyflash_cli.files import cannot_write, file_sha256, room_hint, write_whole
from joyflash_cli.media.outputs.names import followed, sidecar_path
from joyflash_cli.render.request import RenderRequest
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    from joyflash_cli.render.placement import Placement

STREAM = Path("-")
"""What stands for a stream where a path is expected."""

SIDECAR_FORMAT = 1
MAX_SIDECAR_BYTES = 64 << 20


@dataclass(frozen=True)
class RunRecord:
    """A render, how it was made and how it went; the module says what each key means.

    It is begun before the first frame and completed when the file is closed. The fields without a
    default are the least a record needs. What tells of a run, the sidecar, ``--json`` and the table
    of a batch, is read from here.

    Attributes:
        output: The file, the partial file when stopped early, ``-`` for a stream; the sidecar has
            its name only.
        late_warnings: Those of ``warnings`` that only showed while rendering.
        sidecar: Where the record lies; ``None`` for a stream.
    """

    output: Path
    status: Literal["complete", "partial"]
    profile: str
    seed: int
    fps: float
    video_frames: int
    audio_s: float
    wall_s: float
    checkpoint_version: str = ""
    weights_sha256: str | None = None
    image_sha256: str | None = None
    audio_sha256: str | None = None
    image: str | None = None
    audio: str | None = None
    prompt: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    dtype: str = ""
    width: int = 0
    height: int = 0
    load_s: float = 0.0
    first_frame_s: float = 0.0
    block_timings_s: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()
    audio_track: int | None = None
    truncated: bool = False
    skipped: tuple[tuple[float, float], ...] = ()
    error: str | None = None
    signed_by: str | None = None
    late_warnings: tuple[str, ...] = ()
    sidecar: Path | None = None

    @property
    def complete(self) -> bool:
        """Whether the video reached the end of the sound."""
        return self.status == "complete"

    @property
    def size_px(self) -> tuple[int, int]:
        """``(width, height)`` of a frame."""
        return self.width, self.height

    @property
    def video_s(self) -> float:
        """Duration of what was written."""
        return self.video_frames / self.fps

    @property
    def realtime_factor(self) -> float:
        """Seconds of video per second of work; at least 1 keeps up with speech."""
        return self.video_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def notice(self) -> str:
        """The sentence that says what made a video; goes into its ``comment`` and its sidecar."""
        return (
            f"AI-generated with JoyFlash {__version__}, checkpoint {self.profile} "
            f"{self.checkpoint_version}, seed {self.seed}"
        )

    def figures(self) -> dict[str, Any]:
        """How it went in numbers, for programs: ``FIGURES``, in that order."""
        values = {name: getattr(self, name) for name in FIGURES}
        values |= {name: round(values[name], 6) for name in ("video_s", "audio_s")}
        return values | {name: round(values[name], 4) for name in _WORK}

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, with the keys that follow from the others."""
        values = asdict(self)
        derived: dict[str, Any] = {
            "format": SIDECAR_FORMAT,
            "generator": "JoyFlash",
            "version": __version__,
            "ai_generated": True,
            "notice": self.notice,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "output": self.output.name,
            "video_s": self.video_s,
            "realtime_factor": self.realtime_factor,
            "block_timings_s": [round(seconds, 4) for seconds in self.block_timings_s],
            "skipped": [list(part) for part in self.skipped],
            "warnings": list(self.warnings),
        }
        values |= derived
        floats = {key: round(value, 6) for key, value in values.items() if type(value) is float}
        return {key: floats.get(key, values[key]) for key in SIDECAR_KEYS}


SIDECAR_KEYS = (
    "format", "generator", "version", "ai_generated", "notice", "created", "status", "error",
    "output", "profile", "checkpoint_version", "weights_sha256", "image_sha256", "audio_sha256",
    "image", "audio", "seed", "prompt", "parameters", "device", "dtype", "fps", "width", "height",
    "video_frames", "video_s", "audio_s", "audio_track", "truncated", "skipped",
    "wall_s", "load_s", "first_frame_s", "realtime_factor",
    "block_timings_s", "signed_by", "warnings",
)  # fmt: skip
"""Every key of a sidecar, in the order in which they are written."""

FIGURES = (
    "video_s", "audio_s", "wall_s", "load_s", "first_frame_s", "realtime_factor", "truncated",
    "video_frames", "fps", "width", "height",
)  # fmt: skip
"""What of a record tables and programs are told of every render."""

_WORK = ("wall_s", "load_s", "first_frame_s", "realtime_factor")

_LATER_KEYS: dict[str, Any] = {
    "audio_track": None,
    "truncated": False,
    "skipped": [],
    "signed_by": None,
}
"""Keys that records of earlier versions lack, and what they mean there."""


def begin_record(
    request: RenderRequest, files: CheckpointFiles, placement: "Placement", *, load_s: float
) -> RunRecord:
    """The record of a render before its first frame."""
    width, height = request.size_px
    return RunRecord(
        output=STREAM,
        status="partial",
        profile=files.name,
        seed=request.seed,
        fps=request.output_fps or files.description.sampler.fps,
        video_frames=0,
        audio_s=0.0,
        wall_s=0.0,
        checkpoint_version=files.description.version,
        image_sha256=request.image_sha256,
        image=_name_of(request.image_name),
        audio=_name_of(request.audio_name),
        prompt=request.prompt,
        parameters={
            "look_ahead_blocks": request.look_ahead_blocks,
            "output_fps": request.output_fps,
            **request.frame.to_dict(),
            **({"label": request.label} if request.label else {}),
            "face_box": [round(value, 3) for value in request.face.box],
            "square": None if request.scene is None else request.scene.square.rounded(),
            "sampler": files.description.sampler.to_dict(),
        },
        device=str(placement.device),
        dtype=placement.dtype_name,
        width=width,
        height=height,
        load_s=load_s,
    )


def _name_of(path: str | None) -> str | None:
    """A file's own name; whoever reads a record has other folders."""
    return None if path is None else os.path.basename(path) or path


def write_sidecar(output: Path, record: RunRecord) -> Path:
    """Writes the record beside the video, whole or not at all.

    Args:
        output: The video; the record's own name follows from it.
        record: What to write.

    Returns:
        The file written.

    Raises:
        OutputError: ``E-OUTPUT-FULL`` or ``E-OUTPUT-WRITE`` if it cannot be written; then there is
            none: that of an earlier video of this name goes, too.
    """
    path = sidecar_path(output)
    text = json.dumps(record.to_dict(), ensure_ascii=False, indent=1) + "\n"
    try:
        # A name whose bytes are not UTF-8 is escaped as JSON can escape it.
        write_whole(path, text.encode(errors="backslashreplace"), durable=True)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise cannot_write(
            path, error, hint=f"{room_hint(error)}; the video itself is there"
        ) from error
    return path


def read_sidecar(path: Path) -> dict[str, Any]:
    """The record of a video, by the path of the video (or a link to it) or of the record itself.

    Raises:
        DataError: ``E-SIDECAR`` if it is missing, no JSON object of this format, or lacks a key.
    """
    path = Path(path)
    if path.suffix != ".json":
        video, path = path, sidecar_path(path)
        if not path.exists() and video.is_symlink():
            path = sidecar_path(followed(video))
    try:
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            raise _unreadable(path, f"larger than {MAX_SIDECAR_BYTES >> 20} MB")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "not valid JSON") from error
    if not isinstance(values, dict) or values.get("format") != SIDECAR_FORMAT:
        raise _unreadable(path, f"no record of format {SIDECAR_FORMAT}")
    values |= {key: value for key, value in _LATER_KEYS.items() if key not in values}
    missing = [key for key in SIDECAR_KEYS if key not in values]
    if missing:
        raise _unreadable(path, f"lacks {', '.join(missing[:5])}")
    return values


def weights_sha256(files: CheckpointFiles) -> str:
    """One SHA-256 for a whole checkpoint: of its sections and of every weight file's SHA-256.

    Files are hashed once per process, and again when their size or time changes.
    """
    lines = [json.dumps(files.description.stated, sort_keys=True)]
    for part in (*PARTS, *OPTIONAL_PARTS):
        for path in files.shards(part):
            status = path.stat()
            lines.append(f"{part} {_cached_sha256(path, status.st_mtime_ns, status.st_size)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@functools.lru_cache(maxsize=64)
def _cached_sha256(path: Path, _time_ns: int, _size: int) -> str:
    return file_sha256(path)


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} cannot be read as the record of a video: {reason}",
        hint="render the video again",
        code="E-SIDECAR",
    )
