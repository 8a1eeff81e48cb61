"""Ways to sample a checkpoint that its own profile does not use, each named and labelled.

A checkpoint's profile is how it was trained to be sampled. The algorithms of the paper can be
switched on for other checkpoints, and the reference's own precision switched off; nothing about
that was trained, which is what the labels say.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from joyflash_cli.errors import UsageError
from joyflash_cli.sampler.settings import SamplerSettings


@dataclass(frozen=True)
class SamplerOption:
    """One change to a profile.

    Attributes:
        title: What it does, for people.
        change: The profile with it; the same profile where it says so already.
    """

    title: str
    change: Callable[[SamplerSettings], SamplerSettings]


def rolling(profile: SamplerSettings) -> SamplerSettings:
    """A window of as many blocks as there are main steps, denoised together."""
    window = len(profile.main_steps) * profile.block_frames
    room = profile.sink_frames + profile.context_frames + window
    span = max(profile.attention_span_frames, room)
    return replace(profile, window_blocks=None, attention_span_frames=span)


def progressive_steps(profile: SamplerSettings) -> SamplerSettings:
    """A sub-step in the middle of each main step until the first block is clean (PSB)."""
    steps = (*profile.main_steps, 0)
    middle = tuple((high + low) // 2 for high, low in zip(steps, steps[1:], strict=False))
    return replace(profile, psb=True, sub_steps=profile.sub_steps or middle)


def relative_positions(profile: SamplerSettings) -> SamplerSettings:
    """Positions laid out anew in every pass, the sink next to the context (URCR)."""
    return replace(profile, position_policy="relative")


def condition_frame(profile: SamplerSettings) -> SamplerSettings:
    """A noised condition frame in front of the window (MCI)."""
    return replace(profile, mci=True, mci_noise=True)


def exact_timesteps(profile: SamplerSettings) -> SamplerSettings:
    """The network is fed the timesteps of the schedule unrounded."""
    return replace(profile, timestep_dtype="float32")


def rounded_timesteps(profile: SamplerSettings) -> SamplerSettings:
    """The network is fed the timesteps of the schedule rounded to bfloat16; sigmas stay exact."""
    return replace(profile, timestep_dtype="bfloat16")


SAMPLER_OPTIONS: dict[str, SamplerOption] = {
    "rolling": SamplerOption("blocks denoised together in a rolling window", rolling),
    "psb": SamplerOption("extra steps until the first block is clean", progressive_steps),
    "urcr": SamplerOption("relative positions, for any length", relative_positions),
    "mci": SamplerOption("a noised condition frame before the window", condition_frame),
    "exact-timesteps": SamplerOption("timesteps fed unrounded", exact_timesteps),
    "rounded-timesteps": SamplerOption("timesteps fed rounded to bfloat16", rounded_timesteps),
}
"""By name. For LiveTalk ``rounded-timesteps`` (1000, 936, 832, 624) is what its profile does, and
``exact-timesteps`` (1000, 937.5, 833.3, 625) the other way."""


def with_options(profile: SamplerSettings, names: Iterable[str]) -> SamplerSettings:
    """The profile with these options, in the order given.

    Raises:
        UsageError: For a name that does not exist.
    """
    for name in names:
        if name not in SAMPLER_OPTIONS:
            raise UsageError(
                f"sampler option {name!r} does not exist",
                hint=f"one of {', '.join(SAMPLER_OPTIONS)}",
            )
        profile = SAMPLER_OPTIONS[name].change(profile)
    return profile


def untrained_options(profile: SamplerSettings, names: Iterable[str]) -> tuple[str, ...]:
    """A sentence for each option that changes how the checkpoint was trained to be sampled.

    Args:
        profile: The checkpoint's own.
        names: Options that are used.
    """
    return tuple(
        f"sampler option {name} ({SAMPLER_OPTIONS[name].title}): this checkpoint was not trained "
        "with it"
        for name in names
        if with_options(profile, [name]) != profile
    )
