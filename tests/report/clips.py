"""Folders of short videos for the report's tests: real frames of the held-out pack, their sound."""

import json
from pathlib import Path

import numpy as np

from joyflash_cli.media.inputs.audio import read_audio
from joyflash_cli.media.outputs.writer import open_muxer
from joyflash_cli.render.record import RunRecord, write_sidecar
from joyflash_cli.studio.clips.clip_file import read_frames
from joyflash_cli.studio.evaluation.pack import default_directory
from joyflash_cli.types import AudioClip

HOSTILE = '<script>document.title="taken"</script>\n"&\U0001f600'


def held_out(name: str = "clip-00") -> tuple[np.ndarray, AudioClip]:
    """True frames ``(73, 128, 128, 3)`` of a rendered head, and what it says."""
    folder = default_directory()
    frames = read_frames(folder / f"{name}.mp4")
    sound = read_audio(folder / f"{name}.flac")
    return frames, sound


def write_video(
    path: Path, frames: np.ndarray, sound: AudioClip | None = None, *, profile: str | None = None
) -> Path:
    """An MP4 with the comment that a profile's videos carry, or with none."""
    comment = {}
    if profile is not None:
        record = RunRecord(path, "complete", profile, 0, 25.0, 0, 0.0, 0.0, checkpoint_version="1")
        comment = {"comment": record.notice}
    num_samples = 0 if sound is None else round(len(frames) / 25 * sound.sample_rate_hz)
    cut = None if sound is None else AudioClip(sound.samples[:num_samples], sound.sample_rate_hz)
    size = frames.shape[2], frames.shape[1]
    with open_muxer(path, size=size, fps=25, audio=cut, metadata=comment) as muxer:
        muxer.write(frames)
        muxer.finish()
    return path


def write_record(path: Path, *, num_frames: int, **changes) -> None:
    """The record beside a video."""
    values = {
        "output": path, "status": "complete", "profile": "tiny", "seed": 7, "fps": 25.0,
        "video_frames": num_frames, "audio_s": num_frames / 25, "wall_s": 2.0, "device": "cpu",
        "dtype": "float32", "checkpoint_version": "1", "weights_sha256": "ab" * 32,
        "first_frame_s": 0.5, "block_timings_s": (0.5, 0.2, 0.2), "prompt": HOSTILE,
        "parameters": {"sampler": {"block_frames": 3}},
    } | changes  # fmt: skip
    write_sidecar(path, RunRecord(**values))


def write_folder(folder: Path) -> Path:
    """A batch's folder: rows done, failed and open, and a video of unknown origin."""
    folder.mkdir(parents=True, exist_ok=True)
    frames, sound = held_out()
    write_video(folder / "a.mp4", frames, sound, profile="tiny")
    write_record(folder / "a.mp4", num_frames=len(frames), warnings=("two <b>faces</b>",))
    wide = np.concatenate([frames[:60], frames[:60]], axis=2)
    write_video(folder / "wide 'quoted\".mp4", wide)
    rows = [
        {"id": "row-a", "state": "done", "output": "a.mp4"},
        {"id": "<img src=x onerror=alert(1)>", "state": "failed", "output": "b.mp4",
         "error_code": "E-AUDIO-EMPTY", "error": "talk.wav has no samples </script>"},
        {"id": "later", "state": "open", "output": "c.mp4"},
    ]  # fmt: skip
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "results.jsonl").write_text(lines, encoding="utf-8")
    return folder
