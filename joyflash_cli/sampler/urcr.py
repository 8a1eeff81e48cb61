"""Unbounded RoPE via Cache-Resetting (URCR): at which temporal index a frame is seen.

Paper §3.5; decision D5. The cache holds keys before rotation, so a pass is free to choose its
indices. Sink, context, condition frame and window are laid out without gaps; shifting the whole
layout turns queries and keys alike and changes nothing, so starting again from 0 is free. What
does matter is where the sink stands: directly in front of the context (the paper), or at its own
index for ever (other checkpoints).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from joyflash_cli.sampler.settings import SamplerSettings

PassKind = Literal["window", "clean"]


@dataclass(frozen=True)
class PassPositions:
    """Temporal index of every frame of a pass.

    Attributes:
        context: Of the sink and context frames, in key order.
        own: Of the pass's own frames, the condition frame first where there is one.
        base: What was subtracted from the latent frame index; kept for the ``periodic`` reset.
    """

    context: tuple[int, ...]
    own: tuple[int, ...]
    base: int


def attended_frames(
    profile: SamplerSettings, kind: PassKind, *, num_own: int, num_sink: int, num_context: int
) -> tuple[int, int]:
    """How many sink and context frames of the cache a pass attends, within the attention span.

    The newest of each. In a window pass the oldest context leaves first, in a clean pass the sink.

    Args:
        profile: Gives the span.
        kind: Of the pass.
        num_own: Frames of window or block, the condition frame not counted.
        num_sink: Sink frames held.
        num_context: Context frames held.
    """
    room = max(profile.attention_span_frames - num_own, 0)
    if kind == "window":
        return num_sink, max(min(num_context, room - num_sink), 0)
    num_context = min(num_context, room)
    return min(num_sink, room - num_context), num_context


def pass_positions(
    profile: SamplerSettings,
    kind: PassKind,
    *,
    sink: Sequence[int],
    context: Sequence[int],
    own: Sequence[int],
    start: int,
    base: int = 0,
) -> PassPositions:
    """Indices for one pass.

    Args:
        profile: Gives policy, threshold and reset rule.
        kind: A joint pass over the window, or the pass over one clean block.
        sink: Latent frame of each sink frame the pass attends.
        context: Latent frame of each context frame the pass attends.
        own: Latent frame of each frame of the pass, the condition frame included.
        start: First latent frame of the window or of the clean block.
        base: ``base`` of the previous pass of the stream.
    """
    if profile.position_policy == "absolute" or (
        profile.position_policy == "absolute-update" and kind == "clean"
    ):
        return PassPositions((*sink, *context), tuple(own), base)
    lowest = start - len(context) - len(sink)
    base = _next_base(profile, base, lowest=lowest, last=own[-1] if own else start)
    front = range(lowest - base, start - base)
    return PassPositions(tuple(front), tuple(frame - base for frame in own), base)


def _next_base(profile: SamplerSettings, base: int, *, lowest: int, last: int) -> int:
    """What to subtract so that the largest index stays below the threshold."""
    if profile.reset_threshold is None:
        return lowest
    kept = base if profile.reset_rule == "periodic" else 0
    return kept if last - kept < profile.reset_threshold else lowest
