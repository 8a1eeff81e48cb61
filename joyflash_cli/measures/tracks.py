"""A few numbers for every frame of a video, and what changes slowly over them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from joyflash_cli.measures.identity import cosine
from joyflash_cli.measures.quality import Box, frame_changes, mean_colour, sharpness

if TYPE_CHECKING:
    from joyflash_cli.measures.film import FilmReading
    from joyflash_cli.measures.reader import Readers


@dataclass(frozen=True, eq=False)
class FrameTracks:
    """What was read from all frames of a video, small enough to keep for hours.

    Attributes:
        colour: Mean colour in 0..255, ``(F, 3)``.
        sharpness: Mean gradient magnitude in the face, ``(F,)``.
        changes: Mean absolute difference to the frame before in 0..255, ``(F - 1,)``.
        visemes: ``(F, 6)``, the opening of the mouth first; empty without readers.
        identity: Embeddings, ``(F, D)``; empty without readers.
        fps: Frames per second.
    """

    colour: np.ndarray
    sharpness: np.ndarray
    changes: np.ndarray
    visemes: np.ndarray
    identity: np.ndarray
    fps: float = 25.0

    @property
    def jaw(self) -> np.ndarray:
        """Opening of the mouth, about 0..1, ``(F,)``."""
        return self.visemes[:, 0]


class FrameMeter:
    """Takes a video chunk by chunk and keeps its ``FrameTracks``.

    Args:
        face: Where sharpness is measured; ``None`` is the whole frame.
        readers: Read mouths and the person; ``None`` leaves both out.
        mouth_box: ``(x0, y0, x1, y1)`` in what the readers see, likewise ``eyes_box``.
    """

    def __init__(
        self,
        *,
        face: Box | None = None,
        readers: "Readers | None" = None,
        mouth_box: np.ndarray | None = None,
        eyes_box: np.ndarray | None = None,
    ) -> None:
        self._face, self._readers = face, readers
        self._boxes = (mouth_box, eyes_box)
        self._last: np.ndarray | None = None
        self._parts: dict[str, list[np.ndarray]] = {
            name: [] for name in ("colour", "sharpness", "changes", "visemes", "identity")
        }

    def add(self, frames: np.ndarray, heads: np.ndarray | None = None) -> None:
        """Measure the next frames.

        Args:
            frames: ``(F, H, W, 3)`` uint8.
            heads: What the readers see of them, ``(F, h, w, 3)``; the frames if ``None``.
        """
        parts = self._parts
        parts["colour"].append(mean_colour(frames))
        parts["sharpness"].append(sharpness(frames, box=self._face))
        before = frames[:0] if self._last is None else self._last[None]
        parts["changes"].append(frame_changes(np.concatenate([before, frames])))
        self._last = frames[-1]
        mouth, eyes = self._boxes
        if self._readers is not None and mouth is not None and eyes is not None:
            heads = frames if heads is None else heads
            parts["visemes"].append(self._readers.read_mouth(heads, mouth, eyes).visemes)
            parts["identity"].append(self._readers.embed(heads, mouth, eyes))

    def tracks(self, fps: float = 25.0) -> FrameTracks:
        """All frames so far."""
        found = {
            name: np.concatenate(parts) if parts else np.zeros((0, 0))
            for name, parts in self._parts.items()
        }
        return FrameTracks(**found, fps=fps)


WINDOW_S = 10.0
"""Seconds that are compared. Poses and mouth shapes come and go within them."""


def window_frames(horizon_s: float, fps: float) -> int:
    """Frames of each of the two compared parts: ten seconds, or half of a shorter stream."""
    return max(1, round(min(WINDOW_S, horizon_s / 2) * fps))


def drift_at(tracks: "FrameTracks | FilmReading", horizon_s: float) -> dict[str, float]:
    """Drift of the ten seconds that end at ``horizon_s`` relative to the first ten.

    Returns:
        ``colour``, ``sharpness`` and ``identity`` as docs/measurements.md says.

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
