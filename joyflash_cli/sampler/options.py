"""Ways to sample a checkpoint that its own profile does not use, each named and labelled.

A checkpoint's profile is how it was trained to be sampled. The algorithms of the paper can be
switched on for other checkpoints, and the reference's own precision switched off; nothing about
that was trained, which is what the labels say.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from joyflash_cli.errors import UsageError
from joyflash_cli.sampler.segment_settings import (
    AnySettings,
    SegmentSettings,
    even_steps,
    nominal_steps,
)
from joyflash_cli.sampler.settings import SamplerSettings

T = TypeVar("T")


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


def _in_precision(
    dtype: Literal["float32", "bfloat16"],
) -> Callable[[SegmentSettings, str], SegmentSettings]:
    """Timesteps and, where they were rounded alike in training, noise levels of this precision."""

    def change(profile: SegmentSettings, _value: str) -> SegmentSettings:
        sigma = dtype if profile.solver == "renoise" else profile.sigma_dtype
        return replace(profile, timestep_dtype=dtype, sigma_dtype=sigma)

    return change


def _with_steps(profile: SegmentSettings, value: str) -> SegmentSettings:
    if not value.isdecimal():
        raise UsageError(f"steps={value!s:.40} is no number of steps", hint="as in steps=2")
    number = int(value[:9])
    steps = even_steps(number) if profile.solver == "euler" else nominal_steps(number)
    return replace(profile, steps=steps)


def _guided(profile: SegmentSettings, value: str) -> SegmentSettings:
    return replace(profile, audio_guidance=_weight("guidance", value))


def _guided_by_text(profile: SegmentSettings, value: str) -> SegmentSettings:
    if profile.text_guidance is None:
        raise UsageError("text-guidance is for profiles that are guided by text")
    return replace(profile, text_guidance=_weight("text-guidance", value))


def _weight(option: str, value: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UsageError(f"{option}={value!s:.40} is no weight", hint=f"as in {option}=1.6")
    return weight


SEGMENT_OPTIONS: dict[str, tuple[str, Callable[[SegmentSettings, str], SegmentSettings]]] = {
    "steps=N": ("another number of steps", _with_steps),
    "guidance=W": ("another weight of the audio", _guided),
    "text-guidance=W": ("another weight of the prompt", _guided_by_text),
    "exact-timesteps": ("timesteps fed unrounded", _in_precision("float32")),
    "rounded-timesteps": ("timesteps fed rounded to bfloat16", _in_precision("bfloat16")),
}
"""Of models that are sampled in segments, with their titles."""


def with_options(profile: AnySettings, names: Iterable[str]) -> AnySettings:
    """The profile with these options, in the order given.

    Raises:
        UsageError: For a name that does not exist, or not for such a profile.
    """
    for name in names:
        if isinstance(profile, SegmentSettings):
            word, _, value = name.partition("=")
            profile = _option(SEGMENT_OPTIONS, name)[1](profile, value if word != name else "")
        else:
            profile = _option(SAMPLER_OPTIONS, name).change(profile)
    return profile


def _option(options: Mapping[str, T], name: str) -> T:
    """The entry of an option; those with a value stand under their form, as ``steps=N``."""
    word, equals, _ = name.partition("=")
    for form, entry in options.items():
        if form == name or (equals and form.startswith(f"{word}=")):
            return entry
    raise UsageError(
        f"sampler option {name!r:.80} does not exist"
        + (" for this profile" if name in {*SAMPLER_OPTIONS, *SEGMENT_OPTIONS} else ""),
        hint=f"one of {', '.join(options)}",
    )


def untrained_options(profile: AnySettings, names: Iterable[str]) -> tuple[str, ...]:
    """A sentence for each option that changes how the checkpoint was trained to be sampled.

    Args:
        profile: The checkpoint's own.
        names: Options that are used.
    """
    return tuple(
        f"sampler option {name} ({_title(profile, name)}): this checkpoint was not trained with it"
        for name in names
        if with_options(profile, [name]) != profile
    )


def _title(profile: AnySettings, name: str) -> str:
    if isinstance(profile, SegmentSettings):
        return _option(SEGMENT_OPTIONS, name)[0]
    return SAMPLER_OPTIONS[name].title
