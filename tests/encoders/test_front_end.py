import numpy as np
import pytest
import torch

from joyflash_cli.encoders.front_end import (
    FrontEnd,
    FrontEndConfig,
    mel_filterbank,
)
from joyflash_cli.errors import ConfigError


@pytest.fixture
def front_end():
    torch.manual_seed(0)
    return FrontEnd(FrontEndConfig(num_mels=16, stem_width=8, hidden=24, num_blocks=5)).eval()


def sound(rows, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(rows * 640, generator=generator)


def test_default_size_is_below_a_million_parameters_and_reach_below_half_a_second():
    model = FrontEnd()
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    assert model.context_rows / model.feature_rate_hz <= 0.5
    assert model.feature_dim == 166


def test_shape_and_silence_padding(front_end):
    waveform = sound(20)
    rows = front_end.encode(waveform, 20)
    assert rows.shape == (20, 30)
    longer = front_end.encode(waveform, 35)
    torch.testing.assert_close(longer[:20], rows)
    padded = front_end.encode(torch.cat([waveform, torch.zeros(15 * 640)]), 35)
    torch.testing.assert_close(longer, padded)
    assert front_end.encode(torch.zeros(0), 3).shape == (3, 30)
    assert front_end.encode(waveform, 0).shape == (0, 30)


def test_a_shorter_request_cuts_the_sound(front_end):
    waveform = sound(20)
    torch.testing.assert_close(
        front_end.encode(waveform, 12), front_end.encode(waveform[: 12 * 640], 12)
    )


def test_silence_gives_the_same_row_everywhere(front_end):
    rows = front_end.encode(torch.zeros(640 * 10), 10)
    torch.testing.assert_close(rows, rows[:1].expand_as(rows))


def test_a_stream_equals_the_whole_file_in_the_interior(front_end):
    waveform, context = sound(90), front_end.context_rows
    whole = front_end.encode(waveform, 90)
    piece = front_end.encode(waveform[30 * 640 : 60 * 640], 30)
    torch.testing.assert_close(
        piece[context:-context], whole[30 + context : 60 - context], rtol=1e-5, atol=1e-5
    )
    assert not torch.allclose(piece[0], whole[30], atol=1e-4)


def test_long_sound_is_computed_in_pieces_without_a_seam(front_end, monkeypatch):
    waveform = sound(70)
    whole = front_end.encode(waveform, 70)
    monkeypatch.setattr("joyflash_cli.encoders.front_end._ROWS_AT_ONCE", 32)
    torch.testing.assert_close(front_end.encode(waveform, 70), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", [20, 33])
def test_a_click_moves_only_rows_around_its_time(front_end, row):
    quiet = torch.zeros(60 * 640)
    click = quiet.clone()
    click[row * 640 + 320] = 0.9  # the centre of the row
    change = (front_end.encode(click, 60) - front_end.encode(quiet, 60)).abs().amax(1)
    moved = change.nonzero()[:, 0]
    context = front_end.context_rows
    assert moved.min() >= row - context
    assert moved.max() <= row + context
    assert change[row] > 0
    # As far to the left as to the right: the rows are centred on the frames.
    assert row - moved.min() == moved.max() - row


def test_loudness_of_other_moments_changes_nothing(front_end):
    waveform = sound(60)
    louder = waveform.clone()
    louder[40 * 640 :] *= 10
    before, after = front_end.encode(waveform, 60), front_end.encode(louder, 60)
    context = front_end.context_rows
    torch.testing.assert_close(after[: 40 - context], before[: 40 - context])


def test_mel_bands_are_complete_and_in_order():
    filters = mel_filterbank(48)
    assert filters.shape == (48, 201)
    np.testing.assert_allclose(filters.sum(1).numpy(), 1, rtol=1e-5)
    centres = (filters * torch.arange(201)).sum(1)
    assert (centres.diff() > 0).all()
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(6400) / 16_000)
    model = FrontEnd()
    loudest = model.log_mel(tone[None])[0, :, 20].argmax()
    assert abs(float(centres[loudest]) * 40 - 1000) < 80


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="hidden is 0"):
        FrontEndConfig(hidden=0)
