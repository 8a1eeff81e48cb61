"""Phoneme times to mouth parameters over time: dominance blending with true closures.

Coarticulation after Cohen and Massaro (1993): every phoneme pulls the mouth towards its own
target with its own dominance, and the pull fades with time. Lip closures are laid over that, so
that p, b, m, f and v are always seen.
"""

from collections.abc import Sequence

import numpy as np

from joyflash_cli.studio.heads.face_state import VISEMES
from joyflash_cli.studio.speech.phonemes import SILENCE, Phoneme, canonical_symbol

GRID_HZ = 200
"""Rate of the grid on which targets are blended: 5 ms."""

REST_POSE = np.zeros(len(VISEMES), np.float32)
"""The mouth in silence: lips together, nothing else."""

BLEND_SIGMA_S = 0.030
CLOSURE_SIGMA_S = 0.014
CLOSURE_MIN_S = 0.070
"""A closure lasts at least this long, so that at 25 frames a second one frame always shows it."""
PAUSE_SIGMA_S = 0.016
JAW_ENERGY_FLOOR = 0.6
JAW_ENERGY_GAIN = 0.8

BILABIALS = frozenset({"p", "b", "m"})
LABIODENTALS = frozenset({"f", "v"})

# jaw, width, round, press, teeth, tongue; last: dominance over the neighbours.
_TARGETS: dict[str, tuple[float, float, float, float, float, float, float]] = {
    "sil": (0.00, 0.00, 0.00, 0.0, 0.00, 0.0, 0.80),
    "aa": (0.90, 0.10, 0.00, 0.0, 0.00, 0.0, 1.00),
    "ae": (0.75, 0.50, 0.00, 0.0, 0.10, 0.0, 1.00),
    "ah": (0.55, 0.10, 0.00, 0.0, 0.00, 0.0, 0.90),
    "ax": (0.38, 0.10, 0.05, 0.0, 0.05, 0.0, 0.60),
    "ao": (0.70, -0.25, 0.60, 0.0, 0.00, 0.0, 1.00),
    "eh": (0.52, 0.50, 0.00, 0.0, 0.10, 0.0, 1.00),
    "er": (0.32, -0.20, 0.50, 0.0, 0.10, 0.0, 0.90),
    "ih": (0.30, 0.60, 0.00, 0.0, 0.15, 0.0, 0.90),
    "iy": (0.18, 1.00, 0.00, 0.0, 0.25, 0.0, 1.00),
    "uh": (0.28, -0.25, 0.75, 0.0, 0.00, 0.0, 0.95),
    "uw": (0.16, -0.45, 1.00, 0.0, 0.00, 0.0, 1.00),
    "w": (0.08, -0.50, 1.00, 0.1, 0.00, 0.0, 1.30),
    "p": (0.00, 0.00, 0.00, 1.0, 0.00, 0.0, 0.60),
    "b": (0.00, 0.00, 0.00, 1.0, 0.00, 0.0, 0.60),
    "m": (0.00, 0.00, 0.00, 1.0, 0.00, 0.0, 0.60),
    "f": (0.08, 0.10, 0.00, 0.2, 1.00, 0.0, 0.70),
    "v": (0.08, 0.10, 0.00, 0.2, 1.00, 0.0, 0.70),
    "s": (0.10, 0.50, 0.00, 0.0, 0.90, 0.0, 0.90),
    "z": (0.10, 0.50, 0.00, 0.0, 0.90, 0.0, 0.90),
    "sh": (0.14, -0.20, 0.75, 0.0, 0.90, 0.0, 1.00),
    "zh": (0.14, -0.20, 0.75, 0.0, 0.90, 0.0, 1.00),
    "ch": (0.14, -0.20, 0.70, 0.0, 0.90, 0.0, 1.00),
    "jh": (0.14, -0.20, 0.70, 0.0, 0.90, 0.0, 1.00),
    "t": (0.16, 0.25, 0.00, 0.0, 0.50, 0.5, 0.55),
    "d": (0.18, 0.25, 0.00, 0.0, 0.45, 0.5, 0.50),
    "n": (0.20, 0.25, 0.00, 0.0, 0.35, 0.6, 0.50),
    "l": (0.32, 0.20, 0.00, 0.0, 0.20, 1.0, 0.65),
    "th": (0.22, 0.20, 0.00, 0.0, 0.60, 1.0, 0.80),
    "dh": (0.22, 0.20, 0.00, 0.0, 0.50, 1.0, 0.65),
    "k": (0.28, 0.15, 0.00, 0.0, 0.10, 0.0, 0.30),
    "g": (0.28, 0.15, 0.00, 0.0, 0.10, 0.0, 0.30),
    "ng": (0.25, 0.15, 0.00, 0.0, 0.10, 0.0, 0.30),
    "y": (0.18, 0.90, 0.00, 0.0, 0.20, 0.0, 0.80),
    "r": (0.20, -0.25, 0.65, 0.0, 0.15, 0.0, 0.80),
    "hh": (0.35, 0.10, 0.00, 0.0, 0.00, 0.0, 0.15),
}

_DIPHTHONGS = {
    "aw": ("aa", "uw"),
    "ay": ("aa", "ih"),
    "ey": ("eh", "iy"),
    "ow": ("ao", "uw"),
    "oy": ("ao", "iy"),
}
_DIPHTHONG_SPLIT = 0.55


def viseme_track(
    phonemes: Sequence[Phoneme],
    num_frames: int,
    *,
    fps: float = 25,
    energy: np.ndarray | None = None,
) -> np.ndarray:
    """Mouth parameters of every video frame, sampled at the frame's centre (i + 0.5) / fps.

    Args:
        phonemes: Sounds with times in seconds; gaps between them are silence.
        num_frames: Frames of the track.
        fps: Frames a second.
        energy: Loudness 0..1 of the sound on the 200 Hz grid (``local_energy``); the jaw is
            scaled by 0.6 + 0.8 x energy. ``None`` leaves the jaw as the phonemes ask.

    Returns:
        ``(num_frames, 6)`` float32 in the order of ``VISEMES``; width may be negative, the rest
        lies in 0..1.
    """
    if num_frames <= 0:
        return np.zeros((0, len(VISEMES)), np.float32)
    grid_length = int(np.ceil(num_frames / fps * GRID_HZ)) + 1
    segments = _segments(phonemes)
    targets, dominance, speaking = _targets_on_grid(segments, grid_length)
    pull = dominance[:, None]
    blended = _smooth(targets * pull, BLEND_SIGMA_S) / _smooth(pull, BLEND_SIGMA_S)
    if energy is not None:
        blended[:, 0] *= JAW_ENERGY_FLOOR + JAW_ENERGY_GAIN * _fit_length(energy, grid_length)
    # Full strength up to the pause's edge, gone 30 ms later: lips shut quickly.
    blended *= np.clip(2 * _smooth(speaking[:, None], PAUSE_SIGMA_S), 0, 1)
    blended = _lay_closures(blended, segments)
    blended[:, 1] = np.clip(blended[:, 1], -0.5, 1)
    blended[:, [0, 2, 3, 4, 5]] = np.clip(blended[:, [0, 2, 3, 4, 5]], 0, 1)
    # Cell i of the grid covers i/200..(i+1)/200 s: its value belongs to the cell's centre.
    cells = np.arange(grid_length)
    places = (np.arange(num_frames) + 0.5) / fps * GRID_HZ - 0.5
    sampled = [np.interp(places, cells, channel) for channel in blended.T]
    return np.stack(sampled, axis=1).astype(np.float32)


def local_energy(waveform: np.ndarray, sample_rate_hz: int = 16_000) -> np.ndarray:
    """Loudness of a recording on the 200 Hz grid, relative to its own loud passages.

    Args:
        waveform: ``(n,)`` float32.
        sample_rate_hz: Samples a second.

    Returns:
        ``(ceil(n / rate * 200),)`` float32 in 0..1: 1 at the 95th percentile, 0 from 30 dB below.
    """
    hop = sample_rate_hz // GRID_HZ
    length = -(-len(waveform) // hop)
    power = np.zeros(length * hop, np.float64)
    power[: len(waveform)] = np.square(waveform, dtype=np.float64)
    mean_power = _smooth(power.reshape(length, hop).mean(1)[:, None], 0.020)[:, 0]
    decibels = 10 * np.log10(mean_power + 1e-10)
    top = np.percentile(decibels, 95) if length else 0.0
    return np.clip((decibels - top) / 30 + 1, 0, 1).astype(np.float32)


def _segments(phonemes: Sequence[Phoneme]) -> list[tuple[str, float, float]]:
    """Canonical monophthongs with times: diphthongs cut in two."""
    segments = []
    for phoneme in phonemes:
        symbol = canonical_symbol(phoneme.symbol, phoneme.symbol_set)
        start, end = phoneme.start_s, phoneme.end_s
        if symbol in _DIPHTHONGS:
            middle = start + _DIPHTHONG_SPLIT * (end - start)
            first, second = _DIPHTHONGS[symbol]
            segments += [(first, start, middle), (second, middle, end)]
        else:
            segments.append((symbol, start, end))
    return segments


def _targets_on_grid(
    segments: list[tuple[str, float, float]], grid_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets ``(n, 6)``, dominance ``(n,)`` and whether somebody speaks ``(n,)``."""
    targets = np.tile(REST_POSE.astype(np.float64), (grid_length, 1))
    dominance = np.full(grid_length, _TARGETS[SILENCE][-1])
    speaking = np.zeros(grid_length)
    for symbol, start_s, end_s in segments:
        start, end = int(round(start_s * GRID_HZ)), int(round(end_s * GRID_HZ))
        end = max(end, start + 1)
        if end <= 0 or start >= grid_length:
            continue
        span = slice(max(start, 0), end)
        *target, weight = _TARGETS[symbol]
        targets[span], dominance[span] = target, weight
        speaking[span] = symbol != SILENCE
    return targets, dominance, speaking


def _lay_closures(track: np.ndarray, segments: list[tuple[str, float, float]]) -> np.ndarray:
    """Press the lips (p, b, m) or bring the lip to the teeth (f, v), whatever the neighbours want.

    Width and rounding stay mostly the neighbours'.
    """
    masks = np.zeros((len(track), 2))
    for symbol, start_s, end_s in segments:
        kind = 0 if symbol in BILABIALS else 1 if symbol in LABIODENTALS else None
        if kind is None:
            continue
        # A short closure grows on both sides, more before: the lips are shut before the sound.
        missing = max(0.0, CLOSURE_MIN_S - (end_s - start_s))
        start = max(int(round((start_s - 0.6 * missing) * GRID_HZ)), 0)
        end = max(int(round((end_s + 0.4 * missing) * GRID_HZ)), 0)
        masks[start:end, kind] = 1
    strength = np.clip(1.35 * _smooth(masks, CLOSURE_SIGMA_S), 0, 1)
    for kind, (jaw, press, teeth) in enumerate([(0.0, 1.0, 0.0), (0.08, 0.2, 1.0)]):
        amount = strength[:, kind]
        for channel, value in ((0, jaw), (3, press), (4, teeth), (5, 0.0)):
            track[:, channel] += amount * (value - track[:, channel])
        track[:, 1:3] *= 1 - 0.35 * amount[:, None]
    return track


def _smooth(values: np.ndarray, sigma_s: float) -> np.ndarray:
    """Gaussian smoothing ``(n, c)`` along time with the edge values repeated."""
    sigma = sigma_s * GRID_HZ
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(values, ((radius, radius), (0, 0)), mode="edge")
    columns = [np.convolve(column, kernel, "valid") for column in padded.T]
    return np.stack(columns, axis=1)


def _fit_length(values: np.ndarray, length: int) -> np.ndarray:
    """Cut, or repeat the last value."""
    if len(values) == 0:
        return np.zeros(length)
    return np.pad(values[:length], (0, max(0, length - len(values))), mode="edge")
