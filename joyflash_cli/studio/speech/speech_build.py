"""Choose texts and voices, speak or read them, and write the speech file."""

import csv
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.studio.heads.face_state import Split
from joyflash_cli.studio.speech.speech import Utterance, make_utterance, save_speech
from joyflash_cli.studio.speech.synthesis import (
    Speech,
    align_phonemes,
    scale_frequencies,
    speak_espeak,
    speak_flite,
    speak_hibari,
)
from joyflash_cli.studio.spreading import spread

log = logging.getLogger(__name__)

Engine = Literal["hibari", "flite", "espeak", "kathleen"]

TRAIN_MIX: dict[Engine, float] = {"hibari": 0.25, "flite": 0.25, "espeak": 0.20, "kathleen": 0.33}
"""Shares of the engines; one recording in ten cannot be aligned and falls out."""
HELD_OUT_COUNTS: dict[Engine, int] = {"flite": 20, "kathleen": 34, "espeak": 10}

VOICES: dict[Split, dict[Engine, tuple[str, ...]]] = {
    "train": {
        "flite": ("slt", "awb", "kal16"),
        "espeak": ("en-us", "en-us+f2", "en-us+m3", "en-us+f4", "en-gb-x-rp", "en-us+m7",
                   "en-gb-x-rp+f3", "en-us+klatt2"),
        "hibari": ("heart",),
    },
    "held-out": {"flite": ("rms",), "espeak": ("en-gb-scotland+m5",)},
}  # fmt: skip
KATHLEEN_HELD_OUT = 100
"""The last 100 recordings, and every text they speak, are never trained on."""

_MEAN_RMS = 0.07
_LEVEL_JITTER_DB = 4.0


@dataclass(frozen=True)
class SpeechJob:
    """One utterance to make; ``recording`` is a file for the engine ``kathleen``."""

    engine: Engine
    voice: str
    text: str
    split: Split
    seed: int
    recording: Path | None = None


def build_speech(
    assets_dir: Path, out_path: Path, *, num_utterances: int, seed: int = 0, processes: int = 1
) -> list[Utterance]:
    """Make training and held-out utterances and save them in one file.

    Recordings that cannot be aligned are left out, with a line in the log, so that slightly
    fewer utterances than asked for may come out.

    Args:
        assets_dir: Folder with ``kathleen-en/transcripts.csv`` and its recordings.
        out_path: The ``.npz`` file to write; its folder is made.
        num_utterances: Training utterances; 60 held-out ones are added.
        seed: Of texts, voices and pauses.
        processes: Worker processes.

    Raises:
        DataError: The transcripts are missing, or nothing could be made.
    """
    jobs = plan_speech(assets_dir, num_utterances=num_utterances, seed=seed)
    utterances: list[Utterance] = []
    for index, utterance in enumerate(spread(run_job, jobs, processes=processes)):
        if utterance is None:
            log.info("left out: %s %s", jobs[index].voice, jobs[index].text)
        else:
            utterances.append(utterance)
        if index % 50 == 0:
            log.info("%d of %d utterances", index, len(jobs))
    save_speech(utterances, out_path)
    return utterances


def plan_speech(assets_dir: Path, *, num_utterances: int, seed: int = 0) -> list[SpeechJob]:
    """Which text is spoken by whom: training jobs first, then the held-out ones.

    Args:
        assets_dir: Folder with ``kathleen-en/transcripts.csv``.
        num_utterances: Training jobs.
        seed: Of the choice.

    Raises:
        DataError: The transcripts are missing or too few.
    """
    rows = _transcripts(assets_dir / "kathleen-en")
    held_rows, rest = rows[-KATHLEEN_HELD_OUT:], rows[:-KATHLEEN_HELD_OUT]
    held_texts = {text for _, text in held_rows}
    train_rows = [row for row in rest if row[1] not in held_texts]
    rng = np.random.default_rng(seed)
    counts = {engine: round(share * num_utterances) for engine, share in TRAIN_MIX.items()}
    jobs = _jobs(train_rows, counts, "train", rng)
    return jobs + _jobs(held_rows, HELD_OUT_COUNTS, "held-out", np.random.default_rng(seed + 1))


def _jobs(
    rows: list[tuple[Path, str]],
    counts: dict[Engine, int],
    split: Split,
    rng: np.random.Generator,
) -> list[SpeechJob]:
    """Jobs of one split in mixed order."""
    texts = sorted({text for _, text in rows})
    voices = VOICES[split]
    jobs = []
    for engine, count in counts.items():
        if engine == "kathleen":
            chosen = rng.permutation(len(rows))[:count]
            takes = [(rows[i][1], "kathleen", rows[i][0]) for i in chosen]
        else:
            takes = []
            for index in range(count):
                # Half of the synthetic utterances are two sentences: pauses inside.
                picked = rng.choice(len(texts), size=1 + int(rng.random() < 0.5), replace=False)
                text = " ".join(texts[i] for i in picked)
                takes.append((text, voices[engine][index % len(voices[engine])], None))
        for text, voice, recording in takes:
            job_seed = int(rng.integers(1 << 31))
            jobs.append(SpeechJob(engine, voice, text, split, job_seed, recording))
    return [jobs[i] for i in rng.permutation(len(jobs))]


def run_job(job: SpeechJob) -> Utterance | None:
    """Make one utterance; ``None`` when it cannot be aligned or spoken."""
    rng = np.random.default_rng(job.seed)
    try:
        waveform, phonemes = _speak(job, rng)
    except DataError as error:
        log.info("%s", error)
        return None
    level = _MEAN_RMS * 10 ** (rng.uniform(-_LEVEL_JITTER_DB, _LEVEL_JITTER_DB) / 20)
    return make_utterance(
        waveform,
        phonemes,
        voice=f"{job.engine}/{job.voice}",
        text=job.text,
        split=job.split,
        lead_s=_silence_s(rng),
        tail_s=_silence_s(rng),
        rms=level,
    )


def _speak(job: SpeechJob, rng: np.random.Generator) -> Speech:
    """Sound and phonemes of a job; training voices are varied in pace, pitch and size."""
    if job.engine == "flite":
        return speak_flite(job.text, job.voice, stretch=float(rng.uniform(0.85, 1.2)))
    if job.engine == "espeak":
        rate, pitch = int(rng.integers(135, 190)), int(rng.integers(30, 70))
        return speak_espeak(job.text, job.voice, rate=rate, pitch=pitch)
    if job.engine == "hibari":
        return speak_hibari(
            job.text,
            speed=float(rng.uniform(0.85, 1.2)),
            pitch=float(rng.uniform(0.65, 1.2)),
            size=float(rng.uniform(0.85, 1.1)),
            seed=job.seed,
        )
    return _read_recording(job, rng)


def _read_recording(job: SpeechJob, rng: np.random.Generator) -> Speech:
    """A recording with aligned phonemes; every second one for training becomes another speaker."""
    from joyflash_cli.media.inputs.audio import read_audio, to_model_waveform

    if job.recording is None:
        raise DataError(f"no recording for {job.text!r}", hint="check transcripts.csv")
    waveform = to_model_waveform(read_audio(job.recording))
    phonemes = align_phonemes(waveform, job.text)
    if job.split == "train" and rng.random() < 0.5:
        return scale_frequencies(waveform, phonemes, float(rng.uniform(0.85, 1.12)))
    return waveform, phonemes


def _silence_s(rng: np.random.Generator) -> float:
    """Most utterances start or end with 0.2 to 0.6 s of silence, the others at once."""
    return float(rng.uniform(0.2, 0.6)) if rng.random() < 0.8 else 0.0


def _transcripts(folder: Path) -> list[tuple[Path, str]]:
    """Recordings with their texts, in the order of the list."""
    path = folder / "transcripts.csv"
    if not path.is_file():
        raise DataError(f"{path} does not exist", hint="give the folder of the speech assets")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(folder / row["file"], row["text"].strip()) for row in csv.DictReader(file)]
    if len(rows) <= KATHLEEN_HELD_OUT:
        raise DataError(
            f"{path} lists {len(rows)} recordings, more than {KATHLEEN_HELD_OUT} are needed",
            hint="fetch the whole data set",
        )
    return rows
