"""Conditioning of sound that is still being heard: the same as of the file, with bounded memory."""

import pytest
import torch
from file_conditioning import conditioning_from_audio
from hypothesis import given, settings
from hypothesis import strategies as st

from joyflash_cli.conditioning.frames import AudioWindowRule
from joyflash_cli.conditioning.stream import StaticConditioning, StreamConditioning
from joyflash_cli.encoders.front_end import FrontEnd, FrontEndConfig
from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.settings import SamplerSettings

MARGIN = AudioWindowRule("own-frames-margin", margin=2)
SETTINGS = SamplerSettings(fps=25)
REACH = 7  # rows that the default front end hears on either side
STREAM_ERROR = 2e-5
"""Largest difference of a feature between a stream and the whole file, features being about 1."""


class Heard:
    """A waveform that arrives in pieces of given lengths, over and over."""

    def __init__(self, waveform, sizes=(1_000,)):
        self.waveform = waveform
        self.ended = False
        self.num_samples = 0
        self.forgotten = 0
        self.silenced = None
        self._sizes = sizes
        self._pulls = 0

    def pull(self):
        assert not self.ended
        if self.num_samples == len(self.waveform):
            self.ended = True
            return
        size = self._sizes[self._pulls % len(self._sizes)]
        self._pulls += 1
        self.num_samples = min(self.num_samples + size, len(self.waveform))

    def covers_frame(self, frame):
        return self.num_samples > frame * 640 or (frame == 0 and self.num_samples > 0)

    def read(self, start, stop):
        assert start >= self.forgotten
        return self.waveform[start : min(stop, self.num_samples)]

    def forget(self, before):
        self.forgotten = max(self.forgotten, before)

    def take_silenced(self):
        silenced, self.silenced = self.silenced, None
        return silenced


@pytest.fixture(scope="module")
def front_end():
    torch.manual_seed(0)
    return FrontEnd(FrontEndConfig()).eval()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(1)
    config = FrontEndConfig(num_mels=8, stem_width=8, hidden=10, num_blocks=1)
    return FrontEnd(config).eval()


def speech(seconds: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(round(seconds * 16_000), generator=generator) * 0.2
    return noise * torch.sin(torch.arange(len(noise)) / 3_000)


def stream_of(sound, encoder, **options):
    options = {"static": StaticConditioning(), "settings": SETTINGS} | options
    return StreamConditioning(sound, encoder, MARGIN, **options)


def all_windows(source, num_blocks, window_blocks=4):
    """The audio of every pass that a stream makes: windows behind a condition frame, clean passes.

    ``None`` for the blocks of a full window beyond the end.
    """
    windows = []
    for oldest in range(num_blocks):
        newest = min(oldest + window_blocks, num_blocks)
        front = 1 if oldest else 0
        windows.append(source.frames(3 * oldest - front, 3 * newest).audio)
        windows.append(source.frames(3 * oldest, 3 * oldest + 3).audio)
    return windows


def test_a_stream_hears_what_the_file_says(front_end):
    waveform = speech(12.3)
    options = {"static": StaticConditioning(), "fps": 25, "block_frames": 3}
    file = conditioning_from_audio(front_end, waveform, MARGIN, **options)
    stream = stream_of(Heard(waveform), front_end)
    worst = max(
        float((ours - whole).abs().max())
        for ours, whole in zip(
            all_windows(stream, file.num_blocks), all_windows(file, file.num_blocks), strict=True
        )
    )
    assert worst <= STREAM_ERROR
    size = float(file.frames(0, 3).audio.abs().mean())
    assert size > 100 * STREAM_ERROR


@settings(max_examples=15)
@given(
    sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=5),
    num_samples=st.integers(1, 90_000),
    look_ahead=st.sampled_from([None, 0, 1, 2]),
)
def test_how_the_sound_arrives_changes_no_bit(small, sizes, num_samples, look_ahead):
    waveform = speech(6.0)[:num_samples]
    at_once = stream_of(Heard(waveform, (100_000,)), small, look_ahead_blocks=look_ahead)
    piecewise = stream_of(Heard(waveform, sizes), small, look_ahead_blocks=look_ahead)
    num_blocks = SETTINGS.num_blocks(-(-num_samples // 640))
    for block in range(num_blocks + 5):
        assert at_once.has_block(block) == piecewise.has_block(block), block
    at_once = stream_of(Heard(waveform, (100_000,)), small, look_ahead_blocks=look_ahead)
    piecewise = stream_of(Heard(waveform, sizes), small, look_ahead_blocks=look_ahead)
    for ours, other in zip(
        all_windows(at_once, num_blocks), all_windows(piecewise, num_blocks), strict=True
    ):
        assert torch.equal(ours, other)


@pytest.mark.parametrize(
    ("num_frames", "num_blocks"), [(1, 1), (9, 1), (10, 2), (21, 2), (22, 3), (33, 3)]
)
def test_blocks_end_with_the_sound(small, num_frames, num_blocks):
    for num_samples in (num_frames * 640, num_frames * 640 - 639):
        source = stream_of(Heard(speech(2)[:num_samples], (77,)), small)
        assert [source.has_block(i) for i in range(6)] == [i < num_blocks for i in range(6)]


def test_no_more_is_heard_than_a_window_needs(small):
    """A block leaves when its window's sound was heard, and what the encoder hears after it."""
    reach = small.context_rows
    sound = Heard(speech(20), (64,))
    source = stream_of(sound, small)
    for oldest in range(20):
        assert source.has_block(oldest + 3)
        source.frames(max(3 * oldest - 1, 0), 3 * oldest + 12)
        needed = (12 * (oldest + 3) + 11 + reach) * 640
        assert needed <= sound.num_samples < needed + 64


def test_a_short_look_ahead_waits_for_less(small):
    reach = small.context_rows
    for look_ahead in (0, 1, 2):
        sound = Heard(speech(20), (64,))
        source = stream_of(sound, small, look_ahead_blocks=look_ahead)
        for oldest in range(20):
            assert source.has_block(oldest + 3)
            source.frames(max(3 * oldest - 1, 0), 3 * oldest + 12)
            needed = (12 * (oldest + look_ahead) + 11 + reach) * 640
            assert needed <= sound.num_samples <= needed + 128


def test_what_is_not_heard_yet_is_silence(small):
    waveform = speech(20)
    whole = stream_of(Heard(waveform), small)
    late = stream_of(Heard(waveform), small, look_ahead_blocks=1)
    assert late.look_ahead_blocks == 1
    full, cut = (source.frames(3 * 5 - 1, 3 * 9).audio[0] for source in (whole, late))
    # Latents 14 to 20 belong to the block in front, to block 5 and to block 6, which is heard.
    assert torch.equal(full[:7, :6], cut[:7, :6])
    quiet = stream_of(Heard(torch.zeros(320_000)), small).frames(3 * 9, 3 * 10).audio[0]
    assert torch.allclose(cut[8:], quiet[0].expand_as(cut[8:]), atol=1e-5)
    assert not torch.allclose(full[8:], cut[8:], atol=1e-3)
    again = stream_of(Heard(waveform, (320_000,)), small, look_ahead_blocks=1)
    assert torch.equal(again.frames(3 * 5 - 1, 3 * 9).audio[0], cut)


def test_a_block_beyond_the_look_ahead_is_taken_to_exist(small):
    """It cannot be known yet; the same answer whether or not the sound is there already."""
    for sizes in ((64,), (1_000_000,)):
        source = stream_of(Heard(speech(20)[: 21 * 640], sizes), small, look_ahead_blocks=0)
        # Two blocks. Block 1 enters while block 0 is heard: 0.44 s and the encoder's reach.
        assert [source.has_block(i) for i in range(6)] == [True, True, True, True, False, False]


def test_memory_stays_the_same_for_hours(small):
    sound = Heard(torch.zeros(1), (1 << 16,))
    sound.waveform = _Endless()
    source = stream_of(sound, small)
    held = []
    for oldest in range(400):
        assert source.has_block(oldest + 3)
        source.frames(max(3 * oldest - 1, 0), 3 * oldest + 12)
        source.frames(3 * oldest, 3 * oldest + 3)
        held.append((source._rows.shape[0], sound.num_samples - sound.forgotten))
    assert max(rows for rows, _ in held) <= 90
    assert max(samples for _, samples in held) <= 30 * 640 + (1 << 16)


class _Endless:
    def __len__(self):
        return 1 << 60

    def __getitem__(self, span):
        return torch.zeros(span.stop - span.start)


def test_forgotten_sound_is_not_made_up(small):
    source = stream_of(Heard(speech(20)), small)
    source.frames(60, 72)
    with pytest.raises(ConfigError, match="forgotten"):
        source.frames(0, 12)
    with pytest.raises(ConfigError, match="no range"):
        source.frames(3, 3)


def test_impossible_settings(small):
    with pytest.raises(ConfigError, match="look-ahead"):
        stream_of(Heard(speech(1)), small, look_ahead_blocks=-1)
    with pytest.raises(ConfigError, match="rows per second"):
        stream_of(Heard(speech(1)), small, settings=SamplerSettings(fps=16))
    long = stream_of(Heard(speech(1)), small, look_ahead_blocks=9)
    assert long.look_ahead_blocks == 3


def test_every_kind_arrives_in_the_number_format_asked_for(small):
    static = StaticConditioning(
        reference_latents=torch.randn(1, 16, 2, 2),
        text=torch.randn(1, 3, 8),
        image_tokens=torch.randn(1, 5, 4),
        face=torch.randn(1, 512),
    )
    got = stream_of(Heard(speech(1)), small, static=static, dtype=torch.bfloat16).frames(2, 5)
    assert got.image.shape == (1, 3, 17, 2, 2)
    assert got.audio.shape[:3] == (1, 3, 8)
    kinds = (got.image, got.text, got.image_tokens, got.audio, got.face)
    assert {kind.dtype for kind in kinds} == {torch.bfloat16}
    assert torch.equal(got.face, static.face.bfloat16())


def test_given_frames_leave_with_the_first_block():
    settings = SamplerSettings(fps=25, block_frames=4, first_frame_rule="prefix")
    assert [settings.video_start(i) for i in range(3)] == [0, 17, 33]
    assert [settings.block_of(i) for i in (0, 1, 4, 5)] == [0, 0, 0, 1]
    assert [settings.oldest_block(i) for i in (0, 1, 4, 5)] == [0, 0, 1, 1]
    assert settings.num_blocks(17) == 1
    assert settings.num_blocks(18) == 2


def test_rows_of_a_stretch_are_those_of_the_file(front_end):
    """The reach is all that a row hears: any stretch gives the rows of the whole."""
    waveform = speech(4.0)
    whole = front_end.encode(waveform, 100)
    assert front_end.context_rows == REACH
    for start, stop in ((0, 3), (1, 12), (40, 52), (96, 100)):
        first, last = front_end.span(start, stop)
        rows = front_end.encode_span(waveform[max(first, 0) : last], start, stop)
        assert float((rows - whole[start:stop]).abs().max()) <= STREAM_ERROR
    before = front_end.encode_span(waveform[: front_end.span(-5, 3)[1]], -5, 3)
    assert float((before[5:] - whole[:3]).abs().max()) <= STREAM_ERROR


def test_what_became_silence_is_heard_as_silence(small):
    """From one moment on the rows are those of a sound that was silent there all the time."""
    sound = speech(4.0)
    cut = 24 * 640  # in block 2
    quiet = sound.clone()
    quiet[cut:] = 0.0
    changed, silent = stream_of(Heard(sound), small), stream_of(Heard(quiet), small)
    before = changed.frames(0, 12).audio
    wanted = silent.frames(0, 12).audio
    assert not torch.allclose(before, wanted, atol=1e-2)
    changed.sound.silenced = (cut, changed.sound.num_samples)
    after = changed.frames(0, 12).audio
    # A few rows before the cut have heard what came after it.
    assert torch.equal(after[:, :4], before[:, :4])
    torch.testing.assert_close(after[:, 8:], wanted[:, 8:], atol=1e-4, rtol=0)
