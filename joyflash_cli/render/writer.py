"""From frames to a finished video: the writer that suits the output, and the record beside it."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from joyflash_cli.errors import JoyFlashError, OutputError
from joyflash_cli.media.outputs.discarding import DiscardedOnExit
from joyflash_cli.media.outputs.names import followed
from joyflash_cli.render.record import (
    RenderRecord,
    notice,
    weights_sha256,
    write_sidecar,
)
from joyflash_cli.render.request import SILENCE_WARNING, RenderRequest
from joyflash_cli.types import AudioClip, FrameChunk, SoundFormat
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    from joyflash_cli.media.outputs.names import Source
    from joyflash_cli.media.outputs.writer import Writer

STREAM = Path("-")
"""What stands for a stream where a path is expected."""


@dataclass(frozen=True)
class RenderResult:
    """A written video and how it went.

    Attributes:
        output: The file; the partial file when stopped early; ``-`` for a stream.
        complete: Whether the video reached the end of the sound.
        video_frames: Frames written.
        fps: Frames per second.
        audio_s: Duration of the sound that was given, as far as it was heard.
        wall_s: Seconds from the start of sampling until the file was closed.
        first_frame_s: Seconds until the first frames were decoded.
        load_s: Seconds that loading the weights took.
        seed: The seed used.
        profile: Name of the checkpoint.
        size_px: ``(width, height)``.
        sidecar: The record beside the video; ``None`` for a stream.
        warnings: What only showed while rendering.
        truncated: Whether the sound ended before the length that it says it has.
    """

    output: Path
    complete: bool
    video_frames: int
    fps: float
    audio_s: float
    wall_s: float
    first_frame_s: float
    load_s: float
    seed: int
    profile: str
    size_px: tuple[int, int]
    sidecar: Path | None = None
    warnings: tuple[str, ...] = ()
    truncated: bool = False

    @property
    def video_s(self) -> float:
        """Duration of what was written."""
        return self.video_frames / self.fps

    @property
    def realtime_factor(self) -> float:
        """Seconds of video per second of work; at least 1 keeps up with speech."""
        return self.video_s / self.wall_s if self.wall_s > 0 else 0.0


@dataclass(frozen=True)
class RunFacts:
    """What is known of a render before its first frame.

    Attributes:
        request: What is rendered.
        files: The checkpoint.
        fps: Frames per second of the model.
        device: Where.
        dtype: Number format of the transformer.
        load_s: Seconds that loading the weights took.
    """

    request: RenderRequest
    files: CheckpointFiles
    fps: float
    device: str
    dtype: str
    load_s: float

    @property
    def video_fps(self) -> float:
        """Frames per second of the video."""
        return self.request.output_fps or self.fps


def check_output(
    output: Path | BinaryIO,
    *,
    overwrite: bool,
    inputs: "Sequence[Source]" = (),
    also: Iterable[Path] = (),
) -> None:
    """Refuses a target that could not be written later, or would cost a file; a stream always can.

    Args:
        output: Where the video goes.
        overwrite: Whether what lies under the names that are written may be replaced.
        inputs: Files that are read; they are never replaced.
        also: Other files that are written.

    Raises:
        OutputError: See :meth:`OutputNames.check`.
    """
    from joyflash_cli.media.outputs.names import OutputNames, check_is_no_folder, check_names

    if not isinstance(output, str | Path):
        check_names(also, overwrite=overwrite, inputs=inputs)
        return
    check_is_no_folder(str(output))
    OutputNames(Path(output)).check(overwrite=overwrite, inputs=inputs, also=also)


class VideoWriter(DiscardedOnExit):
    """Writes chunks to an output, which is opened when the first one is there.

    Used in a ``with`` statement; what was neither closed nor saved is discarded.

    Args:
        output: A path, or a binary stream.
        facts: Of the run.
        overwrite: Whether an existing file is replaced.
    """

    def __init__(self, output: Path | BinaryIO, facts: RunFacts, *, overwrite: bool) -> None:
        self._output = output
        self._path = followed(Path(output)) if isinstance(output, str | Path) else None
        self._facts = facts
        self._overwrite = overwrite
        self._muxer: Writer | None = None
        self._started = time.perf_counter()
        self._first_frame_s = 0.0
        self._block_s: list[float] = []
        self._num_given = 0
        self._num_samples = 0
        self._rate_hz = 1
        self._peak = 0.0

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        return self._muxer.num_frames if self._muxer is not None else 0

    @property
    def covers_the_sound(self) -> bool:
        """Whether all frames of a sound of known length were written."""
        return self._num_given == self._facts.request.num_frames(self._facts.fps)

    def write(self, chunk: FrameChunk) -> None:
        """Appends a chunk with its sound.

        Raises:
            OutputError: When it cannot be written; what plays was kept.
        """
        if self._muxer is None:
            self._first_frame_s = chunk.elapsed_s
            self._muxer = self._open(chunk.sound)
        if chunk.sound is not None:
            self._note(chunk.sound)
        self._muxer.write(chunk.frames, chunk.sound)
        self._num_given += len(chunk.frames)
        self._block_s.append(sum(chunk.stats.values()))

    def close(self, *, complete: bool) -> RenderResult:
        """Ends the video under its own name, or under the partial one when it was cut short.

        Raises:
            OutputError: When it cannot be completed.
        """
        muxer = self._muxer
        if muxer is None:
            raise OutputError(
                f"nothing was ready yet, so nothing was written to {self._name}",
                hint="run the same command again",
                code="E-OUTPUT-NOTHING",
            )
        num_frames = muxer.num_frames
        if complete:
            muxer.finish()
            written: Path | None = self._path
        else:
            written = muxer.keep_partial() or self._path
        wall_s = time.perf_counter() - self._started
        sidecar, request = None, self._facts.request
        if self._path is not None and written is not None:
            sidecar = self._record(written, num_frames, wall_s, complete=complete)
        return RenderResult(
            output=(self._given if complete else written) or STREAM,
            complete=complete,
            video_frames=num_frames,
            fps=self._facts.video_fps,
            audio_s=self._audio_s,
            wall_s=wall_s,
            first_frame_s=self._first_frame_s,
            load_s=self._facts.load_s,
            seed=request.seed,
            profile=self._facts.files.name,
            size_px=request.size_px,
            sidecar=sidecar,
            warnings=self._late_warnings,
            truncated=request.hearing is not None and request.hearing.truncated,
        )

    def save_what_is_ready(self, error: BaseException) -> None:
        """Keeps the frames written so far in a partial file; the error says where."""
        if self._muxer is None:
            return
        num_frames = self._muxer.num_frames
        try:
            partial = self._muxer.keep_partial()
            if partial is None or self._path is None:
                return
            if isinstance(error, JoyFlashError):
                error.message += f"; {num_frames} frames are kept in {partial}"
            wall_s = time.perf_counter() - self._started
            self._record(partial, num_frames, wall_s, complete=False, error=str(error))
        except (OutputError, OSError, ValueError):
            return  # the first failure is the one worth telling

    def discard(self) -> None:
        """Removes what was not kept."""
        if self._muxer is not None:
            self._muxer.discard()

    @property
    def _given(self) -> Path | None:
        """The output as it was given: perhaps a link to what is written."""
        return Path(self._output) if isinstance(self._output, str | Path) else None

    @property
    def _name(self) -> str:
        return "standard output" if self._given is None else str(self._given)

    @property
    def _audio_s(self) -> float:
        known = self._facts.request.audio_s
        return known if known is not None else self._num_samples / self._rate_hz

    @property
    def _late_warnings(self) -> tuple[str, ...]:
        """What a file is like was told before; what a pipe was like shows only now."""
        from joyflash_cli.media.inputs.audio import SILENCE_PEAK

        request = self._facts.request
        if request.audio_s is not None:
            return ()
        notes = () if request.hearing is None else tuple(request.hearing.notes)
        return (*notes, SILENCE_WARNING) if self._peak < SILENCE_PEAK else notes

    def _note(self, sound: AudioClip) -> None:
        import numpy as np

        self._num_samples += len(sound.samples)
        self._rate_hz = sound.sample_rate_hz
        self._peak = max(self._peak, float(np.abs(sound.samples).max(initial=0.0)))

    def _open(self, sound: AudioClip | None) -> "Writer":
        from joyflash_cli.media.outputs.muxer import open_muxer

        facts = self._facts
        audio = None
        if sound is not None:
            audio = SoundFormat(sound.sample_rate_hz, sound.samples.shape[1])
        comment = notice(facts.files.name, facts.files.description.version, facts.request.seed)
        return open_muxer(
            self._path or self._output,
            size=facts.request.size_px,
            fps=facts.video_fps,
            given_fps=facts.fps,
            audio=audio,
            overwrite=self._overwrite,
            metadata={"comment": comment},
        )

    def _record(
        self,
        written: Path,
        num_frames: int,
        wall_s: float,
        *,
        complete: bool,
        error: str | None = None,
    ) -> Path:
        """Writes the sidecar; where it lies."""
        facts, request = self._facts, self._facts.request
        origin, hearing = request.origin, request.hearing
        width, height = request.size_px
        status: Literal["complete", "partial"] = "complete" if complete else "partial"
        record = RenderRecord(
            output=written.name,
            status=status,
            profile=facts.files.name,
            seed=request.seed,
            fps=facts.video_fps,
            video_frames=num_frames,
            audio_s=self._audio_s,
            wall_s=wall_s,
            checkpoint_version=facts.files.description.version,
            weights_sha256=weights_sha256(facts.files),
            image_sha256=None if origin is None else origin.image_sha256,
            audio_sha256=getattr(request.audio, "sha256", None),
            image=None if origin is None else _name_of(origin.image),
            audio=None if origin is None else _name_of(origin.audio),
            prompt=request.prompt,
            parameters={
                "look_ahead_blocks": request.look_ahead_blocks,
                "output_fps": request.output_fps,
                **request.frame.to_dict(),
                "face_box": [round(value, 3) for value in request.face.box],
                "square": None if request.scene is None else request.scene.square.rounded(),
                "sampler": facts.files.description.sampler.to_dict(),
            },
            device=facts.device,
            dtype=facts.dtype,
            width=width,
            height=height,
            load_s=facts.load_s,
            first_frame_s=self._first_frame_s,
            block_timings_s=tuple(self._block_s),
            warnings=tuple(map(self._without_folders, (*request.warnings, *self._late_warnings))),
            audio_track=None if hearing is None else hearing.track,
            truncated=hearing is not None and hearing.truncated,
            skipped=() if hearing is None else tuple(hearing.skipped),
            error=None if error is None else self._without_folders(error),
        )
        return write_sidecar(written, record)

    def _without_folders(self, text: str) -> str:
        """A sentence for the record, which is passed on: it says nothing of where a user lives."""
        outputs = [path for path in (self._path, self._given) if path is not None]
        for path in (*self._facts.request.files, *outputs):
            for folder in (path.parent, path.absolute().parent):
                if folder.name:
                    text = text.replace(f"{folder}{os.sep}", "")
        home = os.path.expanduser("~")
        return text.replace(f"{home}{os.sep}", f"~{os.sep}") if home.strip(f"~{os.sep}") else text


def _name_of(path: str | None) -> str | None:
    """A file's own name; whoever reads a record has other folders."""
    return None if path is None else os.path.basename(path) or path
