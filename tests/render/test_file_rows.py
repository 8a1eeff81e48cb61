"""Files are heard as the checkpoints were trained, as a whole; streams state what they lose."""

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")

from presets import AUDIO_AVATARFORCING, AUDIO_LIVETALK  # noqa: E402

from joyflash_cli.conditioning.frames import AudioWindowRule, audio_windows  # noqa: E402
from joyflash_cli.conditioning.stream import StaticConditioning, StreamConditioning  # noqa: E402
from joyflash_cli.encoders.wav2vec2 import Wav2Vec2Encoder, wav2vec2_module  # noqa: E402
from joyflash_cli.errors import ConfigError  # noqa: E402
from joyflash_cli.media.inputs.sound import ClipSound  # noqa: E402
from joyflash_cli.render import file_rows  # noqa: E402
from joyflash_cli.render.file_rows import FileRows, encoder_for  # noqa: E402
from joyflash_cli.render.request import RenderRequest  # noqa: E402
from joyflash_cli.render.sound_feed import SoundFeed  # noqa: E402
from joyflash_cli.sampler.settings import SamplerSettings  # noqa: E402
from joyflash_cli.types import AudioClip  # noqa: E402

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
RULE = AudioWindowRule("video-rows")
LONG_FILE_ERROR = 0.005
"""Of a file in stretches against the whole file: relative root mean square, random weights, whose
attention reaches further than that of trained ones. 0.001 is what it is."""


class Request:
    """As much of a render request as the choice of an encoder looks at."""

    is_stream = RenderRequest.is_stream

    def __init__(self, clip, look_ahead_blocks=None, *, is_live=False):
        self.sound = ClipSound(clip)
        self.look_ahead_blocks = look_ahead_blocks
        self._is_live = is_live
        self._clip = clip

    def num_frames(self, fps):
        seconds = len(self._clip.samples) / self._clip.sample_rate_hz
        return None if self._is_live else int(np.ceil(round(seconds * fps, 6)))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return wav2vec2_module(SIZES).eval()


def voice(seconds, rate=16_000):
    times = np.arange(int(seconds * rate)) / rate
    tones = np.sin(2 * np.pi * 440 * times) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * times))
    return AudioClip((0.2 * tones).astype(np.float32)[:, None], rate)


def settings_of(options):
    if options is AUDIO_LIVETALK:
        return SamplerSettings(window_blocks=1)
    return SamplerSettings(fps=25, block_frames=4, first_frame_rule="prefix")


def audio_of(request, encoder, lay):
    """Audio tokens of every block, as sampling asks for them."""
    feed = SoundFeed(request.sound.open(), lay.fps)
    source = StreamConditioning(
        feed, encoder_for(request, encoder, RULE, lay), RULE, static=StaticConditioning(),
        settings=lay, look_ahead_blocks=request.look_ahead_blocks,
    )  # fmt: skip
    tokens, block = [], 0
    if lay.first_block_frame:
        tokens.append(source.frames(0, lay.first_block_frame).audio)
    while source.has_block(block):
        start = lay.block_start(block)
        tokens.append(source.frames(start, start + lay.block_frames).audio)
        block += 1
    return torch.cat(tokens, dim=1)


@pytest.mark.parametrize(
    "options", [AUDIO_LIVETALK, AUDIO_AVATARFORCING], ids=["livetalk", "avatarforcing"]
)
@pytest.mark.parametrize("seconds", [0.05, 2.0, 3.3, 11.0])
def test_a_file_has_the_rows_of_the_whole_clip_bit_by_bit(model, options, seconds):
    encoder, lay, clip = Wav2Vec2Encoder(model, options), settings_of(options), voice(seconds)
    num_blocks = lay.num_blocks(Request(clip).num_frames(lay.fps))
    num_latents = lay.block_start(num_blocks)
    # As the checkpoint's own code has it: the sound as it is, and all rows at once.
    rows = encoder.encode(torch.from_numpy(clip.samples[:, 0]), RULE.num_rows(num_latents))
    expected = audio_windows(rows[None], RULE, 0, num_latents)
    tokens = audio_of(Request(clip), encoder, lay)
    assert torch.equal(tokens, expected)


def test_a_stream_and_a_chosen_look_ahead_are_heard_piece_by_piece(model):
    encoder, lay, clip = (
        Wav2Vec2Encoder(model, AUDIO_LIVETALK),
        settings_of(AUDIO_LIVETALK),
        voice(11.0),
    )
    assert encoder_for(Request(clip, is_live=True), encoder, RULE, lay) is encoder
    assert encoder_for(Request(clip, 0), encoder, RULE, lay) is encoder
    whole = audio_of(Request(clip), encoder, lay)
    streamed = audio_of(Request(clip, 0), encoder, lay)
    assert streamed.shape == whole.shape
    assert not torch.equal(streamed, whole)


def test_the_rate_of_the_file_does_not_matter(model):
    encoder, lay = Wav2Vec2Encoder(model, AUDIO_LIVETALK), settings_of(AUDIO_LIVETALK)
    here = audio_of(Request(voice(3.0, 48_000)), encoder, lay)
    there = audio_of(Request(voice(3.0)), encoder, lay)
    error = (here - there).square().mean() / there.square().mean()
    assert float(error.sqrt()) < 0.1


@pytest.mark.parametrize(
    "options", [AUDIO_LIVETALK, AUDIO_AVATARFORCING], ids=["livetalk", "avatarforcing"]
)
def test_long_files_are_encoded_in_long_stretches(model, monkeypatch, options):
    encoder, clip = Wav2Vec2Encoder(model, options), voice(40.0)
    rate = round(options.rate_hz)
    num_rows = 40 * rate
    expected = encoder.encode(torch.from_numpy(clip.samples[:, 0]), num_rows)
    monkeypatch.setattr(file_rows, "WHOLE_FILE_S", 20.0)
    monkeypatch.setattr(file_rows, "STRETCH_S", 10.0)
    monkeypatch.setattr(file_rows, "MARGIN_S", 5.0)
    rows = FileRows(encoder, ClipSound(clip).open(), num_rows=num_rows)
    assert not rows.is_whole
    found = []
    for start in range(0, num_rows, 12):
        stop = min(start + 12, num_rows)
        found.append(rows.encode_span(torch.zeros(0), start, stop))
        # Neither the rows nor the sound of what has passed are kept.
        assert len(rows._rows) <= 10 * rate + 12
        assert sum(map(len, rows._sound._parts)) <= 22 * 16_000
    found = torch.cat(found)
    assert found.shape == expected.shape
    error = ((found - expected).square().mean() / expected.square().mean()).sqrt()
    assert float(error) < LONG_FILE_ERROR


def test_rows_that_were_not_meant_are_refused(model):
    rows = FileRows(
        Wav2Vec2Encoder(model, AUDIO_LIVETALK), ClipSound(voice(1.0)).open(), num_rows=17
    )
    assert rows.encode_span(torch.zeros(0), 4, 9).shape == (5, rows.feature_dim)
    for start, stop in ((3, 5), (9, 18), (9, 8)):
        with pytest.raises(ConfigError, match="audio rows"):
            rows.encode_span(torch.zeros(0), start, stop)
    assert rows.encode_span(torch.zeros(0), 9, 17).shape == (8, rows.feature_dim)
