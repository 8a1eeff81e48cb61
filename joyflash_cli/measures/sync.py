"""How well a mouth follows a voice: correlations of read mouth tracks with known viseme tracks.

These are measures for faces whose true mouth movement is known (rendered heads). They are not
Sync-C or Sync-D and say nothing about scores of those names.
"""

from dataclasses import dataclass

import numpy as np

MAX_LAG_FRAMES = 5
"""Lags searched on either side: 0.2 s at 25 frames per second."""

STILL = 1e-4
"""Standard deviation below which a track counts as constant."""


@dataclass(frozen=True)
class SyncScore:
    """Agreement of a read track with a known one.

    Attributes:
        correlation: Pearson correlation at ``lag_frames``, the best in -5..5.
        lag_frames: Positive when the picture is late.
        correlation_at_zero: The same without any lag.
    """

    correlation: float
    lag_frames: int
    correlation_at_zero: float


@dataclass(frozen=True)
class MovementRatio:
    """How much the mouth moves in silence compared with speech.

    Attributes:
        ratio: Mean absolute velocity in silence over that in speech; ``None`` if the clip lacks
            one of the two or the mouth never moves in speech.
        silence_frames: Frames that count as silence.
    """

    ratio: float | None
    silence_frames: int


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson correlation of two tracks ``(F,)``; 0 where one of them is constant.

    A mouth that never moves follows nothing, so the undefined case counts as no agreement.
    Tracks lie in about 0..1; movement below ``STILL`` is rounding in the reader.
    """
    first = np.asarray(first, np.float64) - np.mean(first, dtype=np.float64)
    second = np.asarray(second, np.float64) - np.mean(second, dtype=np.float64)
    if min(first.std(), second.std()) < STILL:
        return 0.0
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))


def lag_curve(
    generated: np.ndarray, target: np.ndarray, *, max_lag: int = MAX_LAG_FRAMES
) -> np.ndarray:
    """Correlation at each lag, ``(2 max_lag + 1,)``, from -max_lag to +max_lag.

    Every lag uses the same number of frames, so that a longer overlap is not favoured.

    Args:
        generated: Track read from frames, ``(F,)``.
        target: Known track, ``(F,)``.
        max_lag: Frames searched on either side.

    Raises:
        ValueError: If the lengths differ or too few frames are left.
    """
    if len(generated) != len(target):
        raise ValueError(f"tracks of {len(generated)} and {len(target)} frames cannot be compared")
    inner = len(target) - 2 * max_lag
    if inner < 3:
        raise ValueError(f"{len(target)} frames are too few for lags up to {max_lag}")
    fixed = np.asarray(target, np.float64)[max_lag : max_lag + inner]
    moving = np.asarray(generated, np.float64)
    return np.array(
        [correlation(moving[start : start + inner], fixed) for start in range(2 * max_lag + 1)]
    )


def score_curve(curve: np.ndarray) -> SyncScore:
    """The best lag of a lag curve, or of the mean of several."""
    max_lag = len(curve) // 2
    best = int(np.argmax(curve))
    if curve[best] == curve[max_lag]:  # a flat curve has no lag
        best = max_lag
    return SyncScore(float(curve[best]), best - max_lag, float(curve[max_lag]))


def quiet_frames(
    level_db: np.ndarray, *, threshold_db: float = -40.0, margin_frames: int = 6
) -> np.ndarray:
    """Frames well inside silence, ``(F,)`` bool.

    The margin leaves the mouth time to close after the last sound and to open before the next.

    Args:
        level_db: Level of each frame relative to the clip's 95th percentile, ``(F,)``.
        threshold_db: Level below speech, negative.
        margin_frames: Frames next to sound that do not count.
    """
    padded = np.pad(level_db < threshold_db, margin_frames, constant_values=True)
    window = np.lib.stride_tricks.sliding_window_view(padded, 2 * margin_frames + 1)
    return np.asarray(window.all(axis=-1))


def speech_level_db(
    waveform: np.ndarray, num_frames: int, *, fps: float = 25.0, sample_rate_hz: int = 16_000
) -> np.ndarray:
    """Level of each frame's sound relative to the clip's 95th percentile, ``(num_frames,)`` dB."""
    edges = np.round(np.arange(num_frames + 1) * sample_rate_hz / fps).astype(int)
    padded = np.pad(waveform.astype(np.float64), (0, max(0, edges[-1] - len(waveform))))
    power = np.array(
        [np.mean(padded[a:b] ** 2) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    )
    return relative_db(power)


def relative_db(power: np.ndarray) -> np.ndarray:
    """Mean squares ``(F,)`` in dB relative to their 95th percentile."""
    loud = max(float(np.percentile(power, 95)), 1e-12)
    return 10.0 * np.log10(np.maximum(power, 1e-14) / loud)


def loudness(level_db: np.ndarray) -> np.ndarray:
    """A level of -40..0 dB below the clip's loud parts as 0..1."""
    return np.clip((level_db + 40.0) / 40.0, 0.0, 1.0)


def movement_ratio(track: np.ndarray, silent: np.ndarray) -> MovementRatio:
    """Movement of a mouth track in silence over its movement in speech.

    Args:
        track: Read mouth opening, ``(F,)``; smoothed here over three frames because a reader
            jitters a little from frame to frame even on a still mouth.
        silent: Frames of silence, ``(F,)`` bool.
    """
    smooth = np.convolve(np.pad(track.astype(np.float64), 1, mode="edge"), np.ones(3) / 3, "valid")
    velocity = np.abs(np.diff(smooth))
    both_silent = silent[1:] & silent[:-1]
    still = float(velocity[both_silent].mean()) if both_silent.any() else 0.0
    moving = float(velocity[~both_silent].mean()) if (~both_silent).any() else 0.0
    known = both_silent.any() and moving > 1e-9
    return MovementRatio(still / moving if known else None, int(both_silent.sum()))
