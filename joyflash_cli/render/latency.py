"""How long a live picture takes: what the profile alone decides, without measuring anything."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from joyflash_cli.conditioning.config import AudioWindowRule
    from joyflash_cli.encoders.protocol import StreamingEncoder
    from joyflash_cli.sampler.segment_settings import AnySettings
    from joyflash_cli.sampler.settings import SamplerSettings


@dataclass(frozen=True)
class Latency:
    """What a live stream must wait for.

    Attributes:
        look_ahead_blocks: Blocks whose sound is heard beyond the one that leaves.
        look_ahead_s: Sound needed beyond the end of the block that leaves: those blocks, and what
            window margin and encoder hear after them.
        block_s: Duration of a block; its first picture has waited that much longer than its last.
        first_sound_s: Sound needed before the first picture.
        first_passes: Passes of the transformer before the first picture.
        first_work: The same in units of a full window pass: what the first picture costs in time
            of steady blocks.
    """

    look_ahead_blocks: int
    look_ahead_s: float
    block_s: float
    first_sound_s: float
    first_passes: int
    first_work: float

    def describe(self) -> str:
        """One sentence for people."""
        return (
            f"first picture after {self.first_sound_s:.2f} s of sound and {self.first_passes} "
            f"passes (the work of {self.first_work:.1f} blocks); pictures then follow the sound "
            f"by {self.look_ahead_s:.2f} to {self.look_ahead_s + self.block_s:.2f} s"
        )


def compute_latency(
    settings: "AnySettings",
    rule: "AudioWindowRule",
    encoder: "StreamingEncoder",
    *,
    look_ahead_blocks: int | None = None,
) -> Latency:
    """The latency of a live stream, from the checkpoint's settings.

    Args:
        settings: Schedule and frame rate.
        rule: Windows of the audio.
        encoder: Its own look-ahead counts.
        look_ahead_blocks: As in ``StreamConditioning``.
    """
    from joyflash_cli.sampler.psb import scheduled_iterations
    from joyflash_cli.sampler.segment_settings import SegmentSettings

    if isinstance(settings, SegmentSettings):
        block_s = settings.stride_video_frames / settings.fps
        return Latency(0, 0.0, block_s, block_s, settings.passes_per_block, 1.0)
    most = settings.num_window_blocks - 1
    ahead = most if look_ahead_blocks is None else min(look_ahead_blocks, most)
    passes, work = 0, 0.0
    for iteration in scheduled_iterations(settings.num_window_blocks + 1, settings):
        passes = iteration.index
        work += len(iteration.levels) / settings.num_window_blocks
        if iteration.emitted is not None:
            break
    # By the time the first block is clean the window may not have filled up yet.
    in_window = min(len(iteration.levels) - 1, ahead)
    # Far from the beginning, where nothing is cut off.
    block = 8 * settings.num_window_blocks
    return Latency(
        look_ahead_blocks=ahead,
        look_ahead_s=_needed_s(settings, rule, encoder, block + ahead)
        - settings.video_start(block + 1) / settings.fps,
        block_s=(settings.video_start(block + 1) - settings.video_start(block)) / settings.fps,
        first_sound_s=_needed_s(settings, rule, encoder, in_window),
        first_passes=passes,
        first_work=work,
    )


def _needed_s(
    settings: "SamplerSettings", rule: "AudioWindowRule", encoder: "StreamingEncoder", block: int
) -> float:
    """Seconds of sound that hearing all of a block needs."""
    start = rule.num_rows(settings.block_start(block))
    stop = rule.num_rows(settings.block_start(block + 1))
    return encoder.span(start, stop)[1] / MODEL_SAMPLE_RATE_HZ
