"""Figures of a film of a speaking face, alone, with its sound, and beside the true film.

All work at any size and frame rate; docs/measurements.md says what they mean. One that does not
apply is ``None``, never 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.measures import sync
from joyflash_cli.measures.film import FilmReading
from joyflash_cli.measures.identity import similarity_to_reference
from joyflash_cli.measures.quality import border_flicker, psnr_db
from joyflash_cli.measures.tracks import drift_at

SMOOTHING_S = 0.028
"""Standard deviation by which tracks of lips are smoothed: 0.7 frames at 25 a second."""

MAX_LAG_S = 0.2
MIN_S = 1.0
"""Films shorter than this say nothing about lags of 0.2 s either way."""

SHUT = 0.7
"""Lids below this share of their usual opening are shut; on films of people the count of blinks
hardly depends on it between 0.65 and 0.75."""

BLINK_S = (0.08, 0.48)
"""Shortest and longest blink: 2 to 12 frames at 25 a second. A longer look down is none."""

USUAL_PERCENTILE = 75

Value = float | None


@dataclass(frozen=True, eq=False)
class Figures:
    """Figures of one film, or of several together.

    Attributes:
        values: Name to value.
        curves: Name to lag curve ``(lags,)``; only their mean over films is read for a lag, so
            that no film picks its own.
        weight: How much this counts when it is averaged: seconds of a film, or 1 of a person.
        num_films: Films behind it.
    """

    values: dict[str, Value]
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    weight: float = 1.0
    num_films: int = 1

    def table(self) -> dict[str, float | int | None]:
        """All as JSON, with what the curves say."""
        found: dict[str, float | int | None] = {}
        for name, curve in self.curves.items():
            score = sync.score_curve(curve)
            kind, _, rest = name.partition("_")
            rest = f"_{rest}" if rest else ""
            found[f"{kind}_correlation{rest}"] = score.correlation
            found[f"{kind}_lag_frames{rest}"] = score.lag_frames
            found[f"{kind}_correlation_at_zero_lag{rest}"] = score.correlation_at_zero
        return found | self.values

    def joined(self, other: "Figures", *, prefix: str = "") -> "Figures":
        """With another's figures of the same film, their names after ``prefix``."""
        values = {f"{prefix}{name}": value for name, value in other.values.items()}
        curves = {f"{prefix}{name}": curve for name, curve in other.curves.items()}
        return replace(self, values=self.values | values, curves=self.curves | curves)


def combined(parts: Sequence[Figures]) -> Figures:
    """The weighted mean of figures; a value that is ``None`` in one is averaged over the others."""
    values: dict[str, Value] = {}
    curves = {}
    for name in dict.fromkeys(name for part in parts for name in part.values):
        having = [part for part in parts if part.values.get(name) is not None]
        known = np.array([part.values[name] for part in having], np.float64)
        values[name] = float(_mean(known, having)) if having else None
    for name in dict.fromkeys(name for part in parts for name in part.curves):
        having = [part for part in parts if name in part.curves]
        curves[name] = _mean(np.stack([part.curves[name] for part in having]), having)
    return Figures(values, curves, num_films=sum(part.num_films for part in parts))


def _mean(rows: np.ndarray, of: Sequence[Figures]) -> np.ndarray:
    return np.average(rows, axis=0, weights=np.array([part.weight for part in of]))


def figures_of(film: FilmReading, waveform: np.ndarray | None = None) -> Figures:
    """What frames say without a truth.

    Args:
        film: At least a second long.
        waveform: Its sound, 16 kHz from frame 0; ``None`` leaves the figures of sound out.

    Returns:
        Figures that docs/measurements.md explains; those of sound with ``waveform`` only.

    Raises:
        DataError: If the film is too short.
    """
    check_length(film)
    drift = drift_at(film, len(film.sharpness) / film.fps)
    light = (film.inside / film.skin.clip(min=1)[:, None])[film.open_frames]
    values: dict[str, Value] = {
        "mouth_movement": float(smoothed(film.opening, film.fps).std()),
        "blinks_per_min": 60 * count_blinks(film.lids, film.fps) * film.fps / len(film.lids),
        "inside_lightness_p95": float(light[:, 0].mean()) if len(light) else None,
        "inside_lightness_mean": float(light[:, 1].mean()) if len(light) else None,
        "face_seen": float(film.seen.mean()),
        "identity_similarity": similarity_to_reference(film.identity, film.identity[0]),
        **{f"{name}_drift": value for name, value in drift.items()},
        "border_flicker": border_flicker([film.changes])["all"],
    }
    curves = {}
    if waveform is not None:
        level_db = sync.speech_level_db(waveform, len(film.opening), fps=film.fps)
        curves["sound"] = _curve(film.opening, sync.loudness(level_db), film.fps)
    return Figures(values, curves, weight=len(film.opening) / film.fps)


def check_length(film: FilmReading) -> None:
    """Refuse a film that says nothing about lags.

    Raises:
        DataError: If it is too short.
    """
    seconds = len(film.opening) / film.fps
    if seconds < MIN_S:
        raise DataError(f"it lasts {seconds:.2f} s; at least {MIN_S:g} s are needed")


def compare(made: FilmReading, true: FilmReading) -> Figures:
    """A film beside the true one of the same person and sound.

    Both begin together. Where the true one has another frame rate its tracks are read at the times
    of the made one's frames; what only one of them has at the end does not count.

    Returns:
        Figures of lips, width and open mouths that docs/measurements.md explains.

    Raises:
        DataError: If they have less than a second in common.
    """
    shared_s = min(len(film.opening) / film.fps for film in (made, true))
    num_frames = round(shared_s * made.fps)
    if num_frames < MIN_S * made.fps:
        raise DataError(
            f"it has {shared_s:.2f} s in common with its true film; at least {MIN_S:g} s are needed"
        )
    times_s = np.arange(num_frames) / made.fps
    values = compare_open_mouths(made, true)
    curves = {}
    for name, figure, track in (("lip", "mouth", "opening"), ("width", "width", "width")):
        ours, theirs = getattr(made, track)[:num_frames], getattr(true, track)
        theirs = np.interp(times_s, np.arange(len(theirs)) / true.fps, theirs)
        values[f"{figure}_amplitude"] = _amplitude(ours, theirs, made.fps)
        curves[name] = _curve(ours, theirs, made.fps)
    return Figures(values, curves, weight=num_frames / made.fps)


def _amplitude(ours: np.ndarray, theirs: np.ndarray, fps: float) -> Value:
    spread = float(smoothed(theirs, fps).std())
    return float(smoothed(ours, fps).std()) / spread if spread > sync.STILL else None


def mismatched_curve(made: FilmReading, others: Sequence[FilmReading]) -> np.ndarray:
    """Mean lag curve of a film's opening against the truths of other sentences, ``(lags,)``.

    Sentences resemble each other, if only in beginning and ending in silence: what a correlation
    with the own truth is worth is its distance from this.
    """
    curves = []
    for other in others:
        length = min(len(made.opening), len(other.opening))
        curves.append(_curve(made.opening[:length], other.opening[:length], made.fps))
    return np.mean(curves, axis=0)


def compare_open_mouths(made: FilmReading, true: FilmReading) -> dict[str, Value]:
    """How like the person's own open mouth the drawn one is, whenever it opens.

    Every open mouth is compared with the true frame of the nearest opening and width, so that
    timing does not count. A mouth that opens further than the true one ever does finds no equal.

    Returns:
        ``open_mouth_psnr_db``, ``teeth`` and ``open_mouths``, see docs/measurements.md.
    """
    open_frames = made.open_frames
    candidates = np.flatnonzero(true.seen)
    if not len(open_frames):
        return {"open_mouth_psnr_db": None, "teeth": None, "open_mouths": 0.0}
    ours, theirs = (np.stack([film.opening, film.width], -1) for film in (made, true))
    distance = np.linalg.norm(ours[open_frames, None] - theirs[candidates], axis=-1)
    nearest = candidates[distance.argmin(1)]
    likeness = [
        psnr_db(made.mouths[here], true.mouths[there])
        for here, there in zip(open_frames, nearest, strict=True)
    ]
    brighter = made.inside[open_frames, 0] - true.inside[nearest, 0]
    brighter = brighter[~np.isnan(brighter)]
    return {
        "open_mouth_psnr_db": float(np.mean(likeness)),
        "teeth": float(brighter.mean()) if len(brighter) else None,
        "open_mouths": float(len(open_frames)),
    }


def count_blinks(lids: np.ndarray, fps: float) -> int:
    """How often the lids shut for as long as a blink takes.

    A blink is an opening below ``SHUT`` of the film's usual one (its 75th percentile) for 0.08 to
    0.48 s. Shorter ones fall through a low frame rate; half-blinks that stay above do not count.

    Args:
        lids: Opening of the lids, ``(F,)``.
        fps: Frames per second.
    """
    shut = lids < SHUT * np.percentile(lids, USUAL_PERCENTILE)
    edges = np.flatnonzero(np.diff(np.pad(shut.astype(np.int8), 1)))
    lengths = edges[1::2] - edges[::2]
    shortest, longest = (max(1, round(seconds * fps)) for seconds in BLINK_S)
    return int(((lengths >= shortest) & (lengths <= longest)).sum())


def smoothed(track: np.ndarray, fps: float) -> np.ndarray:
    """A track ``(F,)`` without the jitter that a reader adds from frame to frame."""
    deviation = SMOOTHING_S * fps
    reach = math.ceil(2 * deviation)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    return np.convolve(np.pad(track, reach, mode="edge"), kernel / kernel.sum(), "valid")


def _curve(ours: np.ndarray, theirs: np.ndarray, fps: float) -> np.ndarray:
    return sync.lag_curve(
        smoothed(ours, fps), smoothed(theirs, fps), max_lag=round(MAX_LAG_S * fps)
    )
