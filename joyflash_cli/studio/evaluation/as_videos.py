"""Generated clips judged as ``joyflash evaluate videos`` judges anybody's: by the same metrics."""

import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from joyflash_cli.errors import JoyFlashError
from joyflash_cli.measures.reader import Readers
from joyflash_cli.measures.table import Measure
from joyflash_cli.media.outputs.writer import open_muxer
from joyflash_cli.media.sheet import write_picture
from joyflash_cli.studio.evaluation.measure import FPS
from joyflash_cli.studio.evaluation.pack import HeldOutClip
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ, AudioClip


@cache
def video_measures() -> Mapping[str, Measure]:
    """The figures that are averaged, by name: those of which more, or less, is better."""
    from joyflash_cli.measures.metrics import METRICS

    return {
        measure.name: measure
        for metric in METRICS
        for measure in metric.measures
        if measure.better in ("high", "low") and metric.name != "speed"
    }


def judge_as_videos(
    made: Sequence[np.ndarray], clips: Sequence[HeldOutClip], readers: Readers
) -> dict[str, float | None]:
    """Means over clips by name of the figure; ``None`` for what is known of no clip.

    Args:
        made: Frames ``(F, H, W, 3)`` uint8 of each clip.
        clips: Their pictures, sounds and true films.
        readers: Embed the person.
    """
    from joyflash_cli.measures.clip import Clip, VideoRow
    from joyflash_cli.measures.metrics import METRICS

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
