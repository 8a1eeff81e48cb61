"""Conditioning of a whole file, encoded at once: what a stream of the same sound is held to."""

import math

from torch import Tensor
from torch.nn import functional

from joyflash_cli.conditioning.frames import (
    AudioWindowRule,
    assemble_image_channels,
    audio_window_mask,
    audio_windows,
)
from joyflash_cli.conditioning.stream import StaticConditioning
from joyflash_cli.errors import ConfigError
from joyflash_cli.types import FRAMES_PER_LATENT, MODEL_SAMPLE_RATE_HZ, Conditioning


def num_latents_for(num_video_frames: int) -> int:
    """Latent frames T that cover this many video frames: the least T with 4T-3 >= frames."""
    if num_video_frames < 1:
        raise ConfigError(f"{num_video_frames} video frames are no clip")
    return 1 + math.ceil((num_video_frames - 1) / FRAMES_PER_LATENT)


def num_blocks_for(num_video_frames: int, block_frames: int, *, prefix_frames: int = 0) -> int:
    """Blocks that cover this many video frames, at least one.

    Args:
        num_video_frames: Frames of the finished video.
        block_frames: Latent frames per block.
        prefix_frames: Latent frames before the first block that are given, not sampled
            (AvatarForcing: the reference latent is latent frame 0).
    """
    sampled = max(1, num_latents_for(num_video_frames) - prefix_frames)
    return math.ceil(sampled / block_frames)


class FileConditioning:
    """``ConditioningSource`` of rows ``(B, R, D)`` known from the start; ``lead_rows`` before 0."""

    def __init__(
        self, rows: Tensor | None, rule: AudioWindowRule, *, static: StaticConditioning,
        num_blocks: int, block_frames: int, lead_rows: int = 0,
    ) -> None:  # fmt: skip
        self.num_blocks, self.num_latents = num_blocks, num_blocks * block_frames
        self._rows, self._rule, self._static, self._lead_rows = rows, rule, static, lead_rows

    def has_block(self, block_index: int) -> bool:
        """Whether the stream has this block."""
        return block_index < self.num_blocks

    def frames(self, start: int, stop: int) -> Conditioning:
        """Conditioning of latent frames ``start <= i < stop``."""
        static = self._static
        image = audio = mask = None
        if static.reference_latents is not None:
            image = assemble_image_channels(
                static.reference_latents, start, stop, convention=static.convention
            )
        if self._rows is not None:
            lead = {"lead_rows": self._lead_rows}
            audio = audio_windows(self._rows, self._rule, start, stop, **lead)
            inside = audio_window_mask(
                self._rule, start, stop, num_rows=self._rows.shape[1], **lead
            )
            mask = None if inside.all() else inside
        return Conditioning(
            image=image,
            text=static.text,
            image_tokens=static.image_tokens,
            audio=audio,
            face=static.face,
            audio_mask=mask,
        )


def conditioning_from_audio(
    encoder, waveform: Tensor, rule: AudioWindowRule, *, static: StaticConditioning, fps: float,
    block_frames: int, num_video_frames: int | None = None,
) -> FileConditioning:  # fmt: skip
    """Encode a clip, mono at 16 kHz, with silence before and after it."""
    # Rounding keeps a duration that is a whole number of frames from gaining one by float error.
    covering = math.ceil(round(waveform.numel() * fps / MODEL_SAMPLE_RATE_HZ, 6))
    num_blocks = num_blocks_for(num_video_frames or max(1, covering), block_frames)
    num_rows = rule.lead_rows + rule.num_rows(num_blocks * block_frames)
    samples_per_row = MODEL_SAMPLE_RATE_HZ / encoder.feature_rate_hz
    before = round(rule.lead_rows * samples_per_row)
    after = max(0, math.ceil(num_rows * samples_per_row) - before - waveform.numel())
    rows = encoder.encode(functional.pad(waveform, (before, after)), num_rows)
    return FileConditioning(
        rows[None], rule, static=static, num_blocks=num_blocks, block_frames=block_frames,
        lead_rows=rule.lead_rows,
    )  # fmt: skip
