"""The renderer of a worker: a checkpoint loaded once, rows rendered one after the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from joyflash_cli.batch.jobs import Job
from joyflash_cli.errors import DataError
from joyflash_cli.media.inputs.hearing import SoundChoices
from joyflash_cli.media.scene import DEFAULT_FRAME, FrameOptions
from joyflash_cli.provenance.identity import Signing
from joyflash_cli.render.placement import DEFAULT_EXECUTION, ExecutionOptions
from joyflash_cli.render.record import FIGURES

RECORDED = (*FIGURES, "warnings")
"""What the ledger takes over of a video's own record."""

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
        label: A small text in a corner of the videos; empty for none.
        signing: By whom the videos are signed; every machine must reach its files.
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
    label: str = ""
    signing: Signing | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What of this decides the pictures, as it enters a row's key."""
        from joyflash_cli.render.device import SHORT_DTYPES

        execution = asdict(self.execution)
        # As it was written when there were two ways: a choice nobody makes keeps the older keys.
        if not execution["fast_decode"]:
            execution["fast_decode"] = False if execution["fast_decode"] is None else "off"
        for where in ("offload", "codec_device", "gpus"):
            del execution[where]
        dtype = SHORT_DTYPES.get(self.dtype, self.dtype)
        parameters: dict[str, Any] = {"dtype": dtype, "execution": execution}
        if self.output_fps is not None:
            # Left out otherwise: a choice nobody makes must not change the keys of older rows.
            parameters["output_fps"] = self.output_fps
        if self.choices.track is not None:
            parameters["audio_track"] = self.choices.track
        if self.label:
            parameters["label"] = self.label
        if self.signing is not None:
            # Not by whom: a certificate that is renewed must not change what is done.
            parameters["signed"] = True
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
        self._settings = settings
        self._joyflash = JoyFlash.load(
            settings.profile,
            Path(settings.checkpoint) if settings.checkpoint else None,
            device=device,
            dtype=settings.dtype,
            execution=settings.execution,
        )

    def render(self, job: Job) -> dict[str, Any]:
        """Writes the video and its record; see ``RowRenderer``."""
        from joyflash_cli.files import file_sha256
        from joyflash_cli.render import read_request

        row, settings = job.row, self._settings
        request = read_request(
            self._joyflash.files,
            row.image_path,
            row.audio_path,
            seed=row.seed,
            prompt=row.prompt,
            needs_face=settings.needs_face,
            choices=settings.choices,
            frame=settings.frame,
            label=settings.label,
            signing=settings.signing,
        ).at_output_fps(settings.output_fps)
        # The folder is this attempt's own: whatever lies there is nobody's.
        record = self._joyflash.render(request, job.staged, overwrite=True)
        for name, given in (("image", row.image), ("audio", row.audio)):
            # The row's key was made of other contents.
            if getattr(record, f"{name}_sha256") not in (None, job.inputs[name].sha256):
                raise DataError(
                    f"{given} changed while the batch ran",
                    hint="run the same command again with --retry-failed",
                    code="E-INPUT-CHANGED",
                )
        told = record.to_dict()
        size = {"sha256": file_sha256(job.staged), "bytes": job.staged.stat().st_size}
        return {name: told[name] for name in RECORDED} | size
