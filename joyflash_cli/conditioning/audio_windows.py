"""Which audio rows each latent frame hears: windows by absolute time.

Time: latent frame 0 is video frame 0, latent frame i >= 1 is video frames 4i-3 .. 4i. A window
depends on the latent's absolute index alone, never on the length of the clip, so a slice of a
stream equals the slice of the whole.

Three rules are in use:

* ``"video-rows"`` (OmniAvatar, LiveTalk, AvatarForcing): one row per video frame; latent 0 hears
  row 0 four times, latent i rows 4i-3 .. 4i.
* ``"own-frames-margin"`` (the embedded model): one row per video frame; latent i hears its own four
  frames and ``margin`` rows on either side, rows 4i-3-margin .. 4i+margin.
* ``"fantasytalking"``: rows at the encoder's own rate, a window around the latent's centre.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from joyflash_cli.config import check_ranges
from joyflash_cli.errors import ConfigError

TEMPORAL_STRIDE = 4
"""Video frames per latent frame after the first."""

# FantasyTalking widens its half-window by this many rows on either side.
_FANTASYTALKING_MARGIN = 4


@dataclass(frozen=True)
class AudioWindowRule:
    """How a checkpoint's training cut the audio rows into latent frames.

    Attributes:
        kind: One of the three rules of this module.
        margin: Rows on either side of a latent's own four, for ``"own-frames-margin"``.
        rows_per_frame: Rows per video frame, for ``"fantasytalking"``: the encoder's rate over
            the frame rate. The original takes it from the clip's length instead, which moves the
            windows of the same second by a row or so from clip to clip.

    Raises:
        ConfigError: If a number is out of range.
    """

    kind: Literal["video-rows", "own-frames-margin", "fantasytalking"]
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
        own = TEMPORAL_STRIDE
        return own if self.kind == "video-rows" else own + 2 * self.margin

    @property
    def lead_rows(self) -> int:
        """Rows before time zero that must be encoded from real silence."""
        return 3 + self.margin if self.kind == "own-frames-margin" else 0

    @property
    def _half_width(self) -> int:
        return int(2 * self.rows_per_frame)

    def row_indices(self, start: int, stop: int) -> Int[Tensor, "T A"]:
        """Rows of latent frames ``start <= i < stop``; row 0 is at time zero.

        ``"fantasytalking"`` and ``"own-frames-margin"`` reach before time zero.
        """
        if not 0 <= start <= stop:
            raise ConfigError(f"latent frames {start} to {stop} are no range")
        if self.kind == "fantasytalking":
            ends = torch.tensor(
                [self._fantasytalking_last_row(i) for i in range(start, stop)], dtype=torch.long
            )
        else:
            margin = self.margin if self.kind == "own-frames-margin" else 0
            ends = TEMPORAL_STRIDE * torch.arange(start, stop) + margin
        rows = ends[:, None] + torch.arange(1 - self.tokens_per_latent, 1)
        return rows.clamp_min(0) if self.kind == "video-rows" else rows

    def _fantasytalking_last_row(self, latent: int) -> int:
        """Last row of a latent's window (FantasyTalking, ``split_audio_sequence``)."""
        if latent == 0:
            # The first latent is one frame: its window ends where the next one's centre begins.
            return self._centre(1) - self._half_width + _FANTASYTALKING_MARGIN
        return self._centre(latent) + self._half_width + _FANTASYTALKING_MARGIN

    def _centre(self, latent: int) -> int:
        first_frame = TEMPORAL_STRIDE * (latent - 1) + 1
        last_frame = TEMPORAL_STRIDE * latent + 1
        return int(self.rows_per_frame * (first_frame + last_frame) / 2) - 1

    def num_rows(self, num_latents: int) -> int:
        """Rows from time zero that ``num_latents`` latent frames hear, without the lead."""
        if num_latents < 1:
            return 0
        return max(0, int(self.row_indices(num_latents - 1, num_latents).max()) + 1)


def audio_windows(
    rows: Float[Tensor, "B R D"],
    rule: AudioWindowRule,
    start: int,
    stop: int,
    *,
    lead_rows: int = 0,
) -> Float[Tensor, "B T A D"]:
    """Audio tokens of latent frames ``start <= i < stop``.

    Args:
        rows: Features; ``rows[:, lead_rows]`` is at time zero.
        rule: The checkpoint's rule.
        start: First latent frame.
        stop: Latent frame after the last.
        lead_rows: Rows of silence in front, encoded together with the sound.

    Returns:
        Tokens. For ``"fantasytalking"``, rows outside the clip are zero, as in the original, which
        also masks them: ``audio_window_mask`` tells which.

    Raises:
        ConfigError: If another rule needs a row outside the clip: encode more silence.
    """
    inside = audio_window_mask(rule, start, stop, num_rows=rows.shape[1], lead_rows=lead_rows)
    if rule.kind != "fantasytalking" and not bool(inside.all()):
        raise ConfigError(
            f"latent frames {start} to {stop} need audio rows outside the {rows.shape[1]} encoded "
            f"ones ({lead_rows} of them before time zero)",
            hint=f"encode {rule.lead_rows} rows of silence in front and "
            f"{rule.num_rows(stop)} rows from time zero",
        )
    indices = rule.row_indices(start, stop) + lead_rows
    chosen = rows[:, indices.clamp(0, rows.shape[1] - 1).to(rows.device)]
    return torch.where(inside.to(rows.device)[None, :, :, None], chosen, 0.0)


def audio_window_mask(
    rule: AudioWindowRule, start: int, stop: int, *, num_rows: int, lead_rows: int = 0
) -> Bool[Tensor, "T A"]:
    """Which tokens of ``audio_windows`` are rows of the clip rather than zeros.

    Args:
        rule: The checkpoint's rule.
        start: First latent frame.
        stop: Latent frame after the last.
        num_rows: Rows encoded, the lead included.
        lead_rows: Rows before time zero among them.
    """
    indices = rule.row_indices(start, stop) + lead_rows
    return (indices >= 0) & (indices < num_rows)


def num_latents_for(num_video_frames: int) -> int:
    """Latent frames T that cover this many video frames: the least T with 4T-3 >= frames."""
    if num_video_frames < 1:
        raise ConfigError(f"{num_video_frames} video frames are no clip")
    return 1 + math.ceil((num_video_frames - 1) / TEMPORAL_STRIDE)


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
