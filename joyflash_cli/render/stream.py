"""The two stages that a device works for: sampling blocks, and decoding them to frames.

Each is a generator for a thread of its own, which it leaves in inference mode between its items.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from joyflash_cli.render.job import StreamJob, device_errors, static_conditioning
from joyflash_cli.render.request import RenderRequest
from joyflash_cli.render.sound_feed import SoundFeed
from joyflash_cli.types import (
    FRAMES_PER_LATENT,
    AudioClip,
    FrameChunk,
    LatentBlock,
    to_levels,
)

if TYPE_CHECKING:
    import numpy as np
    import torch

    from joyflash_cli.codec.protocol import Codec


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

    from joyflash_cli.conditioning.stream import StreamConditioning
    from joyflash_cli.render.file_rows import encoder_for
    from joyflash_cli.sampler.noise import SeededNoise
    from joyflash_cli.sampler.stream import Stream

    parts, request = job.parts, job.request
    description = job.files.description
    settings, rule = description.sampler, description.conditioning.audio_windows
    channels, height, width = job.reference_latent.shape[1:]
    shape = (int(channels), int(height), int(width))
    device, dtype = job.placement.device, job.placement.dtype
    with torch.inference_mode(), device_errors(job.planned, job.placement):
        static = static_conditioning(job)
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


class SceneDecoder:
    """Decodes one stream, in order.

    Args:
        codec: Of the checkpoint; one that draws into scenes if the request has one.
        reference: What it takes as its reference, ``(1, 3, H, W)`` in -1..1.
        request: Says what the video shows.
    """

    def __init__(self, codec: "Codec", reference: "torch.Tensor", request: RenderRequest) -> None:
        self._codec = codec
        self._scene = request.scene
        self._label = request.drawn_label()
        self._state: Any
        if self._scene is None:
            self._state = codec.start_decoding(reference, seed=request.seed)
        else:
            painter: Any = codec
            self._state = painter.start_decoding(reference, seed=request.seed, scene=self._scene)

    def decode(self, latents: "torch.Tensor") -> "np.ndarray":
        """Frames ``(F, H, W, 3)`` uint8 of the next latents ``(1, T, C, h, w)``, labelled."""
        frames = self._decode(latents)
        if self._label is not None:
            self._label.draw(frames)
        return frames

    def _decode(self, latents: "torch.Tensor") -> "np.ndarray":
        import numpy as np

        if self._scene is None:
            decoded, self._state = self._codec.decode(latents, self._state)
            return to_levels(decoded[0])

        width, height = self._scene.size_px
        num_frames = FRAMES_PER_LATENT * latents.shape[1]
        if not self._state.num_latents:
            num_frames -= FRAMES_PER_LATENT - 1  # the first latent stands for a single frame
        frames = np.empty((num_frames, height, width, 3), np.uint8)
        done = 0
        for latent in latents.split(1, dim=1):  # of one latent alone, many pixels are enough
            levels, self._state = self._codec.decode(latent, self._state)
            self._fill(frames[done : done + levels.shape[1]], levels[0])
            done += levels.shape[1]
        return frames

    def _fill(self, frames: "np.ndarray", levels: "torch.Tensor") -> None:
        """Puts the part that moves ``(F, 3, h, w)`` into the picture around it."""
        assert self._scene is not None
        canvas = self._state.canvas
        bottom, right = canvas.top + canvas.height, canvas.left + canvas.width
        if (canvas.height, canvas.width) != self._scene.pixels.shape[:2]:
            frames[:] = self._scene.pixels
        frames[:, canvas.top : bottom, canvas.left : right] = levels.movedim(1, -1).cpu().numpy()


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
