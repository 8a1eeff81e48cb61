"""How a model without a cache is sampled: whole segments, each after the end of the one before."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from joyflash_cli import config as strict
from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.types import FRAMES_PER_LATENT

TOKEN_PX = 16
"""Side of what a token shows: two latents of eight pixels each."""

EVEN_STEPS = {4: (1000.0, 750.0, 500.0, 250.0), 2: (1000.0, 500.0)}
"""Nominal steps of these numbers in FlashHead and LeapTalk; any other is spread over 1000..1."""


def nominal_steps(number: int) -> tuple[float, ...]:
    """The nominal steps of a number of steps, noisiest first, as FlashHead and LeapTalk take them.

    Raises:
        ConfigError: If it is not positive.
    """
    _check_number(number)
    if number in EVEN_STEPS:
        return EVEN_STEPS[number]
    return tuple(1000.0 - 999.0 * i / max(number - 1, 1) for i in range(number))


def _check_number(number: int) -> None:
    if not 1 <= number <= 1000:
        raise ConfigError(f"{number} steps are not possible", hint="1 to 1000 are")


def even_steps(number: int) -> tuple[float, ...]:
    """The nominal steps of a number of equal steps from 1000 to 0, as OmniAvatar takes them.

    Raises:
        ConfigError: If it is not possible.
    """
    _check_number(number)
    return tuple(1000.0 - 1000.0 * i / number for i in range(number))


@dataclass(frozen=True)
class SegmentSettings:
    """How a model is sampled in segments; travels with the checkpoint.

    Lengths are in latent frames. The defaults are FlashHead's. A segment's frames attend each other
    both ways. Its first frames, the prefix, are known: the reference's in the first segment, later
    what the end of the segment before encodes to.

    Attributes:
        segment_frames: Length of a segment.
        overlap_frames: Length of the prefix from the second segment on; in the first it is 1.
        steps: Nominal steps 1..1000, noisiest first (before warping).
        shift: Warp of the noise levels.
        solver: ``renoise``: from noise, each step predicts the clean segment and adds fresh noise
            of the next level (FlashHead). ``bridge``: from the reference's latents, each step moves
            along the flow, with noise in all but the last (LeapTalk). ``euler``: from noise, each
            step moves along the flow to the next level, the last to 0 (OmniAvatar).
        audio_guidance: Weight of the audio; 1 is none. Another value costs a second pass of each
            step, without the audio.
        text_guidance: Weight of the prompt against the negative prompt, for models with text; 1 is
            no guidance at all, by audio neither. The same weight as the audio's costs a second pass
            with the negative prompt and without audio; another one a third, with the prompt alone.
            ``None`` guides by audio only.
        max_tokens: Most tokens of a segment: the picture's size decides how long one is, see
            ``for_size``. ``None`` leaves it at ``segment_frames``.
        colour_match: Share of colours that are matched to the reference, 0..1.
        timestep_dtype: Precision of the timesteps the network is fed.
        sigma_dtype: Precision of the noise levels of ``renoise``.
        sound: ``whole``: the sound is encoded once, and the first segment is shown from its first
            frame on. ``ring``: of each segment the ``ring_s`` seconds before its end are encoded,
            and what lies under the overlap is never shown.
        ring_s: Length of the ring.
        fps: Video frames per second.
    """

    segment_frames: int = 9
    overlap_frames: int = 2
    steps: tuple[float, ...] = EVEN_STEPS[4]
    shift: float = 5.0
    solver: Literal["renoise", "bridge", "euler"] = "renoise"
    audio_guidance: float = 1.0
    text_guidance: float | None = None
    max_tokens: int | None = None
    colour_match: float = 1.0
    timestep_dtype: Literal["float32", "bfloat16"] = "float32"
    sigma_dtype: Literal["float32", "bfloat16"] = "float32"
    sound: Literal["whole", "ring"] = "whole"
    ring_s: float = 8.0
    fps: int = 25

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        strict.check_ranges(
            self,
            {
                "segment_frames": (2, 256),
                "overlap_frames": (1, 255),
                "shift": (1e-3, 1000.0),
                **dict.fromkeys(("audio_guidance", "text_guidance"), (-1000.0, 1000.0)),
                "max_tokens": (1, 1 << 24),
                "colour_match": (0.0, 1.0),
                "ring_s": (0.1, 600.0),
                "fps": (1, 240),
            },
        )
        if self.overlap_frames >= self.segment_frames:
            raise ConfigError(
                f"overlap_frames is {self.overlap_frames}; a segment of {self.segment_frames} "
                "frames must be longer"
            )
        steps = self.steps
        if not steps or len(steps) > 1000 or any(not 1 <= step <= 1000 for step in steps):
            raise ConfigError(f"steps {steps!s:.80} must lie in 1..1000, one to 1000 of them")
        if any(a <= b for a, b in zip(steps, steps[1:], strict=False)):
            raise ConfigError(f"steps {steps!s:.80} must strictly decrease")
        if self.solver == "euler" and steps != even_steps(len(steps)):
            raise ConfigError(
                f"steps {steps!s:.80} must be even from 1000 on for the solver 'euler'"
            )
        if self.ring_s * self.fps < self.segment_video_frames:
            raise ConfigError(
                f"ring_s is {self.ring_s:g}; a segment has {self.segment_video_frames} frames at "
                f"{self.fps} a second"
            )

    @property
    def passes_per_step(self) -> int:
        """Passes of the network in a step: 1 without guidance, 3 by text and audio apart."""
        if self.text_guidance is None:
            return 1 if self.audio_guidance == 1 else 2
        if self.text_guidance == 1:
            return 1
        return 2 if self.text_guidance == self.audio_guidance else 3

    @property
    def needs_audio_free_pass(self) -> bool:
        """Whether every step also runs without audio."""
        return self.passes_per_step > 1

    @property
    def passes_per_block(self) -> int:
        """Passes of the network that a segment takes."""
        return len(self.steps) * self.passes_per_step

    def for_size(self, width: int, height: int) -> "SegmentSettings":
        """The settings for pictures of this size, in pixels: as long as ``max_tokens`` allows.

        Video frames of a segment are the greatest number 4n + 1 that is at most one above what the
        tokens cover; a multiple of four counts as one less (OmniAvatar).

        Raises:
            ConfigError: If a segment would not be longer than the overlap.
        """
        if self.max_tokens is None:
            return self
        covered = self.max_tokens * TOKEN_PX * TOKEN_PX * FRAMES_PER_LATENT // (width * height)
        latents = covered // FRAMES_PER_LATENT + (1 if covered % FRAMES_PER_LATENT else 0)
        if latents <= self.overlap_frames:
            raise ConfigError(
                f"{self.max_tokens} tokens are {latents} latent frames of {width} x {height} "
                f"pixels; segments that overlap by {self.overlap_frames} must be longer",
                hint="take a smaller picture, or raise max_tokens",
            )
        return replace(self, segment_frames=latents)

    @property
    def first_block_frame(self) -> int:
        """Latent frames before the first segment: none."""
        return 0

    @property
    def window_frames(self) -> int:
        """Latent frames of a pass: a segment."""
        return self.segment_frames

    @property
    def cached_frames(self) -> int:
        """Frames that are kept for later passes: none."""
        return 0

    @property
    def num_window_blocks(self) -> int:
        """Blocks denoised together: a segment at a time."""
        return 1

    @property
    def block_frames(self) -> int:
        """New latent frames of a segment: its length without the overlap."""
        return self.segment_frames - self.overlap_frames

    @property
    def segment_video_frames(self) -> int:
        """Video frames that a segment decodes to."""
        return FRAMES_PER_LATENT * (self.segment_frames - 1) + 1

    @property
    def overlap_video_frames(self) -> int:
        """Video frames that the prefix is encoded from, from the second segment on."""
        return FRAMES_PER_LATENT * (self.overlap_frames - 1) + 1

    @property
    def stride_video_frames(self) -> int:
        """New video frames of a segment."""
        return self.segment_video_frames - self.overlap_video_frames

    def first_shown(self, block_index: int) -> int:
        """First video frame of a segment, counted in it, that is shown."""
        is_whole = block_index == 0 and self.sound == "whole"
        return 0 if is_whole else self.overlap_video_frames

    def block_start(self, block_index: int) -> int:
        """Latent frame of the stream at which a segment begins, its prefix included."""
        return block_index * self.block_frames

    def num_latents(self, num_blocks: int) -> int:
        """Latent frames that this many segments cover."""
        return self.block_start(num_blocks - 1) + self.segment_frames

    def video_start(self, block_index: int) -> int:
        """First video frame that leaves with a segment."""
        start = block_index * self.stride_video_frames
        return start + self.first_shown(block_index) if self.sound == "whole" else start

    def num_blocks(self, num_video_frames: int) -> int:
        """Segments to sample for this many video frames, at least one; the surplus is dropped.

        Raises:
            ConfigError: If the number is not positive.
        """
        if num_video_frames < 1:
            raise ConfigError(f"A stream of {num_video_frames} video frames has no latents.")
        in_first = self.segment_video_frames - self.first_shown(0)
        return 1 + max(0, math.ceil((num_video_frames - in_first) / self.stride_video_frames))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, their kind among them."""
        return {"kind": "segments", **strict.to_dict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SegmentSettings":
        """The settings of ``to_dict``; unknown keys raise ``ConfigError``."""
        return strict.from_dict(cls, {k: v for k, v in values.items() if k != "kind"})


AnySettings = SamplerSettings | SegmentSettings
"""How a checkpoint is sampled: blocks behind a cache, or segments."""
