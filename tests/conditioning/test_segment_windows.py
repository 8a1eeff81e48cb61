import pytest
import torch

from joyflash_cli.conditioning.config import AudioWindowRule
from joyflash_cli.conditioning.segments import SegmentConditioning, latent_rows, window_indices
from joyflash_cli.conditioning.stream import StaticConditioning
from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.segment_settings import SegmentSettings

RATE = 640
WHOLE = SegmentSettings(segment_frames=3, overlap_frames=2)
RING = SegmentSettings(segment_frames=3, overlap_frames=2, sound="ring", ring_s=0.8)


class CountingEncoder:
    """Row r holds the mean of the samples of frame r."""

    feature_dim, feature_rate_hz = 1, 25.0

    def __init__(self) -> None:
        self.asked: list[int] = []

    def encode(self, waveform: torch.Tensor, num_rows: int) -> torch.Tensor:
        self.asked.append(len(waveform))
        filled = torch.nn.functional.pad(waveform, (0, num_rows * RATE - len(waveform)))
        return filled.view(num_rows, RATE).mean(dim=1, keepdim=True)

    def span(self, start_row: int, stop_row: int) -> tuple[int, int]:
        return start_row * RATE, stop_row * RATE

    def encode_span(self, sound: torch.Tensor, start_row: int, stop_row: int) -> torch.Tensor:
        return self.encode(sound, stop_row - start_row)


class NumberedSound:
    """A sound whose samples say their frame, from 1; it comes in pieces of 100 samples."""

    def __init__(self, num_frames: int) -> None:
        self.samples = torch.arange(num_frames * RATE).div(RATE, rounding_mode="floor").float() + 1
        self.num_samples, self.ended, self.forgotten = 0, False, 0

    def pull(self) -> None:
        self.ended = self.num_samples == len(self.samples)
        self.num_samples = min(self.num_samples + 100, len(self.samples))

    def covers_frame(self, frame: int) -> bool:
        return self.num_samples > frame * RATE

    def read(self, start: int, stop: int) -> torch.Tensor:
        assert start >= self.forgotten
        return self.samples[start : min(stop, self.num_samples)]

    def forget(self, before: int) -> None:
        self.forgotten = max(self.forgotten, before)


def _conditioning(sound: NumberedSound, settings: SegmentSettings) -> SegmentConditioning:
    return SegmentConditioning(
        sound,
        CountingEncoder(),
        AudioWindowRule("segment", margin=2),
        static=StaticConditioning(),
        settings=settings,
        num_blocks=3 if settings.sound == "whole" else None,
    )


def test_windows_of_neighbours_make_consecutive_rows() -> None:
    rows = torch.arange(40.0)[:, None]
    windows = rows[window_indices(10, 23, end=40, width=5)]

    latents = latent_rows(windows[None])[0, ..., 0]

    assert latents[0].tolist() == [8, 9, 10, 11, 12, 0, 0, 0]
    assert latents[1].tolist() == list(range(9, 17))
    assert latents[3].tolist() == list(range(17, 25))


def test_slots_of_windows_that_do_not_overlap() -> None:
    windows = torch.arange(25.0).view(1, 5, 5, 1)

    latents = latent_rows(windows)[0, ..., 0]

    assert latents[1].tolist() == [5, 6, 7, 12, 17, 22, 23, 24]


def test_rows_beyond_an_end_are_those_at_the_end() -> None:
    assert window_indices(0, 1, end=9, width=5)[0].tolist() == [0, 0, 0, 1, 2]
    assert window_indices(8, 9, end=9, width=5)[0].tolist() == [6, 7, 8, 8, 8]


def test_a_file_is_heard_by_its_frames_and_its_end_is_silence() -> None:
    conditioning = _conditioning(NumberedSound(12), WHOLE)

    first, second, last = (conditioning.frames(i, i + 3).audio[0, ..., 0] for i in (0, 1, 2))

    assert first[0, :5].tolist() == [1, 1, 1, 2, 3]  # frame 0
    assert first[1].tolist() == [1, 1, 2, 3, 4, 5, 6, 7]
    assert second[0, :5].tolist() == [3, 4, 5, 6, 7]  # frame 4
    assert last[0, :5].tolist() == [7, 8, 9, 10, 11]  # frame 8
    assert last[2].tolist() == [12, 0, 0, 0, 0, 0, 0, 0]  # frames 13 .. 16


def test_a_ring_is_encoded_whole_and_the_segment_ends_with_it() -> None:
    sound = NumberedSound(7)
    conditioning = _conditioning(sound, RING)

    assert conditioning.has_block(0)
    first = conditioning.frames(0, 3).audio[0, ..., 0]
    assert conditioning.has_block(1)
    second = conditioning.frames(1, 4).audio[0, ..., 0]

    assert first[0, :5].tolist() == [0] * 5  # under the overlap, before the sound
    assert first[2].tolist() == [0, 0, 1, 2, 3, 4, 4, 4]
    assert second[2].tolist() == [3, 4, 5, 6, 7, 0, 0, 0]
    assert not conditioning.has_block(2)
    assert conditioning._encoder.asked == [int(0.8 * 16000)] * 2


def test_what_was_heard_is_forgotten() -> None:
    for settings in (WHOLE, RING):
        sound = NumberedSound(12)
        conditioning = _conditioning(sound, settings)
        for index in range(3):
            conditioning.frames(index, index + 3)
        assert sound.forgotten >= 6 * RATE


def test_frames_that_are_no_segment_are_refused() -> None:
    with pytest.raises(ConfigError, match="no segment"):
        _conditioning(NumberedSound(12), WHOLE).frames(0, 2)
    with pytest.raises(ConfigError, match="not the next"):
        _conditioning(NumberedSound(12), RING).frames(1, 4)
