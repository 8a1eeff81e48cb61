"""Crude talking faces with known tracks, for tests of the measurements."""

from pathlib import Path

import numpy as np

from joyflash_cli.studio.clips.clips import MARGIN_FRAMES, ClipStore, identity_index
from joyflash_cli.studio.clips.shards import write_shard
from joyflash_cli.studio.speech.speech import Utterance

NUM_FRAMES = 33
MOUTH_BOX = np.array([40, 78, 88, 108], np.int32)
EYES_BOX = np.array([36, 44, 92, 66], np.int32)


def smooth_track(rng: np.random.Generator, num_frames: int, *, width: int = 5) -> np.ndarray:
    """A random track in 0..1 that changes at the pace of speech."""
    raw = np.convolve(rng.normal(size=num_frames + 40), np.hanning(width + 2), "same")
    raw = raw[20 : 20 + num_frames]
    return ((raw - raw.min()) / (np.ptp(raw) + 1e-6)).astype(np.float32)


def draw_face(jaw: np.ndarray, blink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames ``(F, 128, 128, 3)`` of an ellipse with eyes and a mouth of this opening."""
    y, x = np.mgrid[:128, :128].astype(np.float32)
    face = np.ones((128, 128, 3)) * rng.uniform(40, 200, 3)
    face[((x - 64) / 38) ** 2 + ((y - 66) / 52) ** 2 < 1] = rng.uniform(110, 230, 3)
    face += rng.normal(0, 5, (128, 128, 1))
    frames = []
    for opening, lid in zip(jaw, blink, strict=True):
        frame = face.copy()
        height = 1.5 + 9 * opening
        frame[((x - 64) / 17) ** 2 + ((y - 92) / (height + 3)) ** 2 < 1] = (170, 70, 80)
        frame[((x - 64) / 14) ** 2 + ((y - 92) / height) ** 2 < 1] = (40, 10, 15)
        for centre in (48, 80):
            eye = ((x - centre) / 7) ** 2 + ((y - 55) / (4 * (1 - 0.9 * lid))) ** 2 < 1
            frame[eye] = (30, 30, 40)
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return np.stack(frames)


def make_clip(index: int, *, split: str = "held-out", kind: str = "makehuman") -> dict:
    """One clip in the layout of ``write_shard``."""
    rng = np.random.default_rng([index, split == "train"])
    visemes = np.stack([smooth_track(rng, NUM_FRAMES) for _ in range(6)], 1)
    visemes[0] = 0
    blink = np.zeros(NUM_FRAMES, np.float32)
    loudness = np.repeat(np.pad(visemes[:, 0], MARGIN_FRAMES), 640)
    return {
        "frames": draw_face(visemes[:, 0], blink, rng),
        "visemes": visemes,
        "blink": blink,
        "lips": np.stack([visemes[:, 0] / 4, np.full(NUM_FRAMES, 0.5), 0.3 * (1 - blink)], 1),
        "waveform": (0.2 * loudness * rng.normal(size=len(loudness))).astype(np.float32),
        "mouth_box": MOUTH_BOX,
        "eyes_box": EYES_BOX,
        "about": {
            "identity": identity_index(index, split=split),
            "kind": kind,
            "split": split,
            "voice": f"voice/{index % 2}",
            "text": f"text {index}",
        },
    }


def make_store(directory: Path, *, num_clips: int = 6, split: str = "held-out") -> ClipStore:
    """A store on disk whose last third is drawn heads."""
    directory.mkdir(parents=True, exist_ok=True)
    clips = [
        make_clip(i, split=split, kind="drawn" if i >= num_clips * 2 // 3 else "makehuman")
        for i in range(num_clips)
    ]
    write_shard(directory / "shard-0000", clips)
    return ClipStore(directory)


def make_speech(*, split: str = "held-out", num_frames: int = 60) -> list[Utterance]:
    """Two noisy utterances of one voice."""
    utterances = []
    for index in range(2):
        rng = np.random.default_rng([7, index])
        visemes = np.stack([smooth_track(rng, num_frames) for _ in range(6)], 1)
        loudness = np.repeat(0.05 + visemes[:, 0], 640)
        waveform = (0.2 * loudness * rng.normal(size=len(loudness))).astype(np.float32)
        utterances.append(Utterance(waveform, (), "flite/rms", f"words {index}", split, visemes))
    return utterances
