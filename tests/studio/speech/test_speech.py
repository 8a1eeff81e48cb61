import numpy as np
import pytest

from joyflash_cli.errors import DataError
from joyflash_cli.studio.speech.phonemes import Phoneme
from joyflash_cli.studio.speech.speech import load_speech, make_utterance, save_speech


def example(split="train", seconds=0.731, **options):
    rng = np.random.default_rng(len(split))
    waveform = rng.uniform(-0.3, 0.3, int(16_000 * seconds)).astype(np.float32)
    phonemes = [Phoneme("arpabet", "aa", 0.1, 0.5), Phoneme("espeak", "m", 0.5, 0.6)]
    return make_utterance(
        waveform, phonemes, voice="test/one", text="ah, m", split=split, **options
    )


def test_an_utterance_fills_whole_frames_and_moves_its_phonemes():
    utterance = example(lead_s=0.4, tail_s=0.3, rms=0.05)
    assert len(utterance.waveform) == utterance.num_frames * 640
    assert utterance.num_frames == np.ceil((0.4 + 0.731 + 0.3) * 25)
    assert utterance.phonemes[0].start_s == pytest.approx(0.5)
    assert (utterance.waveform[:6400] == 0).all()
    spoken = utterance.waveform[6400 : 6400 + int(16_000 * 0.731)]
    assert np.sqrt(np.mean(spoken**2)) == pytest.approx(0.05, rel=1e-3)
    assert (utterance.visemes[:8] == 0).all()
    assert utterance.visemes[14:20, 0].min() > 0.5


def test_what_is_saved_is_loaded(tmp_path):
    utterances = [example(), example("held-out", seconds=1.2)]
    path = tmp_path / "speech.npz"
    save_speech(utterances, path)
    loaded = load_speech(path)
    assert [u.split for u in loaded] == ["train", "held-out"]
    for before, after in zip(utterances, loaded, strict=True):
        np.testing.assert_allclose(after.waveform, before.waveform, atol=2e-5)
        np.testing.assert_allclose(after.visemes, before.visemes, atol=1e-3)
        assert after.phonemes == before.phonemes
        assert (after.voice, after.text) == (before.voice, before.text)
    assert [u.split for u in load_speech(path, split="held-out")] == ["held-out"]


def test_nothing_to_save_and_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match="no utterance"):
        save_speech([], tmp_path / "none.npz")
    with pytest.raises(DataError, match="cannot be read"):
        load_speech(tmp_path / "missing.npz")
    wrong = tmp_path / "wrong.npz"
    wrong.write_bytes(b"not a zip archive")
    with pytest.raises(DataError, match="cannot be read"):
        load_speech(wrong)
