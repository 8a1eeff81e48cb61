"""What the ablation tables need of one variant: the clips' figures, and drift at long horizons.

Nothing else is made: no mismatched sound, no ceiling, and of the long stream only the parts
that are compared. The figures are those of ``studio.evaluation.report``, with its clips, noise and
readers.
"""

import numpy as np

from joyflash_cli.measures.quality import border_flicker, frame_changes
from joyflash_cli.measures.reader import Readers
from joyflash_cli.measures.tracks import drift_at, window_frames
from joyflash_cli.studio.evaluation.ablation import DRIFT_HORIZONS_S
from joyflash_cli.studio.evaluation.as_videos import judge_as_videos
from joyflash_cli.studio.evaluation.generation import CheckpointRenderer
from joyflash_cli.studio.evaluation.measure import FPS, read_clip, read_tracks, summarise
from joyflash_cli.studio.evaluation.pack import HeldOutPack
from joyflash_cli.studio.evaluation.report import repeat_sound


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
        ``drift`` by whole seconds, and ``videos``, see ``as_videos``.
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
