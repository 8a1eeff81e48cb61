"""Training of the audio front end, and its file."""

import json

import numpy as np
import pytest
import torch

from joyflash_cli.encoders.front_end import FrontEnd, FrontEndConfig
from joyflash_cli.errors import CheckpointError, DataError
from joyflash_cli.studio.speech.phonemes import Phoneme
from joyflash_cli.studio.speech.speech import make_utterance
from joyflash_cli.studio.training.front_end import (
    FrontEndTrainingConfig,
    augment_mel,
    augment_waveform,
    draw_batch,
    load_front_end,
    save_front_end,
    train_front_end,
    viseme_correlations,
)
from joyflash_cli.studio.training.session import ALONE, Session, TrainingStopped
from joyflash_cli.studio.training.trainer import OptimiserConfig


def buzzing(seed):
    """Bursts of a buzz, each an open vowel: the simplest language there is."""
    rng = np.random.default_rng(seed)
    samples, phonemes, now = [], [], 0.0
    for _ in range(5):
        pause, burst = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.4)
        time = np.arange(int(burst * 16_000)) / 16_000
        tone = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 8))
        samples += [np.zeros(int(pause * 16_000)), 0.1 * tone]
        phonemes.append(Phoneme("arpabet", "aa", now + pause, now + pause + burst))
        now += (len(samples[-2]) + len(samples[-1])) / 16_000
    waveform = np.concatenate(samples).astype(np.float32)
    return make_utterance(waveform, phonemes, voice="test/buzz", text="ah", split="train")


SIZES = FrontEndConfig(num_mels=16, stem_width=8, hidden=24, num_blocks=2)


def short_training(steps):
    return FrontEndTrainingConfig(
        OptimiserConfig(steps=steps, learning_rate=3e-3, warmup_steps=2, ema_decay=0.9),
        batch=6,
        crop_rows=50,
    )


def test_training_teaches_the_jaw(tmp_path):
    speech = [buzzing(seed) for seed in range(6)]
    held_out = [buzzing(100), buzzing(101), buzzing(102)]
    lines = []
    model = train_front_end(
        short_training(120), speech=speech, held_out=held_out, out_dir=tmp_path, sizes=SIZES,
        session=Session(on_log=lines.append),
    )  # fmt: skip
    matched = viseme_correlations(model, held_out)["jaw"]
    assert matched > 0.8
    assert lines[-1]["jaw"] == pytest.approx(matched)


def test_a_stopped_training_goes_on_bit_for_bit(tmp_path):
    speech = [buzzing(seed) for seed in range(2)]

    def train(folder, session=ALONE):
        return train_front_end(
            short_training(8), speech=speech, held_out=[], out_dir=tmp_path / folder, sizes=SIZES,
            session=session,
        )  # fmt: skip

    whole = train("whole").state_dict()
    with pytest.raises(TrainingStopped):
        train("parts", Session(should_stop=lambda: True))
    for name, value in train("parts", Session(resumes=True)).state_dict().items():
        assert torch.equal(value, whole[name]), name


def test_batches_keep_sound_and_track_together():
    config = FrontEndTrainingConfig(batch=8, crop_rows=50)
    for seed in range(4):
        waveform, track = draw_batch([buzzing(1)], config, np.random.default_rng(seed))
        assert waveform.shape == (8, 50 * 640)
        assert track.shape == (8, 50, 6)
        loud = waveform.reshape(8, 50, 640).square().mean(2).sqrt()
        pair = np.corrcoef(loud.flatten(), track[..., 0].flatten())
        assert pair[0, 1] > 0.8


def test_augmentation_keeps_shapes_and_stays_finite():
    rng = np.random.default_rng(0)
    waveform = torch.zeros(6, 6400)
    waveform[1:] = 0.3 * torch.randn(5, 6400, generator=torch.Generator().manual_seed(0))
    augmented = augment_waveform(waveform, rng)
    assert augmented.shape == waveform.shape
    assert torch.isfinite(augmented).all()
    assert augmented.abs().max() <= 1
    mel = torch.zeros(6, 16, 40)
    tinted = augment_mel(mel, rng)
    assert tinted.shape == mel.shape
    torch.testing.assert_close(tinted, tinted[..., :1].expand_as(tinted))
    assert not torch.allclose(tinted, mel)


def test_no_speech_is_named(tmp_path):
    with pytest.raises(DataError, match="no utterance"):
        train_front_end(FrontEndTrainingConfig(), speech=[], held_out=[], out_dir=tmp_path)


@pytest.fixture
def front_end():
    torch.manual_seed(0)
    return FrontEnd(FrontEndConfig(num_mels=16, stem_width=8, hidden=24, num_blocks=5)).eval()


def test_saved_weights_come_back(front_end, tmp_path):
    path = tmp_path / "front_end.safetensors"
    save_front_end(front_end, path)
    loaded = load_front_end(path)
    assert loaded.config == front_end.config
    waveform = 0.1 * torch.randn(9 * 640, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded.encode(waveform, 9), front_end.encode(waveform, 9))


def test_files_that_do_not_fit_are_named(front_end, tmp_path):
    path = tmp_path / "front_end.safetensors"
    with pytest.raises(CheckpointError, match="no audio front end"):
        load_front_end(path)
    save_front_end(front_end, path)
    sizes = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(sizes | {"hidden": 32}))
    with pytest.raises(CheckpointError, match="no audio front end"):
        load_front_end(path)
