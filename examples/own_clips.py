"""Talking clips to try training with: drawn heads whose jaws follow a voice-like tone.

python examples/own_clips.py FOLDER [NUMBER]     (needs joyflash[train])

Every clip is a video, its sound and a caption, named alike, as a folder of your own would be.
"""

import sys
from pathlib import Path

import numpy as np

from joyflash_cli.media.inputs.audio import write_wav
from joyflash_cli.studio.clips.clip_file import write_frames
from joyflash_cli.studio.heads.drawn import sample_drawn
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.types import AudioClip

FPS = 25
RATE_HZ = 16_000
DURATION_S = 3.4


def voice(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Samples of a tone in syllables, and how far the jaw is open in every frame, 0..1."""
    times = np.arange(round(DURATION_S * RATE_HZ)) / RATE_HZ
    beat = np.clip(np.sin(2 * np.pi * rng.uniform(2.5, 4.0) * times + rng.uniform(0, 6)), 0, 1)
    phrase = np.clip(1.5 * np.sin(2 * np.pi * 0.45 * times + rng.uniform(0, 6)) + 0.9, 0, 1)
    loudness = beat * phrase
    pitch_hz = rng.uniform(110, 220)
    tone = sum(np.sin(2 * np.pi * pitch_hz * k * times) / k for k in range(1, 12))
    num_frames = round(DURATION_S * FPS)
    jaw = loudness[(np.arange(num_frames) * RATE_HZ) // FPS]
    return (0.2 * loudness * tone).astype(np.float32), jaw


def write_clip(folder: Path, index: int) -> None:
    """One clip as ``clip-NN.mp4``, ``.wav`` and ``.txt``."""
    rng = np.random.default_rng([7, index])
    head = sample_drawn(rng, size_px=128, split="train")
    samples, jaw = voice(rng)
    yaw = 0.1 * np.sin(np.arange(len(jaw)) / rng.uniform(9, 15))
    frames = np.stack(
        [
            head.render(FaceState(visemes=np.array([j, 0, 0, 0, 0, 0], np.float32), yaw=float(y)))
            for j, y in zip(jaw, yaw, strict=True)
        ]
    )
    stem = folder / f"clip-{index:02d}"
    write_frames(stem.with_suffix(".mp4"), frames, fps=FPS)
    write_wav(stem.with_suffix(".wav"), AudioClip(samples[:, None], RATE_HZ))
    stem.with_suffix(".txt").write_text("A drawn person talks to the camera.\n")


def main(folder: Path, number: int = 12) -> None:
    """Write the clips."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        write_clip(folder, index)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
