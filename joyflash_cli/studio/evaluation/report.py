"""The one report of ``joyflash evaluate tiny --held-out``: a JSON object of measured figures."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from joyflash_cli.errors import UsageError
from joyflash_cli.measures import sync
from joyflash_cli.measures.reader import Readers, load_readers
from joyflash_cli.measures.tracks import FrameTracks, drift_at
from joyflash_cli.media.sheet import write_picture
from joyflash_cli.studio.evaluation.generation import CheckpointRenderer, Renderer
from joyflash_cli.studio.evaluation.measure import (
    FPS,
    JAW,
    ClipReading,
    flicker_figures,
    mean_score,
    meter_of,
    other_people_similarity,
    read_clip,
    recognition_rate,
    reference_embedding,
    summarise,
    summarise_stream,
)
from joyflash_cli.studio.evaluation.pack import HeldOutClip, HeldOutPack, LongSound, load_pack
from joyflash_cli.studio.evaluation.sheets import clip_sheet, stream_sheet

Progress = Callable[[str, int, int], None]
"""Told (stage, steps done, steps in all)."""

NOTES = (
    "Mouth and identity figures come from small readers trained on this project's rendered heads; "
    "read them next to their ceiling (the codec's reconstruction of the truth) and 'truth' (the "
    "readers on the true frames).",
    "They are not Sync-C, Sync-D, IDC or Q-Align and not comparable with scores of those names.",
    "Rendered and drawn heads only: nothing here measures photographs of people or real recordings "
    "of mouths. Viseme tracks are rules over phoneme times, not motion capture.",
    "Correlations use one lag for all clips, the best of -5..5 frames of the mean curve; positive "
    "lags mean a late picture. The mismatched figure follows the same rule: another clip's sound "
    "is fed and the mouth compared with the clip's own track.",
    "psnr_db of generated frames counts the free head pose as error; gaze and gestures are not "
    "scored, nor are blinks: of closed lids in true video the reader sees between none and all. "
    "Drift and silence come from one person and one voice; drift compares the ten "
    "seconds before a horizon with the first ten, or the halves of a shorter stream.",
)


def evaluate_tiny(
    *,
    checkpoint: Path | None = None,
    assets_dir: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    **options: Any,
) -> dict:
    """Measure a tiny checkpoint on the recorded held-out pack.

    Args:
        checkpoint: A checkpoint directory; the embedded one if ``None``.
        assets_dir: Folder of a pack written by ``build_pack``; the recorded one if ``None``.
        device: As for ``joyflash render``.
        dtype: As for ``joyflash render``.
        options: See ``evaluate``.

    Returns:
        As ``evaluate``, with the checkpoint and the device.

    Raises:
        CheckpointError: If checkpoint or readers are missing or damaged.
        DataError: If the pack is missing or damaged.
    """
    pack, readers = load_pack(assets_dir), load_readers()
    renderer = CheckpointRenderer(checkpoint, device=device, dtype=dtype)
    return evaluate(renderer, pack, readers, **options) | renderer.about()


def evaluate(
    renderer: Renderer,
    pack: HeldOutPack,
    readers: Readers,
    *,
    horizon_s: float = 60.0,
    seed: int = 0,
    num_clips: int | None = None,
    sheets_dir: Path | None = None,
    progress: Progress | None = None,
) -> dict:
    """Measure any renderer on any pack.

    Args:
        renderer: Makes the frames.
        pack: Held-out clips and a long sound.
        readers: The two networks.
        horizon_s: Length of the long stream; its sound repeats when it is longer than a minute.
        seed: Of the noise.
        num_clips: Use only the first clips, at least 2; all if ``None``.
        sheets_dir: Folder for picture sheets; none are written if ``None``.
        progress: Told where the run is.

    Returns:
        The generated clips' figures, ``ceiling``, ``truth``, ``floor``, ``mismatched``, ``long``,
        ``clips`` and more; border flicker pools all frames, as clips have too few borders.

    Raises:
        UsageError: With fewer than two clips.
    """
    started = time.perf_counter()
    if num_clips is not None and num_clips < 2:
        message = f"{num_clips} clips cannot be measured: mismatched sound and the floor need two."
        raise UsageError(message, hint="take at least 2 clips")
    run = _Run(renderer, readers, seed, sheets_dir, progress or (lambda stage, done, of: None))
    clips = pack.clips[:num_clips]
    truth = [read_clip(clip.frames, clip, readers) for clip in clips]
    generated = _read_generated(run, clips, clips, "clips")
    shift = mismatch_shift(clips)
    wrong = (*clips[shift:], *clips[:shift])
    mismatched = _read_generated(run, clips, wrong, "mismatched")
    stream, long = _measure_long(run, clips[0], repeat_sound(pack.long, horizon_s))
    tracks = [*(reading.tracks for reading in (*generated, *mismatched)), stream]
    mismatch = _mismatch_scores(mismatched, clips, wrong)
    report = summarise(generated, clips, readers, truth=truth) | {
        **flicker_figures([each.changes for each in tracks]),
        "lip_correlation_mismatched": mismatch["lip_correlation_with_own_track"],
        **{name: long[name] for name in ("silence_ratio", "drift")},
        "ceiling": summarise(_read_ceiling(run, clips), clips, readers, truth=truth),
        "truth": _summarise_truth(truth, clips, readers),
        "floor": _floor(clips, readers),
        "mismatched": mismatch,
        "long": long,
        "clips": _per_clip(generated, truth, clips),
        "seed": seed,
        "storage_psnr_db": pack.storage_psnr_db,
        "wall_s": time.perf_counter() - started,
        "notes": list(NOTES),
    }
    return rounded(report)


def mismatch_shift(clips: Sequence[HeldOutClip]) -> int:
    """The cyclic shift of sounds whose known tracks agree least with the clips' own.

    Sentences resemble each other by chance; a mouth that follows a wrong sound perfectly would
    score that resemblance. The least similar pairing keeps it small, and the report states it.
    Only the known tracks decide, never what was generated.
    """
    tracks = np.stack([clip.visemes[:, JAW] for clip in clips])

    def resemblance(shift: int) -> float:
        return abs(mean_score(np.roll(tracks, -shift, axis=0), tracks).correlation)

    return min(range(1, len(clips)), key=resemblance)


def repeat_sound(sound: LongSound, horizon_s: float) -> LongSound:
    """The long sound repeated or cut to the horizon in whole frames."""
    num_frames = round(horizon_s * 25)
    times = -(-num_frames // len(sound.visemes))
    per_frame = len(sound.waveform) // len(sound.visemes)
    return replace(
        sound,
        waveform=np.tile(sound.waveform, times)[: num_frames * per_frame],
        visemes=np.tile(sound.visemes, (times, 1))[:num_frames],
    )


def horizons(horizon_s: float) -> tuple[float, ...]:
    """The horizons that drift is reported at: 5, 30, 60 and 300 s as far as the run goes."""
    marks = [mark for mark in (5.0, 30.0, 60.0, 300.0) if mark < horizon_s]
    return (*marks, horizon_s)


def rounded(value):
    """The same JSON with floats cut to five significant digits, so that reports can be read."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


@dataclass(frozen=True)
class _Run:
    """What every stage of one evaluation shares."""

    renderer: Renderer
    readers: Readers
    seed: int
    sheets_dir: Path | None
    tell: Progress


def _read_ceiling(run: _Run, clips: Sequence[HeldOutClip]) -> list[ClipReading]:
    return [
        read_clip(run.renderer.reconstruct(clip.frames, clip.reference), clip, run.readers)
        for clip in clips
    ]


def _read_generated(
    run: _Run, clips: Sequence[HeldOutClip], sounds: Sequence[HeldOutClip], stage: str
) -> list[ClipReading]:
    """Readings of each clip's picture animated by the sound of the clip beside it."""
    readings = []
    for index, (clip, sound) in enumerate(zip(clips, sounds, strict=True)):
        chunks = run.renderer.stream(clip.reference, sound.waveform, seed=run.seed + index)
        frames = np.concatenate(list(chunks))
        readings.append(read_clip(frames, clip, run.readers))
        if run.sheets_dir is not None:
            path = run.sheets_dir / f"{stage}-{clip.name.removeprefix('clip-')}.png"
            write_picture(path, clip_sheet(frames, clip))
        run.tell(stage, index + 1, len(clips))
    return readings


def _measure_long(run: _Run, clip: HeldOutClip, sound: LongSound) -> tuple[FrameTracks, dict]:
    meter = meter_of(clip, run.readers)
    total = len(sound.visemes)
    done, kept, render_s = 0, [], 0.0
    started = time.perf_counter()
    for frames in run.renderer.stream(clip.reference, sound.waveform, seed=run.seed):
        render_s += time.perf_counter() - started
        meter.add(frames)
        kept.append(frames[0])
        done += len(frames)
        run.tell("long", done, total)
        started = time.perf_counter()
    if run.sheets_dir is not None:
        write_picture(run.sheets_dir / "long.png", stream_sheet(np.stack(kept), clip))
    tracks = meter.tracks(FPS)
    marks = horizons(total / FPS)
    summary = summarise_stream(tracks, clip, sound, run.readers, horizons_s=marks)
    speed = {"frames_per_second": done / max(render_s, 1e-9), "voice": sound.voice}
    return tracks, summary | speed


def _mismatch_scores(
    readings: Sequence[ClipReading], clips: Sequence[HeldOutClip], wrong: Sequence[HeldOutClip]
) -> dict[str, float]:
    own = np.stack([clip.visemes[:, JAW] for clip in clips])
    fed = np.stack([clip.visemes[:, JAW] for clip in wrong])
    read = np.stack([reading.tracks.jaw for reading in readings])
    return {
        "lip_correlation_with_own_track": mean_score(read, own).correlation,
        "lip_correlation_with_fed_track": mean_score(read, fed).correlation,
        "lip_correlation_between_tracks": mean_score(fed, own).correlation,
    }


def _summarise_truth(
    truth: Sequence[ClipReading], clips: Sequence[HeldOutClip], readers: Readers
) -> dict:
    """How well the readers themselves do, on true frames of people they never saw."""
    references = np.stack([reference_embedding(clip, readers) for clip in clips])
    return summarise(truth, clips, readers) | {
        "recognition_rate": recognition_rate(
            [reading.tracks.identity for reading in truth], references
        ),
        "drift_within_clip": _natural_variation(truth),
    }


def _natural_variation(truth: Sequence[ClipReading]) -> dict[str, float]:
    """Second against first half of the true clips: what pose and speech alone make of drift."""
    rows = [drift_at(each.tracks, len(each.tracks.colour) / FPS) for each in truth]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _floor(clips: Sequence[HeldOutClip], readers: Readers) -> dict:
    """The reference picture standing still, and other people's likeness."""
    static = [
        read_clip(np.repeat(clip.reference[None], len(clip.frames), axis=0), clip, readers)
        for clip in clips
    ]
    references = np.stack([reference_embedding(clip, readers) for clip in clips])
    return summarise(static, clips, readers) | {
        "identity_similarity_of_other_people": other_people_similarity(references)
    }


def _per_clip(
    generated: Sequence[ClipReading],
    truth: Sequence[ClipReading],
    clips: Sequence[HeldOutClip],
) -> list[dict]:
    rows = []
    for reading, true, clip in zip(generated, truth, clips, strict=True):
        score = sync.score_curve(sync.lag_curve(reading.tracks.jaw, clip.visemes[:, JAW]))
        best = sync.score_curve(sync.lag_curve(true.tracks.jaw, clip.visemes[:, JAW]))
        rows.append(
            {
                "name": clip.name,
                "kind": clip.kind,
                "voice": clip.voice,
                "lip_correlation": score.correlation,
                "lip_lag_frames": score.lag_frames,
                "lip_correlation_of_truth": best.correlation,
                "first_frame_psnr_db": reading.first_frame_psnr_db,
            }
        )
    return rows
