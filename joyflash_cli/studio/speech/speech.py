"""Utterances with phoneme times and viseme tracks, and the file they are kept in."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.studio.heads.face_state import VISEMES, Split
from joyflash_cli.studio.speech.phonemes import Phoneme
from joyflash_cli.studio.speech.visemes import local_energy, viseme_track
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

TRACK_FPS = 25
SAMPLES_PER_FRAME = MODEL_SAMPLE_RATE_HZ // TRACK_FPS
"""640 samples of 16 kHz sound belong to one video frame."""

_PCM_SCALE = 32767.0


@dataclass(frozen=True)
class Utterance:
    """One spoken text.

    Attributes:
        waveform: ``(num_frames * 640,)`` float32 mono 16 kHz in -1..1.
        phonemes: Sounds in order of time.
        voice: ``engine/voice``, e.g. ``flite/slt``.
        text: What is said.
        split: ``train`` or ``held-out``.
        visemes: ``(num_frames, 6)`` float32 at 25 frames a second.
    """

    waveform: np.ndarray
    phonemes: tuple[Phoneme, ...]
    voice: str
    text: str
    split: Split
    visemes: np.ndarray

    @property
    def num_frames(self) -> int:
        """Video frames the sound lasts."""
        return len(self.visemes)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.waveform) / MODEL_SAMPLE_RATE_HZ


def make_utterance(
    waveform: np.ndarray,
    phonemes: Sequence[Phoneme],
    *,
    voice: str,
    text: str,
    split: Split,
    lead_s: float = 0.0,
    tail_s: float = 0.0,
    rms: float | None = None,
) -> Utterance:
    """Surround speech with silence, fill up to whole frames and compute its viseme track.

    Args:
        waveform: ``(n,)`` float32 mono 16 kHz.
        phonemes: Sounds with times in ``waveform``.
        voice: ``engine/voice``.
        text: What is said.
        split: ``train`` or ``held-out``.
        lead_s: Silence before, seconds.
        tail_s: Silence after, seconds.
        rms: Loudness to bring the speech to (root mean square); ``None`` leaves it.
    """
    lead = int(round(lead_s * MODEL_SAMPLE_RATE_HZ))
    total = lead + len(waveform) + int(round(tail_s * MODEL_SAMPLE_RATE_HZ))
    num_frames = -(-total // SAMPLES_PER_FRAME)
    padded = np.zeros(num_frames * SAMPLES_PER_FRAME, np.float32)
    level = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) if len(waveform) else 0.0
    gain = rms / level if rms is not None and level > 0 else 1.0
    padded[lead : lead + len(waveform)] = np.clip(gain * waveform, -1, 1)
    shift = lead / MODEL_SAMPLE_RATE_HZ
    moved = tuple(replace(p, start_s=p.start_s + shift, end_s=p.end_s + shift) for p in phonemes)
    track = viseme_track(moved, num_frames, fps=TRACK_FPS, energy=local_energy(padded))
    return Utterance(padded, moved, voice, text, split, track)


def save_speech(utterances: Sequence[Utterance], path: Path) -> None:
    """Write utterances to one ``.npz`` file: 16-bit sound, float16 tracks, JSON for the rest.

    Args:
        utterances: At least one.
        path: File to write; its folder is made.

    Raises:
        DataError: There is nothing to write.
    """
    if not utterances:
        raise DataError("no utterance to save", hint="check that the voices are installed")
    metadata = [
        {
            "voice": u.voice,
            "text": u.text,
            "split": u.split,
            "phonemes": [
                [p.symbol_set, p.symbol, round(p.start_s, 4), round(p.end_s, 4)] for p in u.phonemes
            ],
        }
        for u in utterances
    ]
    pcm = [np.round(u.waveform * _PCM_SCALE).astype(np.int16) for u in utterances]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        pcm=np.concatenate(pcm),
        visemes=np.concatenate([u.visemes for u in utterances]).astype(np.float16),
        num_frames=np.array([u.num_frames for u in utterances], np.int64),
        metadata=np.frombuffer(json.dumps(metadata).encode(), np.uint8),
    )


def load_speech(path: Path | str, *, split: Split | None = None) -> list[Utterance]:
    """Read what ``save_speech`` wrote.

    Args:
        path: The ``.npz`` file.
        split: Keep only this split; ``None`` keeps all.

    Raises:
        DataError: The file is missing or is no speech file, or it has nothing of the split.
    """
    try:
        with np.load(path) as stored:
            pcm, tracks = stored["pcm"], stored["visemes"]
            ends = np.cumsum(stored["num_frames"])
            metadata = json.loads(stored["metadata"].tobytes())
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as a speech file: {error}", hint="build it with the data step"
        ) from error
    if len(ends) != len(metadata) or tracks.shape != (int(ends[-1]), len(VISEMES)):
        raise DataError(f"{path} is damaged: its parts do not fit", hint="build it again")
    utterances = []
    for end, start, item in zip(ends, [0, *ends[:-1]], metadata, strict=True):
        if split is not None and item["split"] != split:
            continue
        samples = slice(int(start) * SAMPLES_PER_FRAME, int(end) * SAMPLES_PER_FRAME)
        about = item | {"phonemes": tuple(Phoneme(*p) for p in item["phonemes"])}
        waveform = (pcm[samples] / _PCM_SCALE).astype(np.float32)
        visemes = tracks[start:end].astype(np.float32)
        utterances.append(Utterance(waveform=waveform, visemes=visemes, **about))
    if split is not None and not utterances:
        raise DataError(f"{path} has no utterance of split {split}.")
    return utterances
