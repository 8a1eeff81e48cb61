"""Mel-frequency cepstral coefficients with the settings that SyncNet was trained on.

They are the defaults of the package ``python_speech_features``: windows of 25 ms every 10 ms
without a taper, 26 triangular mel filters, 13 coefficients, the first of them the log energy.
"""

import numpy as np

SAMPLE_RATE_HZ = 16_000
NUM_COEFFICIENTS = 13

_WINDOW, _STEP, _FFT = 400, 160, 512
_NUM_FILTERS = 26
_PREEMPHASIS = 0.97
_LIFTER = 22


def mfcc(waveform: np.ndarray) -> np.ndarray:
    """Coefficients ``(steps, 13)`` float64 of a sound, 100 steps a second.

    Args:
        waveform: ``(samples,)`` at 16 kHz, -1..1. It is measured as 16-bit integers, because the
            published network heard those and the energy depends on the scale.
    """
    samples = np.clip(np.round(np.asarray(waveform, np.float64) * 32768), -32768, 32767)
    sharpened = np.append(samples[:1], samples[1:] - _PREEMPHASIS * samples[:-1])
    num_steps = 1 + max(0, -(-(len(sharpened) - _WINDOW) // _STEP))
    filled = np.zeros((num_steps - 1) * _STEP + _WINDOW)  # the last window ends in silence
    filled[: len(sharpened)] = sharpened
    windows = np.lib.stride_tricks.sliding_window_view(filled, _WINDOW)[::_STEP]
    power = np.abs(np.fft.rfft(windows, _FFT)) ** 2 / _FFT
    energy = _above_zero(power.sum(1))
    bands = np.log(_above_zero(power @ _mel_filters().T))
    order = np.arange(NUM_COEFFICIENTS)
    coefficients = bands @ _cosines().T * (1 + _LIFTER / 2 * np.sin(np.pi * order / _LIFTER))
    coefficients[:, 0] = np.log(energy)
    return coefficients


def _mel_filters() -> np.ndarray:
    """Triangles ``(26, 257)``, evenly spaced in mel from 0 Hz to half the sample rate."""
    highest_mel = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, highest_mel, _NUM_FILTERS + 2) / 2595) - 1)
    edges = np.floor((_FFT + 1) * edges_hz / SAMPLE_RATE_HZ)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.arange(_FFT // 2 + 1)
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    inside = (bins >= low) & (bins < high)
    return np.where(inside, np.where(bins < middle, rising, falling), 0.0)


def _cosines() -> np.ndarray:
    """The first rows ``(13, 26)`` of the orthonormal discrete cosine transform."""
    order, place = np.arange(NUM_COEFFICIENTS)[:, None], np.arange(_NUM_FILTERS) + 0.5
    rows = np.sqrt(2 / _NUM_FILTERS) * np.cos(np.pi * order * place / _NUM_FILTERS)
    rows[0] /= np.sqrt(2)
    return rows


def _above_zero(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, np.finfo(float).eps, values)
