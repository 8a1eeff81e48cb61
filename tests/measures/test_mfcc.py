"""Coefficients of sound; their equality with another implementation is in ``test_syncnet``."""

import numpy as np
import pytest

from joyflash_cli.measures.mfcc import mfcc


@pytest.mark.parametrize(
    ("samples", "steps"), [(1, 1), (400, 1), (401, 2), (16_000, 99), (16_123, 100)]
)
def test_there_are_a_hundred_steps_a_second(samples, steps):
    assert mfcc(np.full(samples, 0.1)).shape == (steps, 13)


def test_silence_is_finite():
    assert np.isfinite(mfcc(np.zeros(1600))).all()


def test_louder_sound_changes_the_energy_alone():
    sound = np.random.default_rng(0).normal(0, 0.05, 16_000)
    quiet, loud = mfcc(sound), mfcc(2 * sound)
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], np.log(4), atol=1e-2)
    np.testing.assert_allclose(loud[:, 1:], quiet[:, 1:], atol=0.1)


def test_sound_is_heard_as_integers_of_sixteen_bits():
    sound = np.random.default_rng(0).normal(0, 0.5, 4000)
    np.testing.assert_array_equal(
        mfcc(sound), mfcc(np.round(sound * 32768).clip(-32768, 32767) / 32768)
    )
