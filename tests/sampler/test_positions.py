"""Indices of sink, context and window: the worked table for a threshold of 27, and the policies."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from presets import AVATARFORCING, LIVETALK

from joyflash_cli.sampler.settings import PAPER
from joyflash_cli.sampler.urcr import pass_positions

# Block index to the first index of sink, context and window; window of 12, 6 context frames.
PERIODIC = {
    3: (0, 3, 9),
    4: (3, 6, 12),
    5: (6, 9, 15),
    6: (0, 3, 9),
    7: (3, 6, 12),
    8: (6, 9, 15),
    9: (0, 3, 9),
}
PINNED = PERIODIC | {7: (0, 3, 9), 8: (0, 3, 9)}


def window_positions(profile, block, base, **changes):
    start = 3 * block
    context = list(range(3, start))[-profile.context_frames :]
    arguments = {
        "sink": [0, 1, 2] if block else [], "context": context,
        "own": range(start, start + 12), "start": start, "base": base,
    } | changes  # fmt: skip
    return pass_positions(profile, "window", **arguments)


@pytest.mark.parametrize(("rule", "table"), [("periodic", PERIODIC), ("pinned", PINNED)])
def test_table_for_threshold_27(rule, table):
    profile = dataclasses.replace(PAPER, reset_threshold=27, reset_rule=rule)
    base = 0
    for block in range(10):
        positions = window_positions(profile, block, base)
        base = positions.base
        if block in table:
            starts = (positions.context[0], positions.context[3], positions.own[0])
            assert starts == table[block], block


@given(
    block=st.integers(0, 400),
    threshold=st.sampled_from([None, 21, 27, 100, 1000]),
    rule=st.sampled_from(["pinned", "periodic"]),
    mci=st.booleans(),
)
def test_layout_has_no_gap_and_stays_below_the_threshold(block, threshold, rule, mci):
    rule = "pinned" if threshold is None else rule
    profile = dataclasses.replace(PAPER, reset_threshold=threshold, reset_rule=rule)
    base = 0
    for index in range(max(0, block - 3), block + 1):
        start = 3 * index
        own = range(start - (mci and index > 0), start + 12)
        positions = window_positions(profile, index, base, own=own)
        base = positions.base
    frames = [*positions.context, *positions.own[len(positions.own) - 12 :]]
    assert frames == list(range(frames[0], frames[0] + len(frames)))
    assert frames[0] >= 0
    assert frames[-1] < (threshold or PAPER.layout_frames)
    if mci and block:
        assert positions.own[0] == positions.own[1] - 1


def test_absolute_policy_keeps_every_index():
    positions = pass_positions(
        LIVETALK, "window", sink=range(9), context=[12, 13, 14], own=[15, 16, 17], start=15
    )
    assert positions.context == (*range(9), 12, 13, 14)
    assert positions.own == (15, 16, 17)


def test_absolute_update_moves_the_sink_in_window_passes_only():
    arguments = {"sink": [0], "context": [7, 8], "own": range(9, 13), "start": 9}
    clean = pass_positions(AVATARFORCING, "clean", **arguments)
    window = pass_positions(AVATARFORCING, "window", **arguments)
    assert clean.context == (0, 7, 8)
    assert [p - window.context[0] for p in (*window.context, *window.own)] == list(range(7))


def test_pass_without_context_starts_at_zero():
    positions = pass_positions(PAPER, "clean", sink=[], context=[], own=[6, 7, 8], start=6)
    assert (positions.context, positions.own) == ((), (0, 1, 2))
