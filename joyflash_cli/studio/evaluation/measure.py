"""Everything that is measured on one clip, on a set of clips, and on one long stream."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from joyflash_cli.measures import sync
from joyflash_cli.measures.drift import StreamTracks, drift_table
from joyflash_cli.measures.identity import cosine, similarity_to_reference
from joyflash_cli.measures.quality import (
    border_flicker,
    frame_changes,
    mean_colour,
    psnr_db,
    sharpness,
    speckle,
    still_background,
)
from joyflash_cli.measures.reader import Readers, face_box
from joyflash_cli.studio.evaluation.pack import HeldOutClip, LongSound
from joyflash_cli.studio.heads.face_state import VISEMES

JAW = VISEMES.index("jaw")
FPS = 25.0


@dataclass(frozen=True)
class ClipReading:
    """What was read from one clip's frames.

    Attributes:
        visemes: ``(F, 6)``.
        blink: ``(F,)``.
        embeddings: Identity embeddings, ``(F, D)``.
        sharpness: In the face, ``(F,)``.
        changes: Mean absolute difference to the frame before, ``(F - 1,)``.
        first_frame_psnr_db: First frame against the reference picture.
        psnr_db: All frames against the truth; means little where the pose is free.
        mouth_psnr_db: The same in the mouth's box.
        speckle: Noise of the still background; ``None`` where nothing stands still.
    """

    visemes: np.ndarray
    blink: np.ndarray
    embeddings: np.ndarray
    sharpness: np.ndarray
    changes: np.ndarray
    first_frame_psnr_db: float
    psnr_db: float
    mouth_psnr_db: float
    speckle: float | None


def read_clip(frames: np.ndarray, clip: HeldOutClip, readers: Readers) -> ClipReading:
    """Everything that the readers and the pixel measures say about frames ``(F, H, W, 3)``.

    Raises:
        ValueError: If the frames are not as many as the clip's.
    """
    if frames.shape != clip.frames.shape:
        raise ValueError(f"frames of shape {frames.shape} do not fit {clip.frames.shape}")
    mouth = readers.read_mouth(frames, clip.mouth_box, clip.eyes_box)
    left, top, right, bottom = (int(edge) for edge in clip.mouth_box)
    return ClipReading(
        visemes=mouth.visemes,
        blink=mouth.blink,
        embeddings=readers.embed(frames, clip.mouth_box, clip.eyes_box),
        sharpness=face_sharpness(frames, clip),
        changes=frame_changes(frames),
        first_frame_psnr_db=psnr_db(frames[0], clip.reference),
        psnr_db=psnr_db(frames, clip.frames),
        mouth_psnr_db=psnr_db(frames, clip.frames, box=(left, top, right, bottom)),
        speckle=speckle(frames, still_background(clip.frames)),
    )


def face_sharpness(frames: np.ndarray, clip: HeldOutClip) -> np.ndarray:
    """Sharpness ``(F,)`` of frames ``(F, H, W, 3)`` where the clip's face is."""
    left, top, right, bottom = face_box(clip.mouth_box, clip.eyes_box).round().astype(int)
    return sharpness(frames, box=(left, top, right, bottom))


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
    read = np.stack([reading.visemes for reading in readings])
    jaw = mean_score(read[..., JAW], known[..., JAW])
    flicker = border_flicker([reading.changes for reading in readings])
    similarities = [
        similarity_to_reference(reading.embeddings, reference_embedding(clip, readers))
        for reading, clip in zip(readings, clips, strict=True)
    ]
    summary = {
        "lip_correlation": jaw.correlation,
        "lip_lag_frames": jaw.lag_frames,
        "lip_correlation_at_zero_lag": jaw.correlation_at_zero,
        "lip_p_value": sync.permutation_p_value(read[..., JAW], known[..., JAW]),
        "viseme_correlation": {
            name: mean_score(read[..., i], known[..., i]).correlation_at_zero
            for i, name in enumerate(VISEMES)
        },
        "first_frame_psnr_db": _mean([r.first_frame_psnr_db for r in readings]),
        "identity_similarity": _mean(similarities),
        "border_flicker": flicker["all"],
        "border_flicker_latent_steps": flicker["latent_steps"],
        "border_flicker_local": flicker["local"],
        "speckle": _mean([r.speckle for r in readings]),
        "frame_change": _mean([float(r.changes.mean()) for r in readings]),
        "psnr_db": _mean([r.psnr_db for r in readings]),
        "mouth_psnr_db": _mean([r.mouth_psnr_db for r in readings]),
    }
    if truth is not None:
        summary |= relative_to_truth(readings, truth)
    return summary


def relative_to_truth(readings: Sequence[ClipReading], truth: Sequence[ClipReading]) -> dict:
    """Ratios to what the same readers see on the true frames."""
    pairs = list(zip(readings, truth, strict=True))

    def ratio(values: list[tuple[float, float]]) -> float | None:
        found = [ours / theirs for ours, theirs in values if theirs > 1e-6]
        return _mean(found)

    flicker = border_flicker([r.changes for r in readings])["all"]
    true_flicker = border_flicker([r.changes for r in truth])["all"]
    return {
        "mouth_amplitude": ratio(
            [(float(r.visemes[:, JAW].std()), float(t.visemes[:, JAW].std())) for r, t in pairs]
        ),
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


class StreamMeter:
    """Measures a long stream chunk by chunk; its memory is a few numbers per frame.

    Args:
        clip: Whose reference picture is animated; gives boxes.
        readers: The two networks.
    """

    def __init__(self, clip: HeldOutClip, readers: Readers) -> None:
        self.clip = clip
        self.readers = readers
        self._last: np.ndarray | None = None
        self._parts: dict[str, list[np.ndarray]] = {
            name: [] for name in ("visemes", "identity", "colour", "sharpness", "changes")
        }

    def add(self, frames: np.ndarray) -> None:
        """Measure the next frames ``(F, H, W, 3)`` uint8 of the stream."""
        clip, parts = self.clip, self._parts
        mouth = self.readers.read_mouth(frames, clip.mouth_box, clip.eyes_box)
        parts["visemes"].append(mouth.visemes)
        parts["identity"].append(self.readers.embed(frames, clip.mouth_box, clip.eyes_box))
        parts["colour"].append(mean_colour(frames))
        parts["sharpness"].append(face_sharpness(frames, clip))
        before = frames[:0] if self._last is None else self._last[None]
        parts["changes"].append(frame_changes(np.concatenate([before, frames])))
        self._last = frames[-1]

    def track(self, name: str) -> np.ndarray:
        """``visemes``, ``identity``, ``colour``, ``sharpness`` or ``changes`` of all frames."""
        return np.concatenate(self._parts[name])

    def summary(self, sound: LongSound, *, horizons_s: tuple[float, ...]) -> dict:
        """Drift, stillness in silence and lip agreement over the stream, as JSON."""
        jaw = self.track("visemes")[:, JAW]
        known = sound.visemes[: len(jaw), JAW]
        silent = sync.silence_mask(sound.waveform, len(jaw))
        movement = sync.movement_ratio(jaw, silent)
        true_movement = sync.movement_ratio(known, silent)
        tracks = StreamTracks(
            self.track("colour"), self.track("sharpness"), self.track("identity"), FPS
        )
        score = sync.score_curve(sync.lag_curve(jaw, known))
        third = len(jaw) // 3
        flicker = border_flicker([self.track("changes")])
        return {
            "frames": len(jaw),
            "drift": drift_table(tracks, horizons_s),
            "silence_ratio": movement.ratio,
            "silence_ratio_known_track": true_movement.ratio,
            "silence_frames": movement.silence_frames,
            "silence_opening": _mean_where(jaw, silent),
            "speech_opening": _mean_where(jaw, ~silent),
            "lip_correlation": score.correlation,
            "lip_lag_frames": score.lag_frames,
            "lip_correlation_first_third": sync.correlation(jaw[:third], known[:third]),
            "lip_correlation_last_third": sync.correlation(jaw[-third:], known[-third:]),
            "border_flicker": flicker["all"],
            "border_flicker_latent_steps": flicker["latent_steps"],
            "border_flicker_local": flicker["local"],
            "timeline": self._timeline(tracks),
        }

    def _timeline(self, tracks: StreamTracks, *, every_s: int = 5) -> list[dict[str, float]]:
        reference = reference_embedding(self.clip, self.readers)
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
