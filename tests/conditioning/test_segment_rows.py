"""Conditioning of segments that hear one row per frame: OmniAvatar's rows, mask and silence."""

from dataclasses import replace

import pytest
import torch

from joyflash_cli.conditioning.config import AudioWindowRule
from joyflash_cli.conditioning.segments import SegmentConditioning
from joyflash_cli.conditioning.stream import StaticConditioning
from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.segment_settings import SegmentSettings, even_steps

SETTINGS = SegmentSettings(
    segment_frames=6, overlap_frames=4, steps=even_steps(2), solver="euler", colour_match=0.0
)


class Numbered:
    """Row r of the file is the number r."""

    feature_rate_hz, feature_dim = 25.0, 1

    def span(self, start, stop):
        return 0, 0

    def encode(self, waveform, num_rows):
        return self.encode_span(waveform, 0, num_rows)

    def encode_span(self, sound, start, stop):
        return torch.arange(start, stop, dtype=torch.float32)[:, None]


class Sound:
    """All of it was heard."""

    num_samples, ended = 0, True

    def read(self, start, stop):
        return torch.zeros(0)

    def forget(self, before):
        pass


def conditioning(rule="video-rows", settings=SETTINGS):
    static = StaticConditioning(
        torch.full((1, 16, 2, 2), 5.0), text=torch.ones(1, 2, 3), negative_text=torch.zeros(1, 2, 3)
    )
    return SegmentConditioning(
        Sound(), Numbered(), AudioWindowRule(rule), static=static, settings=settings, num_blocks=3
    )


def test_segments_hear_the_rows_of_their_own_frames():
    source = conditioning()
    first, second = (source.frames(start, start + 6) for start in (0, 2))
    assert first.audio[0, :3, :, 0].tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]
    # 21 frames, of which 13 are the end of the segment before: the second begins at frame 8.
    assert second.audio[0, :2, :, 0].tolist() == [[8, 8, 8, 8], [9, 10, 11, 12]]
    assert second.negative_text is not None


def test_the_mask_follows_what_is_known_and_the_reference_stays():
    source = conditioning()
    first, second = (source.frames(start, start + 6).image for start in (0, 2))
    assert first[0, :, 16, 0, 0].tolist() == [0, 1, 1, 1, 1, 1]
    assert second[0, :, 16, 0, 0].tolist() == [0, 0, 0, 0, 1, 1]
    assert (second[:, :, :16] == 5).all()


def test_a_ring_gives_its_last_rows():
    source = conditioning(settings=replace(SETTINGS, sound="ring", ring_s=2.0))
    audio = source.frames(0, 6).audio
    # 50 rows of two seconds, of which a segment of 21 frames hears the last.
    assert audio[0, :2, :, 0].tolist() == [[29, 29, 29, 29], [30, 31, 32, 33]]
    assert audio[0, -1, -1, 0] == 49


def test_other_windows_are_not_cut_for_segments():
    with pytest.raises(ConfigError, match="own-frames-margin"):
        conditioning("own-frames-margin")
