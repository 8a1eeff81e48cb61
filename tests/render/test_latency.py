"""The latency that a profile has by itself, against values worked out by hand."""

import pytest
from presets import LIVETALK

from joyflash_cli.conditioning.config import AudioWindowRule
from joyflash_cli.render.latency import compute_latency
from joyflash_cli.sampler.settings import PAPER, TINY, SamplerSettings

MARGIN = AudioWindowRule("own-frames-margin", margin=2)
VIDEO_ROWS = AudioWindowRule("video-rows")


class Encoder:
    """Hears 7 rows after a row."""

    def __init__(self, samples_per_row: int) -> None:
        self._samples_per_row = samples_per_row

    def span(self, start_row, stop_row):
        return (start_row - 7) * self._samples_per_row, (stop_row + 7) * self._samples_per_row


def test_the_embedded_model():
    latency = compute_latency(TINY, MARGIN, Encoder(640))
    assert latency.look_ahead_blocks == 3
    # Block k ends after frame 12k + 8; its window needs rows to 12(k+3) + 10, and 7 more.
    assert latency.look_ahead_s == pytest.approx((36 + 2 + 7) / 25)
    assert latency.block_s == pytest.approx(12 / 25)
    assert latency.first_sound_s == pytest.approx((36 + 11 + 7) / 25)
    assert (latency.first_passes, latency.first_work) == (8, 5.0)
    assert "2.16 s of sound and 8 passes" in latency.describe()
    assert "1.80 to 2.28 s" in latency.describe()


@pytest.mark.parametrize("look_ahead", [0, 1, 2])
def test_a_shorter_look_ahead(look_ahead):
    latency = compute_latency(TINY, MARGIN, Encoder(640), look_ahead_blocks=look_ahead)
    assert latency.look_ahead_s == pytest.approx((12 * look_ahead + 9) / 25)
    assert latency.first_sound_s == pytest.approx((12 * look_ahead + 18) / 25)
    assert latency.first_passes == 8


def test_the_papers_window_looks_two_and_a_quarter_seconds_ahead():
    latency = compute_latency(PAPER, VIDEO_ROWS, Encoder(0))
    assert latency.look_ahead_blocks == 3
    no_reach = compute_latency(PAPER, VIDEO_ROWS, _deaf())
    assert no_reach.look_ahead_s == pytest.approx(36 / 16)


def _deaf():
    class Deaf:
        def span(self, start_row, stop_row):
            return start_row * 1_000, stop_row * 1_000

    return Deaf()


def test_one_block_at_a_time_looks_no_block_ahead():
    latency = compute_latency(LIVETALK, VIDEO_ROWS, _deaf())
    assert (latency.look_ahead_blocks, latency.first_passes) == (0, 4)
    assert latency.look_ahead_s == pytest.approx(0.0)
    assert latency.first_work == 4.0


def test_without_bootstrapping_the_first_block_takes_as_many_passes_as_steps():
    profile = SamplerSettings(psb=False, fps=25)
    latency = compute_latency(profile, MARGIN, Encoder(640))
    assert latency.first_passes == 4
    assert latency.first_work == pytest.approx((1 + 2 + 3 + 4) / 4)
