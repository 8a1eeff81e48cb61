"""Sampler options: what they change, what is labelled, and that long streams stay in range."""

import pytest
from presets import AVATARFORCING, LIVETALK
from toy_stream import block_timesteps

from joyflash_cli.errors import UsageError
from joyflash_cli.sampler.options import SAMPLER_OPTIONS, untrained_options, with_options
from joyflash_cli.sampler.psb import noise_levels, scheduled_iterations
from joyflash_cli.sampler.settings import PAPER
from joyflash_cli.sampler.urcr import pass_positions


def test_mci_is_off_in_both_public_profiles():
    assert not LIVETALK.mci
    assert not AVATARFORCING.mci


def test_rolling_and_psb_give_livetalk_the_paper_s_schedule():
    profile = with_options(LIVETALK, ["rolling", "psb"])
    counts = [len(block_timesteps(block, profile)) for block in range(6)]
    assert counts == [8, 7, 6, 5, 4, 4]
    assert profile.sub_steps == PAPER.sub_steps
    assert profile.num_window_blocks == 4
    # The window has room beside the nine sink frames the model was trained with.
    assert profile.attention_span_frames == 9 + 3 + 12
    assert not profile.mci


def test_psb_puts_sub_steps_between_avatarforcing_s_own_steps():
    profile = with_options(AVATARFORCING, ["psb"])
    assert profile.sub_steps == (900, 600, 300, 100)
    emitted = [i.emitted for i in scheduled_iterations(5, profile) if i.emitted is not None]
    assert emitted == [0, 1, 2, 3, 4]


def timesteps(profile):
    return [round(level.timestep, 1) for level in noise_levels(profile).values()]


def test_the_switch_of_livetalk_s_timesteps():
    """Rounded is published practice; the sigmas do not move."""
    assert timesteps(LIVETALK) == [1000.0, 936.0, 832.0, 624.0, 0.0]
    exact = with_options(LIVETALK, ["exact-timesteps"])
    assert timesteps(exact) == [1000.0, 937.5, 833.3, 625.0, 0.0]
    for one, other in zip(
        noise_levels(LIVETALK).values(), noise_levels(exact).values(), strict=True
    ):
        assert one.sigma == other.sigma
    assert with_options(exact, ["rounded-timesteps"]) == LIVETALK


@pytest.mark.parametrize("profile", [LIVETALK, AVATARFORCING], ids=["livetalk", "avatarforcing"])
def test_urcr_keeps_positions_in_range_for_ever(profile):
    """The originals stop at 1,024 positions; their sink moves away without bound."""

    def largest(profile, start):
        sink = list(range(profile.sink_frames))
        context = list(range(start - profile.context_frames, start))
        own = list(range(start, start + profile.window_frames))
        positions = [
            pass_positions(profile, kind, sink=sink, context=context, own=own, start=start)
            for kind in ("window", "clean")
        ]
        return max(max(p.context + p.own) for p in positions)

    def span(profile, start):
        positions = pass_positions(
            profile, "clean", sink=list(range(profile.sink_frames)),
            context=list(range(start - profile.context_frames, start)),
            own=list(range(start, start + profile.block_frames)), start=start,
        )  # fmt: skip
        return max(positions.own) - min(positions.context)

    unbounded = with_options(profile, ["urcr"])
    assert largest(unbounded, 10_000) == largest(unbounded, 1000) < 64
    assert span(unbounded, 10_000) == span(unbounded, 1000) < 64
    assert largest(profile, 10_000) > 9_000
    assert span(profile, 10_000) > 9_000


def test_only_changes_are_labelled():
    names = ["urcr", "rounded-timesteps", "mci"]
    labels = untrained_options(LIVETALK, names)
    assert len(labels) == 2
    assert "urcr" in labels[0]
    assert "mci" in labels[1]
    assert all("not trained" in label for label in labels)
    assert untrained_options(PAPER, ["rolling", "psb", "urcr", "mci"]) == ()


def test_every_option_leaves_a_valid_profile():
    for profile in (LIVETALK, AVATARFORCING, PAPER):
        for name in SAMPLER_OPTIONS:
            with_options(profile, [name])
        with_options(profile, SAMPLER_OPTIONS)


def test_unknown_options_name_the_known_ones():
    with pytest.raises(UsageError, match="'rollin'") as caught:
        with_options(PAPER, ["rollin"])
    assert "rolling" in caught.value.hint
