"""Everything that is measured on one clip, on a set of clips, and on one long stream."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from joyflash_cli.measures import sync
from joyflash_cli.measures.identity import cosine, similarity_to_reference
from joyflash_cli.measures.quality import border_flicker, psnr_db, speckle
from joyflash_cli.measures.reader import Readers, face_box
from joyflash_cli.measures.tracks import FrameMeter, FrameTracks, drift_at
from joyflash_cli.studio.evaluation.pack import HeldOutClip, LongSound
from joyflash_cli.studio.heads.face_state import VISEMES

JAW = VISEMES.index("jaw")
FPS = 25.0
STILL_LEVELS = 1.0
"""Largest standard deviation in time of a true pixel that counts as still, in 0..255."""


@dataclass(frozen=True, eq=False)
class ClipReading:
    """What was read from one clip's frames.

    Attributes:
        tracks: What is read of every frame.
        first_frame_psnr_db: First frame against the reference picture.
        psnr_db: All frames against the truth; means little where the pose is free.
        mouth_psnr_db: The same in the mouth's box.
        speckle: Noise of the still background; ``None`` where nothing stands still.
    """

    tracks: FrameTracks
    first_frame_psnr_db: float
    psnr_db: float
    mouth_psnr_db: float
    speckle: float | None


def meter_of(clip: HeldOutClip, readers: Readers) -> FrameMeter:
    """What measures frames of a clip's person, where the clip's face is."""
    left, top, right, bottom = face_box(clip.mouth_box, clip.eyes_box).round().astype(int).tolist()
    return FrameMeter(
        face=(left, top, right, bottom),
        readers=readers,
        mouth_box=clip.mouth_box,
        eyes_box=clip.eyes_box,
    )


def read_tracks(frames: np.ndarray, clip: HeldOutClip, readers: Readers) -> FrameTracks:
    """Tracks of frames ``(F, H, W, 3)`` of a clip's person."""
    meter = meter_of(clip, readers)
    meter.add(frames)
    return meter.tracks(FPS)


def read_clip(frames: np.ndarray, clip: HeldOutClip, readers: Readers) -> ClipReading:
    """Everything that the readers and the pixel measures say about frames ``(F, H, W, 3)``.

    Raises:
        ValueError: If the frames are not as many as the clip's.
    """
    if frames.shape != clip.frames.shape:
        raise ValueError(f"frames of shape {frames.shape} do not fit {clip.frames.shape}")
    left, top, right, bottom = (int(edge) for edge in clip.mouth_box)
    # What hardly changes in time in the true clip stands still.
    still = clip.frames.astype(np.float32).std(0).max(-1) <= STILL_LEVELS
    return ClipReading(
        tracks=read_tracks(frames, clip, readers),
        first_frame_psnr_db=psnr_db(frames[0], clip.reference),
        psnr_db=psnr_db(frames, clip.frames),
        mouth_psnr_db=psnr_db(frames, clip.frames, box=(left, top, right, bottom)),
        speckle=speckle(frames, still),
    )


def flicker_figures(changes: list[np.ndarray]) -> dict[str, float | None]:
    """``border_flicker`` of clips by the names of the report."""
    found = border_flicker(changes)
    return {
        "border_flicker": found["all"],
        "border_flicker_latent_steps": found["latent_steps"],
        "border_flicker_local": found["local"],
    }


def summarise(
    readings: Sequence[ClipReading],
    clips: Sequence[HeldOutClip],
    readers: Readers,
    *,
    truth: Sequence[ClipReading] | None = None,
) -> dict:
    """Means over clips; everything is JSON.

    Args:
        readings: One per clip.
        clips: With the known tracks.
        readers: Embed the reference pictures.
        truth: The true frames' readings, for ratios to the truth.
    """
    known = np.stack([clip.visemes for clip in clips])
    read = np.stack([reading.tracks.visemes for reading in readings])
    jaw = mean_score(read[..., JAW], known[..., JAW])
    similarities = [
        similarity_to_reference(reading.tracks.identity, reference_embedding(clip, readers))
        for reading, clip in zip(readings, clips, strict=True)
    ]
    summary = {
        "lip_correlation": jaw.correlation,
        "lip_lag_frames": jaw.lag_frames,
        "lip_correlation_at_zero_lag": jaw.correlation_at_zero,
        "lip_p_value": permutation_p_value(read[..., JAW], known[..., JAW]),
        "viseme_correlation": {
            name: mean_score(read[..., i], known[..., i]).correlation_at_zero
            for i, name in enumerate(VISEMES)
        },
        "first_frame_psnr_db": _mean([r.first_frame_psnr_db for r in readings]),
        "identity_similarity": _mean(similarities),
        **flicker_figures([r.tracks.changes for r in readings]),
        "speckle": _mean([r.speckle for r in readings]),
        "frame_change": _mean([float(r.tracks.changes.mean()) for r in readings]),
        "psnr_db": _mean([r.psnr_db for r in readings]),
        "mouth_psnr_db": _mean([r.mouth_psnr_db for r in readings]),
    }
    if truth is not None:
        summary |= relative_to_truth(readings, truth)
    return summary


def relative_to_truth(readings: Sequence[ClipReading], truth: Sequence[ClipReading]) -> dict:
    """Ratios to what the same readers see on the true frames."""
    pairs = [(r.tracks, t.tracks) for r, t in zip(readings, truth, strict=True)]

    def ratio(values: list[tuple[float, float]]) -> float | None:
        found = [ours / theirs for ours, theirs in values if theirs > 1e-6]
        return _mean(found)

    flicker, true_flicker = (
        border_flicker([r.tracks.changes for r in part])["all"] for part in (readings, truth)
    )
    return {
        "mouth_amplitude": ratio([(float(r.jaw.std()), float(t.jaw.std())) for r, t in pairs]),
        "sharpness": ratio(
            [(float(r.sharpness.mean()), float(t.sharpness.mean())) for r, t in pairs]
        ),
        "border_flicker_relative": flicker / true_flicker if flicker and true_flicker else None,
    }


def mean_score(read: np.ndarray, known: np.ndarray) -> sync.SyncScore:
    """Score of the mean lag curve over clips: one lag for all, so no clip picks its own.

    Args:
        read: ``(n, F)``.
        known: ``(n, F)``.
    """
    curves = [sync.lag_curve(ours, target) for ours, target in zip(read, known, strict=True)]
    return sync.score_curve(np.mean(curves, axis=0))


def reference_embedding(clip: HeldOutClip, readers: Readers) -> np.ndarray:
    """Identity embedding ``(D,)`` of a clip's reference picture."""
    return readers.embed(clip.reference[None], clip.mouth_box, clip.eyes_box)[0]


def other_people_similarity(references: np.ndarray) -> float:
    """Mean cosine between different people's references ``(n, D)``: the measure's floor.

    Raises:
        ValueError: With fewer than two people.
    """
    if len(references) < 2:
        raise ValueError("a floor needs at least two people")
    pairs = cosine(references[:, None], references[None])
    return float(pairs[~np.eye(len(references), dtype=bool)].mean())


def recognition_rate(embeddings: list[np.ndarray], references: np.ndarray) -> float:
    """Share of frames whose nearest reference is their own.

    Args:
        embeddings: Of each clip's frames, ``(F, D)``; clip i belongs to reference i.
        references: ``(n, D)``.
    """
    hits = [
        (cosine(frames[:, None], references[None]).argmax(1) == index).mean()
        for index, frames in enumerate(embeddings)
    ]
    return float(np.mean(hits))


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
    curves = np.array([[sync.lag_curve(ours, known) for known in targets] for ours in generated])
    rows, rng = np.arange(len(curves)), np.random.default_rng(seed)
    observed = curves[rows, rows].mean(0).max()
    reached = sum(
        bool(curves[rows, rng.permutation(len(rows))].mean(0).max() >= observed)
        for _ in range(num_permutations)
    )
    return (1 + reached) / (1 + num_permutations)


def summarise_stream(
    tracks: FrameTracks,
    clip: HeldOutClip,
    sound: LongSound,
    readers: Readers,
    *,
    horizons_s: tuple[float, ...],
) -> dict:
    """Drift, stillness in silence and lip agreement over a long stream, as JSON."""
    jaw = tracks.jaw
    known = sound.visemes[: len(jaw), JAW]
    silent = sync.quiet_frames(sync.speech_level_db(sound.waveform, len(jaw)))
    movement = sync.movement_ratio(jaw, silent)
    score = sync.score_curve(sync.lag_curve(jaw, known))
    third = len(jaw) // 3
    return {
        "frames": len(jaw),
        "drift": drift_table(tracks, horizons_s),
        "silence_ratio": movement.ratio,
        "silence_ratio_known_track": sync.movement_ratio(known, silent).ratio,
        "silence_frames": movement.silence_frames,
        "silence_opening": _mean_where(jaw, silent),
        "speech_opening": _mean_where(jaw, ~silent),
        "lip_correlation": score.correlation,
        "lip_lag_frames": score.lag_frames,
        "lip_correlation_first_third": sync.correlation(jaw[:third], known[:third]),
        "lip_correlation_last_third": sync.correlation(jaw[-third:], known[-third:]),
        **flicker_figures([tracks.changes]),
        "timeline": _timeline(tracks, reference_embedding(clip, readers)),
    }


def drift_table(tracks: FrameTracks, horizons_s: Sequence[float]) -> dict[str, dict[str, float]]:
    """``drift_at`` of every horizon that the stream reaches, keyed by whole seconds."""
    reached = len(tracks.sharpness) / tracks.fps
    return {str(round(s)): drift_at(tracks, s) for s in horizons_s if s <= reached}


def _timeline(
    tracks: FrameTracks, reference: np.ndarray, *, every_s: int = 5
) -> list[dict[str, float]]:
    second = round(tracks.fps)
    rows = []
    for stop in range(second, len(tracks.sharpness) + 1, every_s * second):
        window = slice(stop - second, stop)
        colour = tracks.colour[window].mean(0)
        likeness = float(cosine(tracks.identity[window], reference).mean())
        rows.append(
            {
                "s": stop / tracks.fps,
                "red": float(colour[0]),
                "green": float(colour[1]),
                "blue": float(colour[2]),
                "sharpness": float(tracks.sharpness[window].mean()),
                "identity_to_reference": likeness,
            }
        )
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _mean_where(track: np.ndarray, mask: np.ndarray) -> float | None:
    return float(track[mask].mean()) if mask.any() else None
