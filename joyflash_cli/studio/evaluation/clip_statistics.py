"""Figures that need the truth of a clip, or all clips together."""

from collections.abc import Sequence

import numpy as np

from joyflash_cli.measures import identity, sync
from joyflash_cli.measures.tracks import FrameTracks, drift_at


def other_people_similarity(references: np.ndarray) -> float:
    """Mean cosine between different people's references ``(n, D)``: the measure's floor.

    Raises:
        ValueError: With fewer than two people.
    """
    if len(references) < 2:
        raise ValueError("a floor needs at least two people")
    pairs = identity.cosine(references[:, None], references[None])
    return float(pairs[~np.eye(len(references), dtype=bool)].mean())


def recognition_rate(embeddings: list[np.ndarray], references: np.ndarray) -> float:
    """Share of frames whose nearest reference is their own.

    Args:
        embeddings: Of each clip's frames, ``(F, D)``; clip i belongs to reference i.
        references: ``(n, D)``.
    """
    hits = [
        (identity.cosine(frames[:, None], references[None]).argmax(1) == index).mean()
        for index, frames in enumerate(embeddings)
    ]
    return float(np.mean(hits))


def pairwise_curves(generated: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Lag curves of every clip against every target, ``(n, n, lags)``.

    Args:
        generated: Read tracks, ``(n, F)``.
        targets: Known tracks, ``(n, F)``.
    """
    return np.array([[sync.lag_curve(track, target) for target in targets] for track in generated])


def permutation_p_value(
    generated: np.ndarray, targets: np.ndarray, *, num_permutations: int = 2000, seed: int = 0
) -> float:
    """Chance that shuffled pairs of clip and track agree as well as the true pairs.

    The statistic is the one reported: the best over lags of the mean over clips.

    Args:
        generated: Read tracks, ``(n, F)``.
        targets: Known tracks, ``(n, F)``; row i belongs to row i.
        num_permutations: Shuffles drawn.
        seed: Of the shuffles.
    """
    curves = pairwise_curves(generated, targets)
    rows = np.arange(len(curves))
    observed = curves[rows, rows].mean(0).max()
    rng = np.random.default_rng(seed)
    reached = sum(
        bool(curves[rows, rng.permutation(len(rows))].mean(0).max() >= observed)
        for _ in range(num_permutations)
    )
    return (1 + reached) / (1 + num_permutations)


def silence_mask(
    waveform: np.ndarray,
    num_frames: int,
    *,
    fps: float = 25.0,
    sample_rate_hz: int = 16_000,
    threshold_db: float = -40.0,
    margin_frames: int = 6,
) -> np.ndarray:
    """Frames well inside silence, ``(num_frames,)`` bool.

    Silence is a level ``threshold_db`` below the 95th percentile of the clip's own frames. The
    margin leaves the mouth time to close after the last sound and to open before the next.

    Args:
        waveform: ``(samples,)``, starting with frame 0.
        num_frames: Frames of the video.
        fps: Frames per second.
        sample_rate_hz: Of the waveform.
        threshold_db: Level below speech, negative.
        margin_frames: Frames next to sound that do not count.
    """
    level_db = sync.speech_level_db(waveform, num_frames, fps=fps, sample_rate_hz=sample_rate_hz)
    return sync.quiet_frames(level_db, threshold_db=threshold_db, margin_frames=margin_frames)


def still_background(frames: np.ndarray, *, tolerance: float = 1.0) -> np.ndarray:
    """Pixels of a true clip that do not change in time, ``(H, W)`` bool.

    Args:
        frames: ``(F, H, W, 3)`` uint8, true frames.
        tolerance: Largest temporal standard deviation that counts as still, in 0..255.
    """
    return frames.astype(np.float32).std(0).max(-1) <= tolerance


def drift_table(tracks: FrameTracks, horizons_s: Sequence[float]) -> dict[str, dict[str, float]]:
    """``drift_at`` of every horizon that the stream reaches, keyed by whole seconds."""
    reached = len(tracks.sharpness) / tracks.fps
    return {
        str(round(horizon)): drift_at(tracks, horizon)
        for horizon in horizons_s
        if horizon <= reached
    }
