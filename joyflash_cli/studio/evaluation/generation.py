"""Frames to measure: from the shipped sampler, and from the codec alone as its ceiling."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.codec.protocol import Codec, DelegatingCodec
from joyflash_cli.errors import DataError
from joyflash_cli.media.inputs.framing import Framed
from joyflash_cli.media.inputs.similarity import Similarity
from joyflash_cli.render import JoyFlash, RenderRequest
from joyflash_cli.render.load import load_parts
from joyflash_cli.render.placement import place
from joyflash_cli.types import (
    FRAMES_PER_LATENT,
    MODEL_SAMPLE_RATE_HZ,
    AudioClip,
    to_levels,
    to_signed,
)
from joyflash_cli.weights.store import resolve_checkpoint

WARM_UP_LATENTS = 12


class Renderer(Protocol):
    """What the evaluation needs of a model."""

    def stream(
        self, reference: np.ndarray, waveform: np.ndarray, *, seed: int
    ) -> Iterator[np.ndarray]:
        """Chunks of frames ``(F, H, W, 3)`` uint8 that cover the 16 kHz waveform."""
        ...

    def reconstruct(self, frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Frames ``(4T - 3, H, W, 3)`` uint8 through the codec and back."""
        ...


class CheckpointRenderer:
    """A checkpoint behind the product's own pipeline: the sampler exactly as shipped.

    Args:
        checkpoint: A checkpoint directory; the embedded one if ``None``.
        device: As for ``joyflash render``.
        dtype: As for ``joyflash render``.
        look_ahead_blocks: As for ``joyflash render --look-ahead``; the profile's if ``None``.
    """

    def __init__(
        self,
        checkpoint: Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        look_ahead_blocks: int | None = None,
    ) -> None:
        self.files = resolve_checkpoint("tiny", checkpoint)
        self._placement = place(self.files, device, dtype)
        self.device, self.dtype = self._placement.device, self._placement.dtype
        self._parts = load_parts(self.files, self._placement)
        self._codec = self._parts.codec
        self._look_ahead_blocks = look_ahead_blocks
        self._engine = JoyFlash(self.files, self._parts, placement=self._placement)

    def about(self) -> dict:
        """Checkpoint, device and number format, for a report."""
        name, version = self.files.name, self.files.description.version
        dtype = str(self.dtype).removeprefix("torch.")
        shown = {"name": name, "version": version}
        return {"checkpoint": shown, "device": str(self.device), "dtype": dtype}

    def stream(
        self, reference: np.ndarray, waveform: np.ndarray, *, seed: int
    ) -> Iterator[np.ndarray]:
        """Chunks of frames ``(F, H, W, 3)`` uint8 that cover the 16 kHz waveform.

        The reference is a picture that is framed already, as the pack's are. Where the profile's
        pictures are larger it is enlarged by whole pixels, and the frames are averaged back.
        """
        yield from self._stream(self._engine, reference, waveform, seed)

    def stream_stretches(
        self,
        reference: np.ndarray,
        waveform: np.ndarray,
        *,
        seed: int,
        stretches: Sequence[tuple[int, int]],
    ) -> list[np.ndarray]:
        """Some frames of ``stream``, in a fraction of its time for a long waveform.

        Args:
            reference: As for ``stream``.
            waveform: As for ``stream``; all of it is sampled.
            seed: As for ``stream``.
            stretches: Frames ``(first, last + 1)``; they may overlap.

        Returns:
            Frames ``(F, H, W, 3)`` uint8 of each stretch.
        """
        scale = self._scale(len(reference))
        size = (scale * reference.shape[0], scale * reference.shape[1])
        codec: Codec = StretchCodec(self._codec, stretches, size)
        changed = replace(self._parts, codec=codec)
        engine = JoyFlash(self.files, changed, placement=self._placement)
        found: list[list[np.ndarray]] = [[] for _ in stretches]
        done = 0
        for frames in self._stream(engine, reference, waveform, seed):
            for (first, stop), parts in zip(stretches, found, strict=True):
                parts.append(frames[max(first - done, 0) : max(stop - done, 0)])
            done += len(frames)
        return [np.concatenate(parts) for parts in found]

    def _stream(
        self, engine: JoyFlash, reference: np.ndarray, waveform: np.ndarray, seed: int
    ) -> Iterator[np.ndarray]:
        scale = self._scale(len(reference))
        picture = _enlarged(reference, scale)
        face = Framed(picture, Similarity(1.0, 0.0, 0.0, 0.0), None, picture)
        audio = AudioClip(waveform.astype(np.float32)[:, None], MODEL_SAMPLE_RATE_HZ)
        request = RenderRequest(face, audio, seed=seed, look_ahead_blocks=self._look_ahead_blocks)
        for chunk in engine.stream(request):
            yield _reduced(chunk.frames, scale)

    def _scale(self, size_px: int) -> int:
        """How many times larger the profile's pictures are than these."""
        from joyflash_cli.media.inputs.framing import largest_size

        framed_px = largest_size(self.files.description.framing)[0]
        if framed_px % size_px:
            raise DataError(
                f"The profile's pictures are {framed_px} px; the clips have {size_px} px.",
                hint="record clips whose size divides the profile's",
            )
        return framed_px // size_px

    def reconstruct(self, frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Frames ``(4T - 3, H, W, 3)`` uint8 through the codec and back."""
        with torch.inference_mode():
            scale = self._scale(len(reference))
            picture = to_signed(_enlarged(reference, scale)[None]).to(self.device)
            clip = to_signed(_enlarged(frames, scale))[None].to(self.device)
            latents = self._codec.encode(clip, picture)
            decoded, _ = self._codec.decode(latents, self._codec.start_decoding(picture))
            return _reduced(to_levels(decoded[0]), scale)


class StretchCodec(DelegatingCodec):
    """``Codec`` that decodes the wanted frames only; all others come out grey.

    To look at minute five, four need not be drawn: latents between the stretches are skipped, and
    decoding starts again a little before each, as what the decoder remembers of the stream reaches
    back no further than its layers, one latent each.

    Args:
        codec: Decodes.
        stretches: Wanted frames as ``(first, last + 1)``.
        size: Rows and columns of frames.
    """

    def __init__(
        self, codec: Codec, stretches: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> None:
        super().__init__(codec)
        self._stretches, self._size = stretches, size

    def decode(
        self, latents: Float[Tensor, "B T C h w"], state: Any
    ) -> tuple[Float[Tensor, "B F 3 H W"], Any]:
        """Frames of the next latents, grey where no stretch is near."""
        chunks = []
        for offset in range(latents.shape[1]):
            index = state.num_latents
            if index == 0 or self._is_near(index):
                frames, state = super().decode(latents[:, offset : offset + 1], state)
            else:
                frames = latents.new_zeros(len(latents), FRAMES_PER_LATENT, 3, *self._size)
                # Skipped latents count: what the codec adds of its own has its place in the stream.
                state = replace(state, num_latents=index + 1)
            chunks.append(frames)
        return torch.cat(chunks, dim=1), state

    def _is_near(self, index: int) -> bool:
        first = FRAMES_PER_LATENT * index - 3  # latent i > 0 is frames 4i - 3 .. 4i
        reach = FRAMES_PER_LATENT * WARM_UP_LATENTS
        return any(
            start - reach < first + FRAMES_PER_LATENT and first < stop
            for start, stop in self._stretches
        )


def _enlarged(pictures: np.ndarray, scale: int) -> np.ndarray:
    """Pictures ``(..., H, W, 3)`` with every pixel ``scale`` times as large."""
    return pictures.repeat(scale, -3).repeat(scale, -2)


def _reduced(pictures: np.ndarray, scale: int) -> np.ndarray:
    """Means of ``scale`` x ``scale`` pixels of uint8 ``(..., H, W, 3)``."""
    if scale == 1:
        return pictures
    *batch, height, width, colours = pictures.shape
    cells = pictures.reshape(*batch, height // scale, scale, width // scale, scale, colours)
    return cells.mean((-4, -2)).round().astype(np.uint8)
