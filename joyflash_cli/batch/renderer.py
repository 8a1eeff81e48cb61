"""The renderer of a worker: a checkpoint loaded once, rows rendered one after the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyflash_cli.batch.jobs import Job
from joyflash_cli.errors import DataError
from joyflash_cli.media.inputs.hearing import SoundChoices
from joyflash_cli.render.frame import DEFAULT_FRAME, FrameOptions
from joyflash_cli.render.placement import DEFAULT_EXECUTION, ExecutionOptions

if TYPE_CHECKING:
    from joyflash_cli.render import JoyFlash, RenderResult

CPU_THREADS = 1
"""Threads of a worker on the CPU. Sums come out differently when they are split differently, so
one fixed number, and not the machine's, keeps a row's bytes the same in every worker."""


@dataclass(frozen=True)
class RendererSettings:
    """How a worker loads its checkpoint.

    Attributes:
        profile: A name of ``weights.toml``.
        checkpoint: A directory to use instead, absolute, or empty.
        dtype: Of the transformer; ``auto`` for the device's own.
        threads: On the CPU.
        execution: How to run a model that is large for its device.
        output_fps: Frames per second of the videos; ``None`` for the model's own.
        needs_face: Whether pictures without a face are refused.
        choices: How sounds are heard.
        frame: What of a picture the videos show.
    """

    profile: str = "tiny"
    checkpoint: str = ""
    dtype: str = "auto"
    threads: int = CPU_THREADS
    execution: ExecutionOptions = DEFAULT_EXECUTION
    output_fps: float | None = None
    needs_face: bool = True
    choices: SoundChoices = SoundChoices()
    frame: FrameOptions = DEFAULT_FRAME

    @property
    def parameters(self) -> dict[str, Any]:
        """What of this decides the pictures, as it enters a row's key."""
        from joyflash_cli.render.device import SHORT_DTYPES

        execution = asdict(self.execution)
        for where in ("offload", "codec_device"):
            del execution[where]
        dtype = SHORT_DTYPES.get(self.dtype, self.dtype)
        parameters: dict[str, Any] = {"dtype": dtype, "execution": execution}
        if self.output_fps is not None:
            # Left out otherwise: a choice nobody makes must not change the keys of older rows.
            parameters["output_fps"] = self.output_fps
        if self.choices.track is not None:
            parameters["audio_track"] = self.choices.track
        return parameters | self.frame.to_dict()

    def load(self, device: str) -> PipelineRenderer:
        """The renderer with its weights in memory; a ``RendererFactory``."""
        return PipelineRenderer(self, device)


class PipelineRenderer:
    """Renders jobs with a loaded checkpoint.

    Args:
        settings: What to load.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        CheckpointError: When the weights cannot be used.
        DeviceError: When the device cannot.
    """

    def __init__(self, settings: RendererSettings, device: str) -> None:
        import torch

        from joyflash_cli.render import JoyFlash

        torch.set_num_threads(settings.threads)
        checkpoint = Path(settings.checkpoint) if settings.checkpoint else None
        self._output_fps = settings.output_fps
        self._needs_face = settings.needs_face
        self._choices = settings.choices
        self._frame = settings.frame
        self._joyflash: JoyFlash = JoyFlash.load(
            settings.profile,
            checkpoint,
            device=device,
            dtype=settings.dtype,
            execution=settings.execution,
        )

    def render(self, job: Job) -> dict[str, Any]:
        """Writes the video and its record; see ``RowRenderer``."""
        from joyflash_cli.files import file_sha256
        from joyflash_cli.render import read_request

        row = job.row
        request = read_request(
            self._joyflash.files,
            row.image_path,
            row.audio_path,
            seed=row.seed,
            prompt=row.prompt,
            needs_face=self._needs_face,
            choices=self._choices,
            frame=self._frame,
        ).at_output_fps(self._output_fps)
        # The folder is this attempt's own: whatever lies there is nobody's.
        result = self._joyflash.render(request, job.staged, overwrite=True)
        _check_unchanged(job)
        warnings = [*request.warnings, *result.warnings]
        size = {"sha256": file_sha256(job.staged), "bytes": job.staged.stat().st_size}
        return {**_facts(result), **size, "warnings": warnings}


def _check_unchanged(job: Job) -> None:
    """Refuses a video whose inputs were not those that its row's key was made of."""
    from joyflash_cli.render.record import read_sidecar

    record = read_sidecar(job.staged)
    for name, given in (("image", job.row.image), ("audio", job.row.audio)):
        if record[f"{name}_sha256"] not in (None, job.inputs[name].sha256):
            raise DataError(
                f"{given} changed while the batch ran",
                hint="run the same command again with --retry-failed",
                code="E-INPUT-CHANGED",
            )


def _facts(result: RenderResult) -> dict[str, Any]:
    width, height = result.size_px
    return {
        "video_frames": result.video_frames,
        "fps": result.fps,
        "width": width,
        "height": height,
        "video_s": round(result.video_s, 6),
        "audio_s": round(result.audio_s, 6),
        "truncated": result.truncated,
        "wall_s": round(result.wall_s, 4),
        "load_s": round(result.load_s, 4),
        "first_frame_s": round(result.first_frame_s, 4),
        "realtime_factor": round(result.realtime_factor, 4),
    }
