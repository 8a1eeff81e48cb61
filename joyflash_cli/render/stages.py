"""The two stages of a stream: one samples blocks, the other decodes them to frames.

Each is a generator for a thread of its own, which it leaves in inference mode between its items.
Blocks are sampled behind a cache in a rolling window, or segment by segment.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from joyflash_cli.encoders.protocol import Wav2Vec2FrontEnd
from joyflash_cli.render.job import StreamJob, device_errors, static_conditioning
from joyflash_cli.render.request import RenderRequest
from joyflash_cli.render.sound_feed import SoundFeed
from joyflash_cli.types import FRAMES_PER_LATENT, AudioClip, FrameChunk, LatentBlock, to_levels

if TYPE_CHECKING:
    import numpy as np
    import torch

    from joyflash_cli.codec.protocol import Codec
    from joyflash_cli.conditioning.stream import StaticConditioning


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


def sample_stage(
    job: StreamJob, feed: SoundFeed, static: "StaticConditioning | None" = None
) -> Iterator[SampledBlock]:
    """Blocks as they become clean, until the sound has ended and they cover it.

    Args:
        job: The stream.
        feed: The sound, nothing of it heard yet.
        static: Of ``static_conditioning``, where another process has encoded it.

    Raises:
        AudioError: When the sound cannot be used.
        DeviceError: When a block has numbers that are not finite, or memory runs out.
    """
    import torch

    request, settings, device = job.request, job.settings, job.placement.device
    with torch.inference_mode(), device_errors(job.planned, job.placement):
        for block in _blocks(job, feed, static or static_conditioning(job)):
            start = settings.video_start(block.index)
            stop = settings.video_start(block.index + 1)
            while not feed.covers_frame(stop - 1) and not feed.ended:
                feed.pull()
            total = feed.num_frames
            if total is None:
                total = request.num_frames(settings.fps)
            if total is not None:
                stop = min(stop, total)
            if stop <= start:
                return  # sampled ahead of a sound that has ended
            event = None
            if device.type == "cuda":
                event = torch.cuda.Event()
                event.record(torch.cuda.current_stream(device))
            yield SampledBlock(
                block=block,
                first_frame=start,
                num_frames=stop - start,
                num_blocks=None if total is None else settings.num_blocks(total),
                sound=feed.take(stop),
                event=event,
            )


def _blocks(job: StreamJob, feed: SoundFeed, static: "StaticConditioning") -> Iterator[LatentBlock]:
    """Blocks of a rolling window, or segments, which hold the frames that they show."""
    from joyflash_cli.sampler.noise import SeededNoise
    from joyflash_cli.sampler.segment_settings import SegmentSettings

    request, settings, placement = job.request, job.settings, job.placement
    rule = job.files.description.conditioning.audio_windows
    encoder = job.parts.front_end
    if isinstance(job.files.description.front_end, Wav2Vec2FrontEnd):
        from joyflash_cli.render.file_rows import encoder_for

        encoder = encoder_for(request, encoder, rule, settings)  # type: ignore[arg-type]
    about: Any = {
        "static": static, "settings": settings,
        "device": placement.device, "dtype": placement.dtype,
    }  # fmt: skip
    shape: Any = tuple(job.reference_latent.shape[1:])
    noise = SeededNoise(request.seed, shape, device=placement.device)
    if not isinstance(settings, SegmentSettings):
        from joyflash_cli.conditioning.stream import StreamConditioning
        from joyflash_cli.sampler.stream import Stream

        heard = request.look_ahead_blocks
        return Stream.start(
            job.parts.transformer,
            settings,
            source=StreamConditioning(feed, encoder, rule, look_ahead_blocks=heard, **about),
            noise=noise,
            latent_shape=shape,
            reference_latent=job.reference_latent,
        ).blocks()
    from joyflash_cli.conditioning.segments import SegmentConditioning
    from joyflash_cli.sampler.segments import SegmentStream

    num_frames = request.num_frames(settings.fps)
    num_blocks = None if num_frames is None else settings.num_blocks(num_frames)
    known = job.seen_latents.float()
    if known.ndim == 4:  # one latent is that of every frame
        known = known[:, None].expand(-1, settings.segment_frames, -1, -1, -1)
    return SegmentStream(
        job.parts.transformer,
        settings,
        SegmentConditioning(feed, encoder, rule, num_blocks=num_blocks, **about),
        noise,
        job.parts.codec,
        job.reference,
        known,
    ).blocks()


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

    with (
        torch.inference_mode(),
        device_errors(job.planned, job.placement),
        _own_stream(job.placement.device) as stream,
    ):
        decoder = SceneDecoder(job.parts.codec, job.reference, job.request)
        label = job.request.drawn_label()
        # A profile that begins with the reference itself has its frames in front.
        prefix = job.reference_latent[:, None] if job.settings.first_block_frame else None
        for sampled in blocks:
            decoding_started = time.perf_counter()
            held = _taken_over(sampled, stream)
            if sampled.block.frames is not None:
                frames = held[0].movedim(-3, -1).contiguous().cpu().numpy()
            else:
                latents = held.to(torch.float32)
                if prefix is not None:
                    latents, prefix = torch.cat((prefix.float(), latents), dim=1), None
                frames = decoder.decode(latents)
            if label is not None:
                label.draw(frames)
            now = time.perf_counter()
            yield FrameChunk(
                index=sampled.block.index,
                num_blocks=sampled.num_blocks,
                frames=frames[: sampled.num_frames],
                first_frame=sampled.first_frame,
                elapsed_s=now - started,
                stats={"sample": sampled.block.wall_s, "decode": now - decoding_started},
                sound=sampled.sound,
            )


def on_cpu(blocks: Iterable[SampledBlock], device: "torch.device") -> Iterator[SampledBlock]:
    """Blocks of latents in the CPU's memory, copied beside what the device computes."""
    with _own_stream(device) as stream:
        for sampled in blocks:
            latents = _taken_over(sampled, stream).cpu()
            yield replace(sampled, block=replace(sampled.block, latents=latents), event=None)


def _taken_over(sampled: SampledBlock, stream: Any) -> "torch.Tensor":
    """What a block holds, latents or frames, for use on a stream of one's own."""
    made = sampled.block.frames
    held = sampled.block.latents if made is None else made
    if sampled.event is not None:
        stream.wait_event(sampled.event)
        held.record_stream(stream)
    return held


class SceneDecoder:
    """Decodes one stream, in order.

    Args:
        codec: Of the checkpoint; one that draws into scenes if the request has one.
        reference: What it takes as its reference, ``(1, 3, H, W)`` in -1..1.
        request: Says what the video shows.
    """

    def __init__(self, codec: "Codec", reference: "torch.Tensor", request: RenderRequest) -> None:
        self._codec: Any = codec
        self._scene = request.scene
        drawn_into = {} if self._scene is None else {"scene": self._scene}
        self._state = self._codec.start_decoding(reference, seed=request.seed, **drawn_into)

    def decode(self, latents: "torch.Tensor") -> "np.ndarray":
        """Frames ``(F, H, W, 3)`` uint8 of the next latents ``(1, T, C, h, w)``."""
        import numpy as np

        if self._scene is None:
            decoded, self._state = self._codec.decode(latents, self._state)
            return to_levels(decoded[0])

        width, height = self._scene.size_px
        num_frames = FRAMES_PER_LATENT * latents.shape[1]
        if not self._state.num_latents:
            num_frames -= FRAMES_PER_LATENT - 1  # the first latent stands for a single frame
        frames = np.empty((num_frames, height, width, 3), np.uint8)
        canvas, done = self._state.canvas, 0
        rows = slice(canvas.top, canvas.top + canvas.height)
        columns = slice(canvas.left, canvas.left + canvas.width)
        if (canvas.height, canvas.width) != (height, width):
            frames[:] = self._scene.pixels  # around the part that moves
        for latent in latents.split(1, dim=1):  # of one latent alone, many pixels are enough
            levels, self._state = self._codec.decode(latent, self._state)
            moving = levels[0].movedim(1, -1).cpu().numpy()
            frames[done : done + len(moving), rows, columns] = moving
            done += len(moving)
        return frames


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
