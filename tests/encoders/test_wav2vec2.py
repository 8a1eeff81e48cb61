"""wav2vec2 rows: counts, normalisation policies, hidden states, short audio."""

import dataclasses
import math

import pytest
import torch

transformers = pytest.importorskip("transformers")

from from_state import wav2vec2_from_state  # noqa: E402
from presets import AUDIO_AVATARFORCING, AUDIO_LIVETALK  # noqa: E402

from joyflash_cli.encoders.wav2vec2 import Wav2Vec2Encoder, Wav2Vec2Options  # noqa: E402
from joyflash_cli.errors import AudioError, ConfigError  # noqa: E402

CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 8,
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**CONFIG)).eval()


@pytest.fixture(scope="module")
def waveform():
    return torch.randn(24_000, generator=torch.Generator().manual_seed(3)) * 0.1 + 0.02


@pytest.mark.parametrize(
    "options", [AUDIO_AVATARFORCING, AUDIO_LIVETALK], ids=["avatarforcing", "livetalk"]
)
@pytest.mark.parametrize("num_rows", [1, 2, 13, 60])
def test_as_many_rows_as_asked_for(model, waveform, options, num_rows):
    encoder = Wav2Vec2Encoder(model, options)
    rows = encoder.encode(waveform, num_rows)
    assert rows.shape == (num_rows, encoder.feature_dim) == (num_rows, 4 * 16)
    assert torch.isfinite(rows).all()


def test_leading_row_is_zero_and_moves_the_rest(model, waveform):
    with_zero = Wav2Vec2Encoder(model, AUDIO_AVATARFORCING).encode(waveform, 21)
    options = dataclasses.replace(AUDIO_AVATARFORCING, leading_zero_row=False)
    without = Wav2Vec2Encoder(model, options).encode(waveform, 20)
    assert not with_zero[0].any()
    assert torch.equal(with_zero[1:], without)


def test_row_is_last_state_then_all_states(model, waveform):
    encoder = Wav2Vec2Encoder(model, AUDIO_LIVETALK)
    rows = encoder.encode(waveform, 17)
    stages = encoder.encode_stages(waveform, 17)
    assert len(stages.hidden_states) == 3
    assert torch.equal(rows[:, :16], rows[:, -16:])
    assert torch.equal(rows[:, 16:32], stages.hidden_states[0][0])
    last_only = dataclasses.replace(AUDIO_LIVETALK, hidden_states="last")
    assert torch.equal(Wav2Vec2Encoder(model, last_only).encode(waveform, 17), rows[:, :16])


def test_states_are_those_of_the_whole_model(model, waveform):
    """At the native rate, our pieces are the model's own forward."""
    options = Wav2Vec2Options(rate_hz=50.0, resampling="none")
    stages = Wav2Vec2Encoder(model, options).encode_stages(waveform, 40)
    with torch.no_grad():
        expected = model(stages.normalised, output_hidden_states=True)
    assert stages.features.shape[1] == 40
    torch.testing.assert_close(stages.hidden_states[-1], expected.last_hidden_state)
    for ours, theirs in zip(stages.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_interpolation_keeps_the_end_points(model, waveform):
    stages = Wav2Vec2Encoder(model, AUDIO_LIVETALK).encode_stages(waveform, 23)
    torch.testing.assert_close(stages.resampled[:, 0], stages.features[:, 0])
    torch.testing.assert_close(stages.resampled[:, -1], stages.features[:, -1])


def test_normalisation_spans(model, waveform):
    """Cut first: statistics of what is kept. Whole first: statistics of everything."""
    loud_end = waveform.clone()
    loud_end[16_000:] *= 10
    cut = Wav2Vec2Encoder(model, AUDIO_LIVETALK).encode_stages(loud_end, 17).normalised
    assert cut.shape == (1, 16_000)
    assert abs(float(cut.mean())) < 1e-5
    assert math.isclose(float(cut.std(correction=0)), 1.0, abs_tol=1e-3)
    whole = Wav2Vec2Encoder(model, AUDIO_AVATARFORCING).encode_stages(loud_end, 25).normalised
    assert whole.shape == (1, 25 * 640)
    expected = (loud_end - loud_end.mean()) / torch.sqrt(loud_end.var(correction=0) + 1e-7)
    torch.testing.assert_close(whole[0], expected[:16_000])


def test_short_audio_continues_with_silence(model, waveform):
    encoder = Wav2Vec2Encoder(model, AUDIO_LIVETALK)
    short = waveform[:8000]
    normalised = encoder.encode_stages(short, 17).normalised[0]
    assert len(normalised) == 16_000
    spread = torch.sqrt(short.var(correction=0) + 1e-7)
    torch.testing.assert_close(
        normalised[8000:], (-short.mean() / spread).expand(8000), atol=1e-6, rtol=0
    )
    zeros = dataclasses.replace(AUDIO_LIVETALK, short_audio="zeros")
    padded = Wav2Vec2Encoder(model, zeros).encode_stages(short, 17).normalised[0]
    assert torch.equal(padded[:8000], normalised[:8000])
    assert not padded[8000:].any()
    stretched = dataclasses.replace(AUDIO_LIVETALK, short_audio="stretch")
    stages = Wav2Vec2Encoder(model, stretched).encode_stages(short, 17)
    assert stages.normalised.shape == (1, 8000)
    assert stages.resampled.shape[1] == 17


def test_a_single_sample_is_enough(model):
    rows = Wav2Vec2Encoder(model, AUDIO_LIVETALK).encode(torch.tensor([0.5]), 5)
    assert torch.isfinite(rows).all()


def test_unusable_sound_is_refused(model, waveform):
    encoder = Wav2Vec2Encoder(model, AUDIO_LIVETALK)
    with pytest.raises(AudioError, match="empty"):
        encoder.encode(torch.zeros(0), 5)
    with pytest.raises(AudioError, match="mono"):
        encoder.encode(waveform[:, None], 5)


def test_impossible_rates_are_refused(model):
    with pytest.raises(ConfigError, match="25 rows"):
        Wav2Vec2Encoder(model, Wav2Vec2Options(rate_hz=25.0, resampling="none"))
    with pytest.raises(ConfigError, match="stretched"):
        Wav2Vec2Options(rate_hz=50.0, resampling="none", short_audio="stretch")


def test_weights_load_under_old_and_new_names(model, waveform):
    """A CTC checkpoint has a prefix, a head, and older names for the weight norm."""
    expected = Wav2Vec2Encoder(model, AUDIO_LIVETALK).encode(waveform, 9)
    norm = "pos_conv_embed.conv.parametrizations.weight.original"
    state = {"lm_head.weight": torch.zeros(8, 16)}
    for key, value in model.state_dict().items():
        name = key.replace(f"{norm}0", "pos_conv_embed.conv.weight_g")
        state["wav2vec2." + name.replace(f"{norm}1", "pos_conv_embed.conv.weight_v")] = value
    del state["wav2vec2.masked_spec_embed"]
    loaded = wav2vec2_from_state(CONFIG, state, AUDIO_LIVETALK)
    assert torch.equal(loaded.encode(waveform, 9), expected)
