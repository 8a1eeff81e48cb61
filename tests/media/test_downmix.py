"""What the model hears of several channels: their mean, unless they cancel each other."""

import numpy as np
import pytest

from joyflash_cli.media.inputs.audio import ModelResampler, to_model_waveform
from joyflash_cli.types import AudioClip


def voice(seconds: float = 2.0, rate_hz: int = 16_000) -> np.ndarray:
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * 220 * time_s) * np.sin(np.pi * time_s) ** 2).astype(np.float32)


def heard(channels: list[np.ndarray], rate_hz: int = 16_000) -> np.ndarray:
    return to_model_waveform(AudioClip(np.stack(channels, axis=1), rate_hz))


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("gain", [-1.0, -0.9, -0.6])
def test_opposite_phases_are_heard(rate_hz, gain):
    left = voice(rate_hz=rate_hz)
    alone = heard([left], rate_hz)
    got = heard([left, gain * left], rate_hz)
    assert rms(got - alone) < 0.02 * rms(alone)
    swapped = heard([gain * left, left], rate_hz)
    assert min(rms(swapped - alone), rms(swapped + alone)) < 0.02 * rms(alone)


def test_usual_channels_are_averaged_exactly():
    left, right = voice(), np.roll(voice(), 300)
    silent = np.zeros_like(left)
    for channels in ([left, right], [left, left], [left, silent], [silent, silent]):
        expected = np.stack(channels, axis=1).mean(axis=1, dtype=np.float32)
        np.testing.assert_array_equal(heard(channels), expected)


def test_phases_that_turn_in_the_middle():
    """The sound stays as loud as it is, without a click where the decision changes."""
    left = voice(6.0)
    gain = np.repeat(np.float32([1, -1, 1]), len(left) // 3)
    got = heard([left, left * gain])
    assert np.abs(np.diff(got)).max() < 1.5 * np.abs(np.diff(left)).max()
    for second in range(6):
        part = slice(second * 16_000, (second + 1) * 16_000)
        assert rms(got[part]) > 0.8 * rms(left[part])


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("num_channels", [2, 6])
def test_pieces_make_no_difference(rate_hz, num_channels):
    rng = np.random.default_rng(0)
    left = voice(3.0, rate_hz)
    samples = np.stack([left * g for g in rng.choice([-1, 1, 0.3], num_channels)], axis=1)
    samples[len(left) // 2 :, 1] *= -1
    whole = to_model_waveform(AudioClip(samples, rate_hz))
    resampler, parts, start = ModelResampler(rate_hz), [], 0
    while start < len(samples):
        stop = start + int(rng.integers(1, 3_000))
        parts.append(resampler.push(samples[start:stop]))
        start = stop
    parts.append(resampler.finish())
    np.testing.assert_array_equal(np.concatenate(parts), whole)
