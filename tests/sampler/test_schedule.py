"""The schedule of the warm-up, exactly, and its laws for any profile."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from presets import AVATARFORCING, LIVETALK, ROLLINGFORCING
from toy_stream import block_timesteps

from joyflash_cli.sampler.psb import noise_levels, scheduled_iterations
from joyflash_cli.sampler.settings import PAPER

# Table of the paper's warm-up: iteration to the level of each block before it.
TABLE = {
    1: {0: 0},
    2: {0: 1},
    3: {0: 2, 1: 0},
    4: {0: 3, 1: 1},
    5: {0: 4, 1: 2, 2: 0},
    6: {0: 5, 1: 3, 2: 1},
    7: {0: 6, 1: 4, 2: 2, 3: 0},
    8: {0: 7, 1: 5, 2: 3, 3: 1},
    9: {1: 6, 2: 4, 3: 2, 4: 0},
    10: {2: 6, 3: 4, 4: 2, 5: 0},
    11: {3: 6, 4: 4, 5: 2, 6: 0},
    12: {4: 6, 5: 4, 6: 2, 7: 0},
}


def test_table_of_the_warm_up():
    iterations = list(scheduled_iterations(20, PAPER))
    for index, levels in TABLE.items():
        before = {block: level for block, (level, _) in iterations[index - 1].levels.items()}
        assert before == levels, index
    emitted = [(i.index, i.emitted) for i in iterations if i.emitted is not None]
    assert emitted == [(block + 8, block) for block in range(20)]


@pytest.mark.parametrize("num_blocks", range(1, 13))
def test_steps_entries_and_length(num_blocks):
    iterations = list(scheduled_iterations(num_blocks, PAPER))
    assert len(iterations) == num_blocks + 7
    steps = [sum(block in i.levels for i in iterations) for block in range(num_blocks)]
    assert steps == [8, 7, 6, 5, *[4] * 8][:num_blocks]
    entries = [next(i.index for i in iterations if b in i.levels) for b in range(num_blocks)]
    assert entries == [1, 3, 5, 7, 9, 10, 11, 12, 13, 14, 15, 16][:num_blocks]


def test_drain_holds_three_two_one_blocks():
    iterations = list(scheduled_iterations(9, PAPER))
    assert [len(i.levels) for i in iterations[-3:]] == [3, 2, 1]


def test_warped_timesteps():
    levels = noise_levels(PAPER)
    expected = [1000.0, 972.222, 937.5, 892.857, 833.333, 750.0, 625.0, 416.667, 0.0]
    assert [levels[g].timestep for g in range(9)] == pytest.approx(expected, abs=1e-3)
    assert all(levels[g].sigma == pytest.approx(levels[g].timestep / 1000) for g in range(9))
    third = noise_levels(dataclasses.replace(PAPER, shift=3.0))
    assert third[1].timestep == pytest.approx(954.545, abs=1e-3)


def test_timesteps_of_a_block():
    assert len(block_timesteps(0, PAPER)) == 8
    assert len(block_timesteps(3, PAPER)) == 5
    assert block_timesteps(7, PAPER) == pytest.approx((1000, 937.5, 833.333, 625), abs=1e-3)


def test_bfloat16_timesteps_keep_exact_sigmas():
    levels = noise_levels(LIVETALK)
    assert [levels[g].timestep for g in (0, 2, 4, 6)] == [1000.0, 936.0, 832.0, 624.0]
    assert [levels[g].sigma for g in (0, 2, 4, 6)] == pytest.approx([1, 0.9375, 5 / 6, 0.625])


@pytest.mark.parametrize("profile", [ROLLINGFORCING, AVATARFORCING])
def test_without_sub_steps_a_block_enters_every_iteration(profile):
    width = len(profile.main_steps)
    for iteration in scheduled_iterations(9, profile):
        window = iteration.index - 1
        blocks = range(max(0, window - width + 1), min(8, window) + 1)
        assert list(iteration.levels) == list(blocks)
        assert all(iteration.levels[b][0] == 2 * (window - b) for b in blocks)


def test_window_of_one_block_is_block_wise():
    iterations = list(scheduled_iterations(3, LIVETALK))
    assert [list(i.levels) for i in iterations] == [[0]] * 4 + [[1]] * 4 + [[2]] * 4


@given(
    num_blocks=st.integers(1, 14),
    num_steps=st.integers(1, 6),
    steps_per_block=st.integers(1, 6),
    psb=st.booleans(),
)
def test_laws_of_any_schedule(num_blocks, num_steps, steps_per_block, psb):
    window = num_steps // steps_per_block if num_steps % steps_per_block == 0 else 1
    main = tuple(1000 - 150 * i for i in range(num_steps))
    profile = dataclasses.replace(
        PAPER, main_steps=main, sub_steps=tuple(s - 50 for s in main), window_blocks=window,
        psb=psb, attention_span_frames=100,
    )  # fmt: skip
    levels_of: dict[int, list[int]] = {block: [] for block in range(num_blocks)}
    emitted = []
    for iteration in scheduled_iterations(num_blocks, profile):
        assert len(iteration.levels) <= window
        before = [level for level, _ in iteration.levels.values()]
        assert before == sorted(before, reverse=True)
        assert len(set(before)) == len(before)
        for block, (level, after) in iteration.levels.items():
            levels_of[block].append(level)
            assert (after == profile.clean_level) == (iteration.emitted == block)
        if iteration.emitted is not None:
            emitted.append(iteration.emitted)
    assert emitted == list(range(num_blocks))
    timesteps = noise_levels(profile)
    for levels in levels_of.values():
        assert levels[0] == 0
        sigmas = [timesteps[level].sigma for level in levels]
        assert sigmas == sorted(set(sigmas), reverse=True)
        assert set(range(0, profile.clean_level, 2)) <= set(levels)
