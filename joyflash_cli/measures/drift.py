"""What changes slowly over a long stream, relative to its own first ten seconds."""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.measures.identity import cosine


@dataclass(frozen=True)
class StreamTracks:
    """One number or vector per frame of a long stream, small enough to keep for minutes.

    Attributes:
        colour: Mean colour in 0..255, ``(F, 3)``.
        sharpness: Mean gradient magnitude in the face, ``(F,)``.
        identity: Identity embeddings, ``(F, D)``.
        fps: Frames per second.
    """

    colour: np.ndarray
    sharpness: np.ndarray
    identity: np.ndarray
    fps: float = 25.0


WINDOW_S = 10.0
"""Seconds that are compared. Poses and mouth shapes come and go within them."""


def window_frames(horizon_s: float, fps: float) -> int:
    """Frames of each of the two compared parts: ten seconds, or half of a shorter stream."""
    return max(1, round(min(WINDOW_S, horizon_s / 2) * fps))


def drift_at(tracks: StreamTracks, horizon_s: float) -> dict[str, float]:
    """Drift of the ten seconds that end at ``horizon_s`` relative to the first ten.

    Returns:
        ``colour``: largest channel difference of the mean colour in /255. ``sharpness``: ratio, 1
        is unchanged. ``identity``: cosine of the mean embeddings, 1 is unchanged.

    Raises:
        ValueError: If the stream ends before the horizon.
    """
    window = window_frames(horizon_s, tracks.fps)
    stop = round(horizon_s * tracks.fps)
    if stop > len(tracks.sharpness) or stop < 2:
        raise ValueError(f"a horizon of {horizon_s} s does not fit {len(tracks.sharpness)} frames")
    first, later = slice(0, window), slice(stop - window, stop)
    colour = np.abs(tracks.colour[later].mean(0) - tracks.colour[first].mean(0)).max()
    sharp = tracks.sharpness[later].mean() / max(float(tracks.sharpness[first].mean()), 1e-9)
    identity = cosine(tracks.identity[later].mean(0), tracks.identity[first].mean(0))
    return {"colour": float(colour), "sharpness": float(sharp), "identity": float(identity)}


def drift_table(tracks: StreamTracks, horizons_s: tuple[float, ...]) -> dict[str, dict[str, float]]:
    """``drift_at`` of every horizon that the stream reaches, keyed by whole seconds."""
    reached = len(tracks.sharpness) / tracks.fps
    return {
        str(round(horizon)): drift_at(tracks, horizon)
        for horizon in horizons_s
        if horizon <= reached
    }
