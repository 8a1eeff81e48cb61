"""What a checkpoint's ``conditioning`` section says: how its inputs were made in training."""

import math
from dataclasses import dataclass
from typing import Literal

from joyflash_cli.config import check_ranges
from joyflash_cli.errors import ConfigError
from joyflash_cli.types import FRAMES_PER_LATENT

# FantasyTalking widens its half-window by this many rows on either side.
_FANTASYTALKING_MARGIN = 4

ImageConvention = Literal["avatar", "avatar-first-frame", "wan-i2v", "clip"]
"""``"avatar"``: 16 reference channels, then one mask channel, 0 = known (OmniAvatar family).
``"avatar-first-frame"``: the same, but the reference stands beside latent frame 0 only.
``"wan-i2v"``: 4 mask channels, 1 = known, then 16 channels of the padded clip (Wan 2.1).
``"clip"``: no mask; 16 channels of the picture as a clip that stands still (FlashHead)."""


@dataclass(frozen=True)
class AudioWindowRule:
    """How a checkpoint's training cut the audio rows into latent frames.

    Attributes:
        kind: One of the three rules of ``conditioning.frames``, or ``"segment"``: rows around
            every frame of a segment, see ``conditioning.segments``.
        margin: Rows on either side of a latent's own four, for ``"own-frames-margin"``; of each
            frame's own one, for ``"segment"``.
        rows_per_frame: Rows per video frame, for ``"fantasytalking"``: the encoder's rate over
            the frame rate. The original takes it from the clip's length instead, which moves the
            windows of the same second by a row or so from clip to clip.

    Raises:
        ConfigError: If a number is out of range.
    """

    kind: Literal["video-rows", "own-frames-margin", "fantasytalking", "segment"]
    margin: int = 2
    rows_per_frame: float = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, {"margin": (-math.inf, 1000), "rows_per_frame": (-math.inf, 1000)})
        if self.margin < 0 or self.rows_per_frame <= 0:
            raise ConfigError(
                f"an audio window cannot have margin {self.margin} and {self.rows_per_frame:g} "
                "rows per video frame",
                hint="give a margin >= 0 and a rate > 0",
            )

    @property
    def tokens_per_latent(self) -> int:
        """Rows A that every latent frame hears."""
        if self.kind == "fantasytalking":
            return 2 * (self._half_width + _FANTASYTALKING_MARGIN) + 1
        own = FRAMES_PER_LATENT
        return own if self.kind == "video-rows" else own + 2 * self.margin

    @property
    def lead_rows(self) -> int:
        """Rows before time zero that must be encoded from real silence."""
        return 3 + self.margin if self.kind == "own-frames-margin" else 0

    @property
    def _half_width(self) -> int:
        return int(2 * self.rows_per_frame)

    def last_row(self, latent: int) -> int:
        """Last row that a latent frame hears; row 0 is at time zero."""
        if self.kind == "fantasytalking":
            return self._fantasytalking_last_row(latent)
        return FRAMES_PER_LATENT * latent + (self.margin if self.kind == "own-frames-margin" else 0)

    def _fantasytalking_last_row(self, latent: int) -> int:
        """Last row of a latent's window (FantasyTalking, ``split_audio_sequence``)."""
        if latent == 0:
            # The first latent is one frame: its window ends where the next one's centre begins.
            return self._centre(1) - self._half_width + _FANTASYTALKING_MARGIN
        return self._centre(latent) + self._half_width + _FANTASYTALKING_MARGIN

    def _centre(self, latent: int) -> int:
        first_frame = FRAMES_PER_LATENT * (latent - 1) + 1
        last_frame = FRAMES_PER_LATENT * latent + 1
        return int(self.rows_per_frame * (first_frame + last_frame) / 2) - 1

    def num_rows(self, num_latents: int) -> int:
        """Rows from time zero that ``num_latents`` latent frames hear, without the lead."""
        return 0 if num_latents < 1 else max(0, self.last_row(num_latents - 1) + 1)


@dataclass(frozen=True)
class ConditioningConfig:
    """How pictures, sound and text become conditioning.

    Attributes:
        audio_windows: Which audio rows each latent frame hears.
        image_convention: How the reference latents are concatenated.
        padded_clip_latents: For ``"wan-i2v"``: latent frames of the picture followed by empty
            frames; a longer stream repeats the last one. 21 are the 81 frames of training.
        default_prompt: What models with text are told when the user gives no prompt.
        negative_prompt: What guidance by text leads away from; empty for models without it.
        text_encoder: Fingerprint of the text encoder; prompts are kept by it.
        face_models: Pack of insightface models for the face tokens; empty for models without.
    """

    audio_windows: AudioWindowRule = AudioWindowRule("own-frames-margin", margin=2)
    image_convention: ImageConvention = "avatar"
    padded_clip_latents: int = 21
    default_prompt: str = ""
    negative_prompt: str = ""
    text_encoder: str = ""
    face_models: str = ""

    def __post_init__(self) -> None:
        check_ranges(self, {"padded_clip_latents": (1, 10_000)})

    def prompts(self, prompt: str) -> tuple[str, ...]:
        """What is encoded: the user's prompt or the default one, and the negative one."""
        wanted = prompt or self.default_prompt
        return (wanted, self.negative_prompt) if self.negative_prompt else (wanted,)
