"""wav2vec2 rows of a stream: a few seconds at a time, close to those of the whole file."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from presets import AUDIO_AVATARFORCING, AUDIO_LIVETALK  # noqa: E402

from joyflash_cli.encoders.wav2vec2 import STREAM_RIGHT_S, Wav2Vec2Encoder, Wav2Vec2Options  # noqa: E402

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
NATIVE = Wav2Vec2Options(rate_hz=50.0, resampling="none", hidden_states="last")
OPTIONS = [AUDIO_AVATARFORCING, AUDIO_LIVETALK, NATIVE]
NAMES = ["avatarforcing", "livetalk", "native"]
FILE_ERROR = 0.25
"""Of a stream's rows against the whole file's: relative root mean square over rows and channels.
Most of it is the file's: aligned end points put its rows up to 12 ms beside their time."""

STRETCH_ERROR = 0.06
"""The same against the whole file heard at once, its rows at their true times: what hearing eight
seconds at a time changes. Random weights spread attention further than trained ones."""


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**CONFIG)).eval()


@pytest.fixture(scope="module")
def waveform():
    """Tones that swell and change like syllables: neighbouring features are alike, as in speech."""
    times = torch.arange(14 * 16_000) / 16_000
    syllables = 0.5 + 0.5 * torch.sin(2 * torch.pi * 3 * times) * torch.cos(2 * times)
    other = 0.5 + 0.5 * torch.cos(2 * torch.pi * 2.3 * times + 1)
    tones = syllables * torch.sin(2 * torch.pi * 500 * times)
    return 0.1 * (tones + other * torch.sin(2 * torch.pi * 2_000 * times))


def streamed(encoder, waveform, num_rows, run):
    rows = []
    for start in range(0, num_rows, run):
        stop = min(start + run, num_rows)
        first, last = encoder.span(start, stop)
        rows.append(encoder.encode_span(waveform[max(first, 0) : last], start, stop))
    return torch.cat(rows)


def relative_error(rows, expected) -> float:
    return float(((rows - expected).square().mean() / expected.square().mean()).sqrt())


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_a_stream_is_close_to_the_file(model, waveform, options):
    encoder = Wav2Vec2Encoder(model, options)
    num_rows = int(12 * options.rate_hz)
    whole = encoder.encode(waveform, num_rows)
    rows = streamed(encoder, waveform, num_rows, run=12)
    assert rows.shape == whole.shape
    leading = int(options.leading_zero_row)
    assert torch.equal(rows[:leading], whole[:leading])
    assert relative_error(rows, whole) <= FILE_ERROR
    # It is about its own moment: a neighbour half a second away is another one altogether.
    moved = rows[leading:].roll(int(options.rate_hz / 2), 0)
    assert relative_error(moved, whole[leading:]) > 3 * FILE_ERROR
    wide = encoder.with_context(left_s=1_000.0, right_s=STREAM_RIGHT_S)
    at_once = wide.encode_span(waveform, 0, num_rows)
    assert relative_error(rows, at_once) <= STRETCH_ERROR


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_what_is_heard_ends_shortly_after_the_rows(model, options):
    encoder = Wav2Vec2Encoder(model, options)
    for start, stop in ((0, 12), (500, 512)):
        first, last = encoder.span(start, stop)
        row_s = stop / options.rate_hz
        assert first >= 0
        assert last / 16_000 - row_s <= STREAM_RIGHT_S + 2 / options.rate_hz
        assert last / 16_000 >= row_s
        assert (last - first) / 16_000 <= 8.0 + 12 / options.rate_hz + 0.5


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_sound_that_ends_goes_on_as_silence(model, waveform, options):
    encoder = Wav2Vec2Encoder(model, options)
    first, last = encoder.span(24, 36)
    assert first == 0
    short = waveform[: last - 5_000]
    assert encoder.encode_span(short, 24, 36).shape == (12, encoder.feature_dim)
    assert not encoder.encode_span(waveform[:0], 24, 36).any()
