import shutil

import numpy as np
import pytest

from joyflash_cli.errors import DataError
from joyflash_cli.studio.speech.phonemes import Phoneme
from joyflash_cli.studio.speech.speech_build import (
    KATHLEEN_HELD_OUT,
    VOICES,
    SpeechJob,
    plan_speech,
    run_job,
)
from joyflash_cli.studio.speech.synthesis import resample, scale_frequencies, speak_flite


@pytest.fixture
def assets(tmp_path):
    folder = tmp_path / "kathleen-en"
    folder.mkdir()
    # Texts repeat, as takes of one prompt do; the prompt at the border is in both parts.
    rows = [f'take_{i:03d}.opus,"Sentence number {i // 3}, said."' for i in range(400)]
    (folder / "transcripts.csv").write_text("file,text\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_held_out_texts_voices_and_recordings_are_never_trained_on(assets):
    jobs = plan_speech(assets, num_utterances=200, seed=3)
    train = [job for job in jobs if job.split == "train"]
    held = [job for job in jobs if job.split == "held-out"]
    assert 190 <= len(train) <= 220
    assert len(held) == 64
    held_texts = {f"Sentence number {i // 3}, said." for i in range(400 - KATHLEEN_HELD_OUT, 400)}
    assert not any(text in job.text for job in train for text in held_texts)
    assert all(any(text in job.text for text in held_texts) for job in held)
    unheard = {voice for voices in VOICES["held-out"].values() for voice in voices}
    for job in train:
        assert job.voice not in unheard
        if job.recording is not None:
            assert int(job.recording.stem[5:]) < 400 - KATHLEEN_HELD_OUT
    assert {job.voice for job in held} == {*unheard, "kathleen"}


def test_the_plan_depends_on_the_seed_alone(assets):
    assert plan_speech(assets, num_utterances=40, seed=1) == plan_speech(
        assets, num_utterances=40, seed=1
    )
    assert plan_speech(assets, num_utterances=40, seed=1) != plan_speech(
        assets, num_utterances=40, seed=2
    )


def test_missing_or_short_transcripts_are_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        plan_speech(tmp_path, num_utterances=4)
    (tmp_path / "kathleen-en").mkdir()
    (tmp_path / "kathleen-en" / "transcripts.csv").write_text("file,text\na.opus,Hello.\n")
    with pytest.raises(DataError, match="lists 1 recordings"):
        plan_speech(tmp_path, num_utterances=4)


def test_another_size_moves_frequencies_and_times_together():
    time = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 500 * time).astype(np.float32)
    moved, phonemes = scale_frequencies(tone, [Phoneme("arpabet", "aa", 0.2, 0.8)], 0.8)
    assert len(moved) == 20_000
    assert phonemes[0].start_s == pytest.approx(0.25)
    assert phonemes[0].end_s == pytest.approx(1.0)
    peak_hz = np.abs(np.fft.rfft(moved)).argmax() * 16_000 / len(moved)
    assert peak_hz == pytest.approx(400, abs=1)


def test_resampling_keeps_length_in_seconds():
    assert len(resample(np.zeros(24_000, np.float32), 24_000, 16_000)) == 16_000


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_flite_tells_when_each_sound_ends():
    waveform, phonemes = speak_flite("Mama.", "slt")
    assert waveform.dtype == np.float32
    assert [p.symbol for p in phonemes].count("m") == 2
    assert phonemes[0].start_s == 0
    for before, after in zip(phonemes[:-1], phonemes[1:], strict=True):
        assert after.start_s == before.end_s
    assert phonemes[-1].end_s == pytest.approx(len(waveform) / 16_000, abs=0.1)


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_a_job_gives_the_same_utterance_every_time():
    job = SpeechJob("flite", "slt", "Hope goes up.", "train", seed=5)
    first, second = run_job(job), run_job(job)
    np.testing.assert_array_equal(first.waveform, second.waveform)
    np.testing.assert_array_equal(first.visemes, second.visemes)
    assert first.visemes[:, 3].max() > 0.9  # the lips close for p


def test_an_unknown_voice_or_a_missing_recording_leaves_the_utterance_out(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert run_job(SpeechJob("flite", "slt", "Hello.", "train", seed=1)) is None
    assert run_job(SpeechJob("kathleen", "kathleen", "Hello.", "train", seed=1)) is None
