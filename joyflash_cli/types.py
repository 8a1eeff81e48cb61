"""Values that travel between the parts, and the shape legend.

Legend: B batch, T latent frames, F video frames, C channels, H W latent grid (or picture rows and
columns), L tokens, D width, N heads, K head width, S context tokens, A audio tokens per latent
frame. Latents are ``(B, T, C, H, W)``; attention tensors ``(B, L, N, K)``; frames handed to media
are ``(F, H, W, 3)`` uint8.
"""

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

LACKS_FLOAT64 = ("mps",)
"""Kinds of devices that do not compute in float64."""

MODEL_SAMPLE_RATE_HZ = 16_000
"""Sample rate of the mono signal every audio encoder hears."""

FRAMES_PER_LATENT = 4
"""Video frames of every latent frame but the first, which stands for one."""

BLINK_SHAPE = (0.4, 1.0, 1.0, 1.0, 0.8, 0.5, 0.25, 0.1)
"""Lid closure over the frames of one blink at 25 fps: quick down, slower up."""


def exact_rate(fps: float | Fraction) -> Fraction:
    """Frames per second as a fraction, the same everywhere.

    25 stays 25; 23.98, 29.97, 59.94 and the like are short for 24000/1001, 30000/1001, 60000/1001.
    """
    if isinstance(fps, Fraction):
        return fps
    for rate in (24, 30, 48, 60, 120, 240):
        if abs(fps - rate * 1000 / 1001) < 5e-3:
            return Fraction(rate * 1000, 1001)
    return Fraction(fps).limit_denominator(1001)


def in_float64(values: "Tensor") -> "Tensor":
    """``values`` in float64: on their device, or on the CPU where it has none.

    For small tables. What is computed from them goes back to the device in another number format.
    """
    exact = values.cpu() if values.device.type in LACKS_FLOAT64 else values
    return exact.double()


def to_signed(frames: "np.ndarray") -> "Tensor":
    """uint8 ``(..., H, W, 3)`` as float32 ``(..., 3, H, W)`` in -1..1."""
    import torch

    return torch.from_numpy(frames.copy()).movedim(-1, -3).float() / 127.5 - 1.0


def to_levels(pictures: "Tensor") -> "np.ndarray":
    """Pictures ``(..., 3, H, W)`` in -1..1 as uint8 ``(..., H, W, 3)``."""
    import torch

    levels = ((pictures.float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
    return levels.movedim(-3, -1).contiguous().cpu().numpy()


def on_device(values: "Tensor", device: "torch.device | str") -> "Tensor":
    """``values`` on ``device``; from the CPU to a GPU they are queued, and nothing waits."""
    import torch

    if torch.device(device).type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def finest_dtype(device: "torch.device") -> "torch.dtype":
    """The most precise number format that a device computes in."""
    import torch

    return torch.float32 if device.type in LACKS_FLOAT64 else torch.float64


@dataclass(frozen=True)
class AudioClip:
    """Sound as it was given.

    Attributes:
        samples: ``(n, channels)`` float32 in -1..1.
        sample_rate_hz: Samples per second and channel.
    """

    samples: "np.ndarray"
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate_hz


@dataclass(frozen=True)
class SoundFormat:
    """What is known of a sound before its samples.

    Attributes:
        sample_rate_hz: Samples per second and channel.
        channels: Channels.
    """

    sample_rate_hz: int
    channels: int


@dataclass(frozen=True)
class Square:
    """Where a square lies in a picture: turned, scaled and moved, never stretched.

    Positions are in pixels of the picture; the middle of its first pixel is (0.5, 0.5).

    Attributes:
        left: Position of the square's own upper left corner.
        top: Likewise.
        side: Length of a side.
        angle: How far the square is turned clockwise about that corner, radians.
    """

    left: float
    top: float
    side: float
    angle: float = 0.0

    def point(self, across: float, down: float) -> tuple[float, float]:
        """Position in the picture of a place in the square, both 0..1."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        x = self.left + self.side * (cosine * across - sine * down)
        y = self.top + self.side * (sine * across + cosine * down)
        return x, y

    def bounds(self) -> tuple[float, float, float, float]:
        """The upright box around it: left, top, right, bottom."""
        corners = [self.point(across, down) for across in (0, 1) for down in (0, 1)]
        columns, rows = zip(*corners, strict=True)
        return min(columns), min(rows), max(columns), max(rows)

    def rounded(self) -> dict[str, float]:
        """Its four numbers for a record."""
        return {name: round(value, 4) for name, value in vars(self).items()}

    def seen(self, *, left: float = 0.0, top: float = 0.0, scale: float = 1.0) -> "Square":
        """The same square in a picture that was cut at ``left`` and ``top``, then scaled."""
        return replace(
            self,
            left=(self.left - left) * scale,
            top=(self.top - top) * scale,
            side=self.side * scale,
        )


@dataclass(frozen=True)
class Scene:
    """The picture that a video shows, and the square in it that moves.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 RGB, in the video's size.
        square: What the model sees, where it lies in these pixels.
        goes_on: Whether the picture goes on beyond the square.
    """

    pixels: "np.ndarray"
    square: Square
    goes_on: bool

    @property
    def size_px(self) -> tuple[int, int]:
        """``(width, height)``."""
        height, width = self.pixels.shape[:2]
        return int(width), int(height)


@dataclass(frozen=True)
class Conditioning:
    """What steers the transformer, for a run of T latent frames; absent kinds are ``None``.

    Attributes:
        image: Channels concatenated to the noisy latents, ``(B, T, C, H, W)``: the reference
            latent and the mask in the order the checkpoint was trained with.
        text: Text encoder states, zero-padded, ``(B, L, D)``.
        negative_text: What guidance by text leads away from, as ``text``.
        image_tokens: CLIP states of the reference picture, ``(B, L, D)``.
        audio: Audio features of each latent frame, ``(B, T, A, D)``.
        face: Face embedding, ``(B, 512)``.
        audio_mask: False where an audio token lies outside the clip and is not attended,
            ``(T, A)``; ``None`` when all are inside.
    """

    image: "Tensor | None" = None
    text: "Tensor | None" = None
    negative_text: "Tensor | None" = None
    image_tokens: "Tensor | None" = None
    audio: "Tensor | None" = None
    face: "Tensor | None" = None
    audio_mask: "Tensor | None" = None

    def with_frames(self, **changes: Any) -> "Conditioning":
        """The same conditioning with some kinds replaced."""
        return replace(self, **changes)

    def followed_by(self, later: "Conditioning") -> "Conditioning":
        """Of these latent frames and ``later`` ones behind them, with ``later``'s static kinds."""
        import torch

        changes = {}
        if self.image is not None and later.image is not None:
            changes["image"] = torch.cat((self.image, later.image), dim=1)
        if self.audio is not None and later.audio is not None:
            changes["audio"] = torch.cat((self.audio, later.audio), dim=1)
            if self.audio_mask is not None or later.audio_mask is not None:
                everything = [
                    torch.ones(audio.shape[1:3], dtype=torch.bool, device=audio.device)
                    for audio in (self.audio, later.audio)
                ]
                masks = (self.audio_mask, later.audio_mask)
                pairs = zip(masks, everything, strict=True)
                changes["audio_mask"] = torch.cat([a if b is None else b for b, a in pairs])
        return replace(later, **changes)


@runtime_checkable  # so that tests may check annotations
class ConditioningSource(Protocol):
    """Conditioning of a stream whose length may not be known yet."""

    def has_block(self, block_index: int) -> bool:
        """Whether the stream has this block; may wait for input."""
        ...

    def frames(self, start: int, stop: int) -> Conditioning:
        """Conditioning of latent frames ``start <= i < stop``."""
        ...


@dataclass(frozen=True)
class LatentBlock:
    """One clean block as it leaves the sampler.

    Attributes:
        index: Position in the stream, from 0.
        latents: ``(B, T, C, H, W)``, T the block length.
        num_steps: Denoising steps the block took.
        iteration: Iteration of the window after which it was clean, from 1.
        wall_s: Seconds since the previous block (or the start).
        frames: Those that the block shows, ``(B, F, 3, H, W)`` uint8, where the sampler itself had
            to decode it; ``None`` otherwise.
    """

    index: int
    latents: "Tensor"
    num_steps: int
    iteration: int
    wall_s: float = 0.0
    frames: "Tensor | None" = None


@dataclass(frozen=True)
class FrameChunk:
    """Decoded frames of one block with the run's own statistics.

    Attributes:
        index: Block index, from 0.
        num_blocks: Blocks of the whole stream, ``None`` while unknown.
        frames: ``(F, H, W, 3)`` uint8 RGB, already trimmed to the audio's length.
        first_frame: Index of ``frames[0]`` in the video.
        elapsed_s: Wall seconds since sampling began.
        stats: Seconds by stage of this block.
        sound: The original sound that belongs to these frames; ``None`` where it was not kept.
    """

    index: int
    num_blocks: int | None
    frames: "np.ndarray"
    first_frame: int
    elapsed_s: float
    stats: dict[str, float] = field(default_factory=dict)
    sound: AudioClip | None = None
