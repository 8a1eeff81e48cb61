"""Conditioning of a whole file: everything is known before sampling begins."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from joyflash_cli.conditioning.audio_windows import (
    AudioWindowRule,
    audio_window_mask,
    audio_windows,
    num_blocks_for,
)
from joyflash_cli.conditioning.reference import ImageConvention, assemble_image_channels
from joyflash_cli.encoders.protocol import AudioEncoder
from joyflash_cli.errors import AudioError, ConfigError
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ, Conditioning


@dataclass(frozen=True)
class StaticConditioning:
    """What stays the same over a stream; absent kinds are ``None``.

    Attributes:
        reference_latents: ``(B, C, h, w)`` or, for ``"wan-i2v"``, ``(B, R, C, h, w)``; ``None`` for
            models without image channels.
        convention: How the image channels are put together.
        text: ``(B, L, D)``.
        image_tokens: ``(B, L, D)``.
        face: ``(B, 512)``.
    """

    reference_latents: Tensor | None = None
    convention: ImageConvention = "avatar"
    text: Tensor | None = None
    image_tokens: Tensor | None = None
    face: Tensor | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "StaticConditioning":
        """The same on another device and in another number format."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device=device, dtype=dtype)

        return StaticConditioning(
            reference_latents=move(self.reference_latents),
            convention=self.convention,
            text=move(self.text),
            image_tokens=move(self.image_tokens),
            face=move(self.face),
        )


class FileConditioning:
    """``ConditioningSource`` whose audio is all there: ``frames`` cuts windows on demand.

    Args:
        audio_rows: Features of the clip, ``audio_rows[:, lead_rows]`` at time zero; ``None`` for
            models that hear nothing.
        rule: Windows of the audio.
        static: Everything that does not change over time.
        num_blocks: Blocks of the stream.
        block_frames: Latent frames per block.
        lead_rows: Rows before time zero.
        prefix_frames: Given latent frames before block 0.
        device: Where conditioning is handed out.
        dtype: Number format it is handed out in.

    Raises:
        ConfigError: If there is no block or the rows do not reach the last one.
    """

    def __init__(
        self,
        audio_rows: Float[Tensor, "B R D"] | None,
        rule: AudioWindowRule,
        *,
        static: StaticConditioning,
        num_blocks: int,
        block_frames: int,
        lead_rows: int = 0,
        prefix_frames: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if num_blocks < 1 or block_frames < 1:
            raise ConfigError(f"a stream of {num_blocks} blocks of {block_frames} frames is empty")
        self.num_blocks = num_blocks
        self.num_latents = prefix_frames + num_blocks * block_frames
        self._rule = rule
        self._lead_rows = lead_rows
        self._rows = None if audio_rows is None else audio_rows.to(device=device, dtype=dtype)
        self._static = static.to(device, dtype)
        if self._rows is not None:
            # Fail here, not in the middle of a render, when the rows end too early.
            audio_windows(
                self._rows, rule, self.num_latents - 1, self.num_latents, lead_rows=lead_rows
            )

    def has_block(self, block_index: int) -> bool:
        """Whether the stream has this block."""
        return 0 <= block_index < self.num_blocks

    def frames(self, start: int, stop: int) -> Conditioning:
        """Conditioning of latent frames ``start <= i < stop``, the prefix frames counted.

        Raises:
            ConfigError: If the range is not within the stream.
        """
        if not 0 <= start <= stop <= self.num_latents:
            raise ConfigError(
                f"latent frames {start} to {stop} are not in a stream of {self.num_latents}"
            )
        static = self._static
        image = audio = audio_mask = None
        if static.reference_latents is not None:
            image = assemble_image_channels(
                static.reference_latents, start, stop, convention=static.convention
            )
        if self._rows is not None:
            audio = audio_windows(self._rows, self._rule, start, stop, lead_rows=self._lead_rows)
            inside = audio_window_mask(
                self._rule, start, stop, num_rows=self._rows.shape[1], lead_rows=self._lead_rows
            )
            if not bool(inside.all()):
                audio_mask = inside.to(audio.device)
        return Conditioning(
            image=image,
            text=static.text,
            image_tokens=static.image_tokens,
            audio=audio,
            face=static.face,
            audio_mask=audio_mask,
        )


def video_frames_for(num_samples: int, fps: float) -> int:
    """Video frames that cover this many 16 kHz samples: ``ceil(duration * fps)``, at least one."""
    # Rounding keeps a duration that is a whole number of frames from gaining one by float error.
    return max(1, math.ceil(round(num_samples * fps / MODEL_SAMPLE_RATE_HZ, 6)))


def conditioning_from_audio(
    encoder: AudioEncoder,
    waveform: Float[Tensor, " samples"],
    rule: AudioWindowRule,
    *,
    static: StaticConditioning,
    fps: float,
    block_frames: int,
    prefix_frames: int = 0,
    num_video_frames: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> FileConditioning:
    """Encode a clip, with silence before and after it, and make its conditioning.

    Args:
        encoder: Sound to feature rows.
        waveform: Mono samples at 16 kHz.
        rule: Windows of the audio.
        static: Everything that does not change over time.
        fps: Video frames per second.
        block_frames: Latent frames per block.
        prefix_frames: Given latent frames before block 0.
        num_video_frames: Frames of the finished video, when the caller knows them from the
            original sound; otherwise the waveform's duration decides.
        device: Where conditioning is handed out.
        dtype: Number format it is handed out in.

    Raises:
        AudioError: If the waveform is empty.
        ConfigError: If the encoder's row rate does not fit rule and frame rate.
    """
    if waveform.ndim != 1 or waveform.numel() == 0:
        raise AudioError(
            f"audio of shape {tuple(waveform.shape)} cannot steer a video",
            hint="give mono sound with at least one sample",
            code="E-AUDIO-EMPTY",
        )
    check_rate(encoder, rule, fps)
    num_frames = num_video_frames or video_frames_for(waveform.numel(), fps)
    num_blocks = num_blocks_for(num_frames, block_frames, prefix_frames=prefix_frames)
    lead_rows = rule.lead_rows
    num_rows = lead_rows + rule.num_rows(prefix_frames + num_blocks * block_frames)
    samples_per_row = MODEL_SAMPLE_RATE_HZ / encoder.feature_rate_hz
    before = round(lead_rows * samples_per_row)
    after = max(0, math.ceil(num_rows * samples_per_row) - before - waveform.numel())
    rows = encoder.encode(functional.pad(waveform, (before, after)), num_rows)
    return FileConditioning(
        rows[None],
        rule,
        static=static,
        num_blocks=num_blocks,
        block_frames=block_frames,
        lead_rows=lead_rows,
        prefix_frames=prefix_frames,
        device=device,
        dtype=dtype,
    )


def check_rate(encoder: AudioEncoder, rule: AudioWindowRule, fps: float) -> None:
    """Refuse an encoder whose rows would drift against the frames."""
    rows_per_frame = rule.rows_per_frame if rule.kind == "fantasytalking" else 1.0
    expected = fps * rows_per_frame
    if not math.isclose(encoder.feature_rate_hz, expected, rel_tol=1e-9):
        raise ConfigError(
            f"the audio encoder gives {encoder.feature_rate_hz:g} rows per second, "
            f"the windows need {expected:g} at {fps:g} fps",
            hint="set the encoder's rate to the profile's frame rate",
        )
