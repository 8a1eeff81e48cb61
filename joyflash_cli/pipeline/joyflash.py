"""A loaded checkpoint that renders: the stages wired into one stream."""

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli import __version__
from joyflash_cli.checkpoints.store import CheckpointFiles, resolve_checkpoint
from joyflash_cli.errors import JoyFlashError, OutputError
from joyflash_cli.pipeline.parts import LoadedParts, choose_device, choose_dtype, load_parts
from joyflash_cli.pipeline.request import RenderPlan, RenderRequest, plan_render
from joyflash_cli.types import ConditioningSource, FrameChunk

if TYPE_CHECKING:
    import numpy as np
    import torch

    from joyflash_cli.media.muxer import Muxer
    from joyflash_cli.sampler.profile import SamplerProfile


@dataclass(frozen=True)
class RenderResult:
    """A written video and how it went.

    Attributes:
        output: The file; the partial file when stopped early.
        complete: Whether the video reached the end of the sound.
        video_frames: Frames written.
        fps: Frames per second.
        audio_s: Duration of the sound that was given.
        wall_s: Seconds from the start of sampling until the file was closed.
        first_frame_s: Seconds until the first frames were decoded.
        load_s: Seconds that loading the weights took.
        seed: The seed used.
        profile: Name of the checkpoint.
        size_px: ``(width, height)``.
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

    @property
    def video_s(self) -> float:
        """Duration of what was written."""
        return self.video_frames / self.fps

    @property
    def realtime_factor(self) -> float:
        """Seconds of video per second of work; at least 1 keeps up with speech."""
        return self.video_s / self.wall_s if self.wall_s > 0 else 0.0


class JoyFlash:
    """A loaded checkpoint: renders any number of requests, one after the other.

    Build it with ``JoyFlash.load``. It holds weights and settings only; everything that belongs to
    a stream is made when the stream starts.
    """

    def __init__(
        self,
        files: CheckpointFiles,
        parts: LoadedParts,
        *,
        device: "torch.device",
        dtype: "torch.dtype",
        load_s: float = 0.0,
    ) -> None:
        self.files = files
        self.device = device
        self.dtype = dtype
        self.load_s = load_s
        self._parts = parts

    @classmethod
    def load(
        cls,
        profile: str | CheckpointFiles = "tiny",
        checkpoint: Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
    ) -> "JoyFlash":
        """The checkpoint with its weights in memory.

        Args:
            profile: A name of ``weights.toml``, or files that were already resolved.
            checkpoint: A directory to use instead of the profile's own.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            dtype: Of the transformer: ``auto``, ``float32``, ``bfloat16`` or ``float16``.

        Raises:
            CheckpointError: When the files are missing, damaged or of another layout.
            DeviceError: When the device is absent or cannot compute in ``dtype``.
        """
        started = time.perf_counter()
        if isinstance(profile, CheckpointFiles):
            files = profile
        else:
            files = resolve_checkpoint(profile, checkpoint)
        chosen_device = choose_device(device)
        chosen_dtype = choose_dtype(dtype, chosen_device)
        parts = load_parts(files, chosen_device, chosen_dtype)
        load_s = time.perf_counter() - started
        return cls(files, parts, device=chosen_device, dtype=chosen_dtype, load_s=load_s)

    @property
    def sampler(self) -> "SamplerProfile":
        """The checkpoint's sampler settings."""
        return self._parts.sampler

    def plan(self, request: RenderRequest) -> RenderPlan:
        """Frames and blocks that the request takes."""
        return plan_render(request, self.sampler)

    def stream(self, request: RenderRequest) -> Generator[FrameChunk, None, None]:
        """Frames of the request, one chunk per block, as soon as each is clean.

        The frames add up to exactly ``plan(request).num_frames``.

        Raises:
            DeviceError: When a block comes out with numbers that are not finite.
        """
        import torch

        # The decorator form leaves inference mode between chunks, a `with` inside would not.
        return torch.inference_mode()(self._stream)(request)

    def render(
        self,
        request: RenderRequest,
        output: Path,
        *,
        overwrite: bool = False,
        on_chunk: Callable[[FrameChunk], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> RenderResult:
        """The request as an MP4 with its sound; ``output`` appears only when it is complete.

        Args:
            request: From ``read_request``.
            output: Target; its directory must exist.
            overwrite: Whether an existing file is replaced.
            on_chunk: Called after each chunk was written.
            should_stop: Asked after each chunk; true ends the video there, in a partial file.

        Raises:
            OutputError: When the target exists or cannot be written.
            DeviceError: When the device fails. What was ready is kept in a partial file.
        """
        from joyflash_cli.media.muxer import open_muxer

        plan = self.plan(request)
        started = time.perf_counter()
        with open_muxer(
            output,
            size=plan.size_px,
            fps=plan.fps,
            audio=request.audio,
            metadata=self._metadata(request),
            overwrite=overwrite,
        ) as muxer:
            first_frame_s = self._write(muxer, request, on_chunk, should_stop)
            complete = muxer.num_frames == plan.num_frames
            written = _close(muxer, output, complete=complete)
            video_frames = muxer.num_frames
        return RenderResult(
            output=written,
            complete=complete,
            video_frames=video_frames,
            fps=plan.fps,
            audio_s=plan.audio_s,
            wall_s=time.perf_counter() - started,
            first_frame_s=first_frame_s,
            load_s=self.load_s,
            seed=request.seed,
            profile=self.files.name,
            size_px=plan.size_px,
        )

    def _write(
        self,
        muxer: "Muxer",
        request: RenderRequest,
        on_chunk: Callable[[FrameChunk], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> float:
        """Streams into the muxer until the end or a stop; seconds until the first frames."""
        first_frame_s = 0.0
        try:
            with contextlib.closing(self.stream(request)) as chunks:
                for chunk in chunks:
                    first_frame_s = first_frame_s or chunk.elapsed_s
                    muxer.write(chunk.frames)
                    if on_chunk is not None:
                        on_chunk(chunk)
                    if should_stop is not None and should_stop():
                        break
        except BaseException as error:
            _save_what_is_ready(muxer, error)
            raise
        return first_frame_s

    def _stream(self, request: RenderRequest) -> Generator[FrameChunk, None, None]:
        import torch

        from joyflash_cli.sampler.loop import sample_blocks
        from joyflash_cli.sampler.noise import SeededNoise

        parts, plan = self._parts, self.plan(request)
        started = time.perf_counter()
        reference = _to_tensor(request.face.pixels).to(self.device)
        latents = parts.codec.reference_latents(reference)
        shape = (latents.shape[1], latents.shape[2], latents.shape[3])
        blocks = sample_blocks(
            parts.transformer,
            self._conditioning(request, latents, plan),
            parts.sampler,
            latent_shape=shape,
            noise=SeededNoise(request.seed, shape, device=self.device),
            reference_latent=parts.codec.encode(reference[:, None], reference)[:, 0],
        )
        state = parts.codec.start_decoding(reference)
        first_frame = 0
        for block in blocks:
            decoding_started = time.perf_counter()
            decoded, state = parts.codec.decode(block.latents.to(torch.float32), state)
            frames = _to_frames(decoded)[: plan.num_frames - first_frame]
            now = time.perf_counter()
            yield FrameChunk(
                index=block.index,
                num_blocks=plan.num_blocks,
                frames=frames,
                first_frame=first_frame,
                elapsed_s=now - started,
                stats={"sample": block.wall_s, "decode": now - decoding_started},
            )
            first_frame += len(frames)

    def _conditioning(
        self, request: RenderRequest, reference_latents: "torch.Tensor", plan: RenderPlan
    ) -> "ConditioningSource":
        import torch

        from joyflash_cli.conditioning.source import StaticConditioning, conditioning_from_audio
        from joyflash_cli.media.audio import to_model_waveform

        parts = self._parts
        return conditioning_from_audio(
            parts.front_end,
            torch.from_numpy(to_model_waveform(request.audio)).to(self.device),
            parts.audio_windows,
            static=StaticConditioning(
                reference_latents=reference_latents, convention=parts.image_convention
            ),
            fps=plan.fps,
            block_frames=parts.sampler.block_frames,
            num_video_frames=plan.num_frames,
            device=self.device,
            dtype=self.dtype,
        )

    def _metadata(self, request: RenderRequest) -> dict[str, str]:
        made_by = f"AI-generated with JoyFlash {__version__}"
        return {
            "comment": f"{made_by}, checkpoint {self.files.name} {self.files.version}, "
            f"seed {request.seed}"
        }


def _close(muxer: "Muxer", output: Path, *, complete: bool) -> Path:
    """Ends the file under its own name, or under the partial one when it was cut short."""
    if complete:
        muxer.finish()
        return output
    partial = muxer.keep_partial()
    if partial is None:
        raise OutputError(f"nothing playable was written beside {output}")
    return partial


def _save_what_is_ready(muxer: "Muxer", error: BaseException) -> None:
    """Keeps the frames written so far in a partial file; the error says where."""
    num_frames = muxer.num_frames
    try:
        partial = muxer.keep_partial()
    except OutputError:
        return  # the first failure is the one worth telling
    if partial is not None and isinstance(error, JoyFlashError):
        error.message += f"; {num_frames} frames are kept in {partial}"


def _to_tensor(pixels: "np.ndarray") -> "torch.Tensor":
    """``(1, 3, H, W)`` in -1..1 of RGB bytes ``(H, W, 3)``."""
    import torch

    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def _to_frames(decoded: "torch.Tensor") -> "np.ndarray":
    """RGB bytes ``(F, H, W, 3)`` of the first stream's frames ``(B, F, 3, H, W)`` in -1..1."""
    import torch

    levels = (decoded[0].float().clamp(-1, 1) + 1.0) * 127.5
    return levels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
