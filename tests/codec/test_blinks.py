"""The plan of blinks: regular enough, random enough, the same whoever asks and when."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.codec.tiny import BlinkPlan, KnownBlinks
from joyflash_cli.types import BLINK_SHAPE


def closures_of(plan: BlinkPlan, num_latents: int) -> np.ndarray:
    return np.concatenate([plan.closures(latent) for latent in range(num_latents)])[3:]


def starts(track: np.ndarray) -> np.ndarray:
    closed = track > 0
    return np.flatnonzero(closed[1:] & ~closed[:-1]) + 1


@given(seed=st.integers(0, 2**63 - 1), every=st.integers(24, 200))
def test_every_stretch_has_one_whole_blink_and_the_picture_comes_first(seed, every):
    track = closures_of(BlinkPlan(seed, every), every)  # four stretches
    assert not track[: every // 3].any()
    for stretch in track[: len(track) // every * every].reshape(-1, every):
        assert tuple(stretch[stretch > 0]) == BLINK_SHAPE


@given(seed=st.integers(0, 2**31), latent=st.integers(1, 10**7))
def test_any_latent_can_be_asked_alone(seed, latent):
    plan = BlinkPlan(seed, 88)
    asked = plan.closures(latent)
    assert asked == BlinkPlan(seed, 88).closures(latent)
    assert len(asked) == 4
    assert min(asked) >= 0
    assert max(asked) <= 1


def test_seeds_blink_at_other_moments():
    first, second = (starts(closures_of(BlinkPlan(seed, 88), 500)) for seed in (1, 2))
    assert len(first) in (22, 23)  # 2000 frames; two blinks may join
    assert not np.array_equal(first, second)
    pauses = np.diff(first)
    assert pauses.std() > 15
    assert 70 < pauses.mean() < 106


def test_a_stretch_shorter_than_a_blink_is_still_a_plan():
    assert len(BlinkPlan(0, 3).closures(5)) == 4


def test_known_lids_are_those_of_the_latents_frames():
    known = KnownBlinks(np.array([0, 1, 2, 3, 4, 5]) / 8)
    assert known.closures(0) == (0.0, 0.0, 0.0, 0.0)
    assert known.closures(1) == (1 / 8, 2 / 8, 3 / 8, 4 / 8)
    assert known.closures(2) == (5 / 8, 5 / 8, 5 / 8, 5 / 8)


def test_a_depth_scales_every_closure_and_moves_none():
    plain = closures_of(BlinkPlan(3, 20), 30)
    deep = closures_of(BlinkPlan(3, 20, depth=1.5), 30)
    assert plain.max() == 1
    np.testing.assert_allclose(deep, 1.5 * plain)
