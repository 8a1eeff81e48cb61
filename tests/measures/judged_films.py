"""Films of known quality: true, late, still, blurred, growing old, with lips of other words."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from tests.report.clips import held_out, write_video

NUM_FRAMES = 80


def blurred(frame: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius)))


def aged(frames: np.ndarray) -> np.ndarray:
    """Sharp and of true colour at the beginning, blurred and reddish at the end."""
    found = []
    for index, frame in enumerate(frames):
        age = index / len(frames)
        found.append(blurred(frame, 2 * age) * (1 - age * np.array([0, 0.3, 0.3])))
    return np.stack(found).astype(np.uint8)


def qualities() -> tuple[dict[str, np.ndarray], object]:
    """Frames by what is wrong with them, and the sound of all."""
    frames, sound = held_out("clip-00")
    frames = frames[:NUM_FRAMES]
    return {
        "true": frames,
        "late": np.concatenate([frames[:1], frames[:1], frames[:-2]]),
        "still": np.repeat(frames[:1], len(frames), axis=0),
        "blurred": np.stack([blurred(frame, 2) for frame in frames]),
        "aged": aged(frames),
        "other": frames[::-1],  # the same person; backwards its lips say something else
    }, sound


def write_qualities(folder: Path) -> Path:
    """``folder/made/QUALITY.mp4`` and ``folder/true/QUALITY.mp4``, the true film of each."""
    films, sound = qualities()
    for name in ("made", "true"):
        (folder / name).mkdir(parents=True)
    for quality, frames in films.items():
        write_video(folder / "made" / f"{quality}.mp4", frames, sound)
        write_video(folder / "true" / f"{quality}.mp4", films["true"], sound)
    return folder
