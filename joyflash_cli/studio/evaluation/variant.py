"""What the ablation tables need of one variant: the clips' figures, and drift at long horizons.

Nothing else is made: no mismatched sound, no ceiling, and of the long stream only the parts
that are compared. The figures are those of ``studio.evaluation.report``, with its clips, noise and
readers.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from joyflash_cli.errors import JoyFlashError
from joyflash_cli.measures.clip import Clip, VideoRow
from joyflash_cli.measures.metrics import METRICS
from joyflash_cli.measures.quality import border_flicker, frame_changes
from joyflash_cli.measures.reader import Readers
from joyflash_cli.measures.tracks import drift_at, window_frames
from joyflash_cli.media.outputs.writer import open_muxer
from joyflash_cli.media.sheet import write_picture
from joyflash_cli.studio.evaluation.ablation import DRIFT_HORIZONS_S, video_measures
from joyflash_cli.studio.evaluation.generation import CheckpointRenderer
from joyflash_cli.studio.evaluation.measure import FPS, read_clip, read_tracks, summarise
from joyflash_cli.studio.evaluation.pack import HeldOutClip, HeldOutPack
from joyflash_cli.studio.evaluation.report import repeat_sound
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ, AudioClip


def measure_variant(
    renderer: CheckpointRenderer,
    pack: HeldOutPack,
    readers: Readers,
    *,
    horizon_s: float,
    seed: int,
    num_clips: int | None = None,
) -> dict:
    """Figures of one variant.

    Args:
        renderer: Its checkpoint.
        pack: Held-out clips and a long sound.
        readers: The two networks.
        horizon_s: Length of the long stream.
        seed: Of the noise.
        num_clips: Use only the first clips; all if ``None``.

    Returns:
        ``summarise`` of the clips, with ``border_flicker`` pooled with the long stream's start,
        ``drift`` by whole seconds, and ``videos``, see ``judge_as_videos``.
    """
    clips = pack.clips[:num_clips]
    made = [
        np.concatenate(list(renderer.stream(clip.reference, clip.waveform, seed=seed + index)))
        for index, clip in enumerate(clips)
    ]
    readings = [read_clip(frames, clip, readers) for frames, clip in zip(made, clips, strict=True)]
    truth = [read_clip(clip.frames, clip, readers) for clip in clips]
    sound = repeat_sound(pack.long, horizon_s)
    total = len(sound.visemes)
    stops = [round(mark * FPS) for mark in DRIFT_HORIZONS_S if mark * FPS < total] + [total]
    windows = [window_frames(stop / FPS, FPS) for stop in stops]
    begin, *ends = renderer.stream_stretches(
        clips[0].reference,
        sound.waveform,
        seed=seed,
        stretches=[
            (0, max(windows)),
            *((stop - window, stop) for stop, window in zip(stops, windows, strict=True)),
        ],
    )
    flicker = border_flicker([*(r.tracks.changes for r in readings), frame_changes(begin)])
    return summarise(readings, clips, readers, truth=truth) | {
        "border_flicker": flicker["all"],
        "videos": judge_as_videos(made, clips, readers),
        "drift": {
            str(round(stop / FPS)): drift_at(
                read_tracks(np.concatenate([begin[: len(end)], end]), clips[0], readers),
                2 * len(end) / FPS,
            )
            for stop, end in zip(stops, ends, strict=True)
        },
    }


def judge_as_videos(
    made: Sequence[np.ndarray], clips: Sequence[HeldOutClip], readers: Readers
) -> dict[str, float | None]:
    """Clips judged as ``joyflash evaluate videos`` judges anybody's: means by name of the figure.

    ``None`` for what is known of no clip.

    Args:
        made: Frames ``(F, H, W, 3)`` uint8 of each clip.
        clips: Their pictures, sounds and true films.
        readers: Embed the person.
    """
    metrics = [metric for metric in METRICS if metric.name != "speed" and not metric.missing()]
    found: dict[str, list[float]] = {name: [] for name in video_measures()}
    with tempfile.TemporaryDirectory() as folder:
        for frames, clip in zip(made, clips, strict=True):
            row = VideoRow(
                clip.name,
                _written(Path(folder) / f"{clip.name}.mp4", frames, clip.waveform),
                reference=Path(folder) / f"{clip.name}.png",
                truth=_written(Path(folder) / f"{clip.name}-true.mp4", clip.frames, clip.waveform),
            )
            write_picture(Path(folder) / f"{clip.name}.png", clip.reference)
            judged = Clip(row, readers)
            for metric in metrics:
                try:
                    values = metric.compute(judged).values
                except JoyFlashError:
                    continue  # no face to be read: the others' mean stands
                for name, value in values.items():
                    if name in found and value is not None:
                        found[name].append(value)
    return {name: float(np.mean(values)) if values else None for name, values in found.items()}


def _written(path: Path, frames: np.ndarray, waveform: np.ndarray) -> Path:
    sound = AudioClip(waveform.astype(np.float32)[:, None], MODEL_SAMPLE_RATE_HZ)
    size = frames.shape[2], frames.shape[1]
    with open_muxer(path, size=size, fps=FPS, audio=sound) as muxer:
        muxer.write(frames)
        muxer.finish()
    return path
