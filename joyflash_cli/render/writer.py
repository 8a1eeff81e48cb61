"""From frames to a finished video: the writer that suits the output, its record and its seal."""

import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from joyflash_cli.errors import JoyFlashError, OutputError, UsageError
from joyflash_cli.media.outputs.formats import FORMATS
from joyflash_cli.media.outputs.names import OutputNames
from joyflash_cli.media.outputs.writer import DiscardedOnExit
from joyflash_cli.render.record import STREAM, RunRecord, weights_sha256, write_sidecar
from joyflash_cli.render.request import SILENCE_WARNING, RenderRequest
from joyflash_cli.types import AudioClip, FrameChunk, SoundFormat
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    from joyflash_cli.media.outputs.writer import Writer
    from joyflash_cli.provenance.identity import Signing


class VideoWriter(DiscardedOnExit):
    """Writes chunks to an output, which is opened when the first one is there.

    Used in a ``with`` statement; what was neither closed nor saved is discarded.

    Args:
        output: A path, which is checked, names that were, or a binary stream.
        request: What is rendered.
        files: With which checkpoint.
        begun: The record, as far as it is known.
        overwrite: Whether an existing file is replaced.

    Raises:
        OutputError: See :meth:`OutputNames.check`.
        UsageError: See ``check_signing``.
    """

    def __init__(
        self,
        output: Path | OutputNames | BinaryIO,
        request: RenderRequest,
        files: CheckpointFiles,
        begun: RunRecord,
        *,
        overwrite: bool,
    ) -> None:
        if isinstance(output, str | Path):
            output = OutputNames(output).check(overwrite=overwrite, inputs=request.files)
        self._output = output
        self._path = output.path if isinstance(output, OutputNames) else None
        self._request = request
        self._files = files
        self._begun = replace(begun, signed_by=check_signing(request.signing, output))
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
        return self._num_given == self._request.num_frames(self._files.description.sampler.fps)

    def write(self, chunk: FrameChunk) -> None:
        """Appends a chunk with its sound.

        Raises:
            OutputError: When it cannot be written; what plays was kept.
        """
        import numpy as np

        if self._muxer is None:
            self._first_frame_s = chunk.elapsed_s
            self._muxer = self._open(chunk.sound)
        if chunk.sound is not None:
            samples = chunk.sound.samples
            self._num_samples += len(samples)
            self._rate_hz = chunk.sound.sample_rate_hz
            self._peak = max(self._peak, float(np.abs(samples).max(initial=0.0)))
        self._muxer.write(chunk.frames, chunk.sound)
        self._num_given += len(chunk.frames)
        if chunk.stats:
            self._block_s.append(sum(chunk.stats.values()))

    def close(self, *, complete: bool) -> RunRecord:
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
            try:
                muxer.finish()
            except OutputError as error:
                if muxer.unsealed is not None:  # the video itself is whole
                    self._record(muxer.unsealed, num_frames, complete=False, error=str(error))
                raise
            written = self._path
        else:
            written = muxer.keep_partial() or self._path
        record = self._record(written, num_frames, complete=complete)
        return replace(record, output=(self._given if complete else written) or STREAM)

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
            self._record(partial, num_frames, complete=False, error=str(error))
        except (OutputError, OSError, ValueError):
            return  # the first failure is the one worth telling

    def discard(self) -> None:
        """Removes what was not kept."""
        if self._muxer is not None:
            self._muxer.discard()

    @property
    def _given(self) -> Path | None:
        """The output as it was given: perhaps a link to what is written."""
        return self._output.given if isinstance(self._output, OutputNames) else None

    @property
    def _name(self) -> str:
        return "standard output" if self._given is None else str(self._given)

    @property
    def _late_warnings(self) -> tuple[str, ...]:
        """What a file is like was told before; what a pipe was like shows only now."""
        from joyflash_cli.media.inputs.audio import SILENCE_PEAK

        request, notes = self._request, []
        if self._muxer is not None and self._muxer.seal_error is not None:
            notes.append(f"what was kept is not signed: {self._muxer.seal_error.message}")
        if request.audio_s is None:
            notes += () if request.hearing is None else request.hearing.notes
            notes += (SILENCE_WARNING,) if self._peak < SILENCE_PEAK else ()
        return tuple(notes)

    def _open(self, sound: AudioClip | None) -> "Writer":
        from joyflash_cli.media.outputs.writer import open_muxer
        from joyflash_cli.media.outputs.xmp import SOURCE_TYPE, TRAINED

        request, audio = self._request, None
        if sound is not None:
            audio = SoundFormat(sound.sample_rate_hz, sound.samples.shape[1])
        return open_muxer(
            self._output,
            size=self._begun.size_px,
            fps=self._begun.fps,
            given_fps=self._files.description.sampler.fps,
            audio=audio,
            overwrite=self._overwrite,
            metadata={"comment": self._begun.notice, SOURCE_TYPE: TRAINED},
            seal=partial(_seal, request, self._files, self._begun) if request.signing else None,
        )

    def _record(
        self, written: Path | None, num_frames: int, *, complete: bool, error: str | None = None
    ) -> RunRecord:
        """The record as it is now, also beside what was written where that is a file."""
        sealed = self._muxer is not None and self._muxer.is_sealed
        hearing, late = self._request.hearing, self._late_warnings
        known_s = self._request.audio_s
        warnings = (*self._request.warnings, *late)
        record = replace(
            self._begun,
            output=written or STREAM,
            status="complete" if complete else "partial",
            video_frames=num_frames,
            audio_s=known_s if known_s is not None else self._num_samples / self._rate_hz,
            wall_s=time.perf_counter() - self._started,
            audio_sha256=getattr(self._request.audio, "sha256", None),
            first_frame_s=self._first_frame_s,
            block_timings_s=tuple(self._block_s),
            warnings=tuple(self._without_folders(warning) for warning in warnings),
            late_warnings=late,
            audio_track=None if hearing is None else hearing.track,
            truncated=hearing is not None and hearing.truncated,
            skipped=() if hearing is None else tuple(hearing.skipped),
            error=None if error is None else self._without_folders(error),
            signed_by=self._begun.signed_by if sealed else None,
        )
        if self._path is None or written is None:
            return record
        record = replace(record, weights_sha256=weights_sha256(self._files))
        return replace(record, sidecar=write_sidecar(written, record))

    def _without_folders(self, text: str) -> str:
        """A sentence for the record, which is passed on: it says nothing of where a user lives."""
        outputs = [path for path in (self._path, self._given) if path is not None]
        for path in (*self._request.files, *outputs):
            for folder in (path.parent, path.absolute().parent):
                if folder.name:
                    text = text.replace(f"{folder}{os.sep}", "")
        home = os.path.expanduser("~")
        return text.replace(f"{home}{os.sep}", f"~{os.sep}") if home.strip(f"~{os.sep}") else text


def check_signing(signing: "Signing | None", output: OutputNames | BinaryIO | None) -> str | None:
    """Who will sign; refuses what could not be signed later, before any work is done.

    Args:
        signing: By whom; ``None`` for nobody, to which every output fits.
        output: Names, or a stream.

    Raises:
        UsageError: ``E-SIGN-OUTPUT`` for a stream or a playlist, ``E-SIGN-CERTIFICATE``,
            ``E-SIGN-KEY`` or ``E-SIGN-EXTRA``.
    """
    if signing is None:
        return None
    from joyflash_cli.provenance.signing import check_identity

    if not isinstance(output, OutputNames):
        raise _cannot_carry("a stream or pipe")
    if FORMATS[output.path.suffix.lower()].seals == "nowhere":
        raise _cannot_carry(f"{output.path}, a playlist with its segments,")
    return check_identity(signing)


def _seal(
    request: RenderRequest, files: CheckpointFiles, begun: RunRecord, source: Path, target: Path
) -> None:
    from joyflash_cli.media.outputs.pictures import thumbnail
    from joyflash_cli.provenance.signing import Ingredient, sign_file

    assert request.signing is not None
    facts = {
        "profile": begun.profile,
        "checkpoint_version": begun.checkpoint_version,
        "weights_sha256": weights_sha256(files),
        "seed": begun.seed,
        "notice": begun.notice,
    }
    small = thumbnail(request.face.picture) if request.signing.thumbnail else b""
    heard = getattr(request.audio, "path", None) or request.audio_name
    inputs = (
        Ingredient("picture", begun.image_sha256, _path(request.image_name), small),
        # Known only now: of a pipe, it is of what came through.
        Ingredient("sound", getattr(request.audio, "sha256", None), _path(heard)),
    )
    sign_file(source, target, request.signing, facts, inputs)


def _path(name: str | Path | None) -> Path | None:
    return None if name in (None, "-") else Path(name)


def _cannot_carry(what: str) -> UsageError:
    return UsageError(
        f"{what} cannot carry Content Credentials",
        hint="give --output FILE.mp4, or leave --sign out",
        code="E-SIGN-OUTPUT",
    )
