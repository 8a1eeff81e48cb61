"""What the stages of a stream share, and the one that decodes blocks to frames.

It is a generator for a thread of its own, which it leaves in inference mode between its items.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from joyflash_cli.render.job import StreamJob, device_errors
from joyflash_cli.render.request import RenderRequest
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


def decode_stage(
    job: StreamJob, blocks: Iterable[SampledBlock], started: float
) -> Iterator[FrameChunk]:
    """Frames of blocks, trimmed to the sound.

    Args:
        job: The stream.
        blocks: From ``sampling.sample_stage``.
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
        prefix = job.reference_latent[:, None] if job.settings.first_block_frame else None
        for sampled in blocks:
            decoding_started = time.perf_counter()
            made = sampled.block.frames
            latents = _taken_over(sampled, stream)
            if made is not None:
                frames = decoder.labelled(made[0].movedim(-3, -1).contiguous().cpu().numpy())
            else:
                latents = latents.to(torch.float32)
                if prefix is not None:
                    latents, prefix = torch.cat((prefix.float(), latents), dim=1), None
                frames = decoder.decode(latents)
            frames = frames[: sampled.num_frames]
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
        return self.labelled(self._decode(latents))

    def labelled(self, frames: "np.ndarray") -> "np.ndarray":
        """The same frames, the label drawn into them."""
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
