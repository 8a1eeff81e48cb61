"""The two stages that a device works for: sampling blocks, and decoding them to frames."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from joyflash_cli.errors import DeviceError
from joyflash_cli.render.load import LoadedParts
from joyflash_cli.render.memory import PlannedRun, is_out_of_memory, memory_ran_out
from joyflash_cli.render.placement import Placement
from joyflash_cli.render.request import RenderRequest
from joyflash_cli.render.scene_decoder import SceneDecoder
from joyflash_cli.render.sound_feed import SoundFeed
from joyflash_cli.types import AudioClip, FrameChunk, LatentBlock, to_signed
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StreamJob:
    """What the stages of one stream share.

    Attributes:
        files: The checkpoint.
        parts: Its modules.
        request: What to render.
        placement: Where and how it computes.
        reference: The framed picture, ``(1, 3, H, W)`` in -1..1, on the device.
        reference_latent: Its latent, ``(1, C, h, w)``.
    """

    files: CheckpointFiles
    parts: LoadedParts
    request: RenderRequest
    placement: Placement
    reference: "torch.Tensor"
    reference_latent: "torch.Tensor"

    @classmethod
    def prepare(
        cls,
        files: CheckpointFiles,
        parts: LoadedParts,
        request: RenderRequest,
        placement: Placement,
    ) -> "StreamJob":
        """The job with its picture encoded."""
        import torch

        run = PlannedRun(files, request.size_px, request.prompt)
        with torch.inference_mode(), device_errors(run, placement):
            reference = to_signed(request.face.pixels)[None].to(placement.device)
            latent = parts.codec.encode(reference[:, None], reference)[:, 0]
        return cls(files, parts, request, placement, reference, latent)

    @property
    def planned(self) -> PlannedRun:
        """What memory cares about."""
        return PlannedRun(self.files, self.request.size_px, self.request.prompt)


@dataclass(frozen=True)
class SampledBlock:
    """A clean block on its way to the decoder.

    Attributes:
        block: The latents.
        first_frame: First video frame that leaves with it.
        num_frames: Video frames that leave with it, trimmed to the sound.
        num_blocks: Blocks of the whole stream, ``None`` while unknown.
        sound: The original sound of these frames.
        event: On CUDA: when the latents are there.
    """

    block: LatentBlock
    first_frame: int
    num_frames: int
    num_blocks: int | None
    sound: AudioClip
    event: Any = None


def sample_stage(job: StreamJob, feed: SoundFeed) -> Iterator[SampledBlock]:
    """Blocks as they become clean, until the sound has ended and they cover it.

    Raises:
        AudioError: When the sound cannot be used.
        DeviceError: When a block has numbers that are not finite, or memory runs out.
    """
    import torch

    # The decorator form leaves inference mode between items, a `with` inside would not.
    return torch.inference_mode()(_sample_stage)(job, feed)


def decode_stage(
    job: StreamJob, blocks: Iterable[SampledBlock], started: float
) -> Iterator[FrameChunk]:
    """Frames of blocks, trimmed to the sound.

    Args:
        job: The stream.
        blocks: From ``sample_stage``.
        started: Clock when the stream began.
    """
    import torch

    return torch.inference_mode()(_decode_stage)(job, blocks, started)


def _sample_stage(job: StreamJob, feed: SoundFeed) -> Iterator[SampledBlock]:
    from joyflash_cli.conditioning.stream import StreamConditioning
    from joyflash_cli.render.encode_once import EncodeTarget, static_conditioning
    from joyflash_cli.render.file_rows import encoder_for
    from joyflash_cli.sampler.noise import SeededNoise
    from joyflash_cli.sampler.stream import Stream

    parts, request = job.parts, job.request
    description = job.files.description
    settings, rule = description.sampler, description.conditioning.audio_windows
    channels, height, width = job.reference_latent.shape[1:]
    shape = (int(channels), int(height), int(width))
    device, dtype = job.placement.device, job.placement.dtype
    with device_errors(job.planned, job.placement):
        static = static_conditioning(
            job.files,
            request.face.pixels,
            request.prompt,
            target=EncodeTarget(device, dtype, job.placement.text_device),
            picture=job.reference,
            picture_latents=_picture_latents(job),
        )
        stream = Stream.start(
            parts.transformer,
            settings,
            source=StreamConditioning(
                feed,
                encoder_for(request, parts.front_end, rule, settings),
                rule,
                static=static,
                settings=settings,
                look_ahead_blocks=request.look_ahead_blocks,
                device=device,
                dtype=dtype,
            ),
            noise=SeededNoise(request.seed, shape, device=device),
            latent_shape=shape,
            reference_latent=job.reference_latent,
        )
        for block in stream.blocks():
            start = settings.video_start(block.index)
            stop = settings.video_start(block.index + 1)
            while not feed.covers_frame(stop - 1) and not feed.ended:
                feed.pull()
            total = (
                feed.num_frames if feed.num_frames is not None else request.num_frames(settings.fps)
            )
            if total is not None:
                stop = min(stop, total)
            if stop <= start:
                return  # sampled ahead of a sound that has ended
            yield SampledBlock(
                block=block,
                first_frame=start,
                num_frames=stop - start,
                num_blocks=None if total is None else settings.num_blocks(total),
                sound=feed.take(stop),
                event=_recorded_event(device),
            )


def _picture_latents(job: StreamJob) -> "torch.Tensor":
    """What stands beside the noisy latents: the reference's, or those of its padded clip."""
    description = job.files.description
    codec: Any = job.parts.codec
    if description.conditioning.image_convention == "wan-i2v":
        num_latents = description.conditioning.padded_clip_latents
        return codec.padded_clip_latents(job.reference, num_latents)
    if description.codec.reference_is_a_frame:
        return job.reference_latent
    return codec.reference_latents(job.reference)


def _decode_stage(
    job: StreamJob, blocks: Iterable[SampledBlock], started: float
) -> Iterator[FrameChunk]:
    import torch

    with device_errors(job.planned, job.placement), _own_stream(job.placement.device) as stream:
        decoder = SceneDecoder(job.parts.codec, job.reference, job.request)
        # A profile that begins with the reference itself has its frames in front.
        prefix = (
            job.reference_latent[:, None]
            if job.files.description.sampler.first_block_frame
            else None
        )
        for sampled in blocks:
            decoding_started = time.perf_counter()
            latents = sampled.block.latents
            if stream is not None:
                stream.wait_event(sampled.event)
                latents.record_stream(stream)
            latents = latents.to(torch.float32)
            if prefix is not None:
                latents, prefix = torch.cat((prefix.float(), latents), dim=1), None
            frames = decoder.decode(latents)[: sampled.num_frames]
            now = time.perf_counter()
            yield FrameChunk(
                index=sampled.block.index,
                num_blocks=sampled.num_blocks,
                frames=frames,
                first_frame=sampled.first_frame,
                elapsed_s=now - started,
                stats={"sample": sampled.block.wall_s, "decode": now - decoding_started},
                sound=sampled.sound,
            )


@contextlib.contextmanager
def device_errors(
    run: PlannedRun | None = None, placement: Placement | None = None
) -> Iterator[None]:
    """Turns a device that is out of memory into one line: need, free, and a smaller setting."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if run is not None and placement is not None:
            raise memory_ran_out(run, placement) from error
        raise DeviceError(
            f"the device is out of memory: {str(error).splitlines()[0]}",
            hint="close other programs, or give --dtype bf16, a smaller --profile or --device cpu",
            code="E-DEVICE-MEMORY",
        ) from error


@contextlib.contextmanager
def _own_stream(device: "torch.device") -> Iterator[Any]:
    """On CUDA, a stream of its own, so that decoding runs beside sampling."""
    import torch

    if device.type != "cuda":
        yield None
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.default_stream(device))
    with torch.cuda.stream(stream):
        yield stream


def _recorded_event(device: "torch.device") -> Any:
    import torch

    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event
