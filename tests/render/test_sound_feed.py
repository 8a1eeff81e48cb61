"""Sound on its two ways: no drift over an hour, nothing kept, exact lengths."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.errors import AudioError
from joyflash_cli.render.sound_feed import SoundFeed, TakenBack
from joyflash_cli.types import SoundFormat


def feed_of(pieces, rate_hz=16_000, channels=1, fps=25):
    sound = SimpleNamespace(name="test", format=SoundFormat(rate_hz, channels), pieces=iter(pieces))
    return SoundFeed(sound, fps)


@given(
    sizes=st.lists(st.integers(0, 5_000), min_size=1, max_size=20).filter(any),
    rate_hz=st.sampled_from([8_000, 16_000, 44_100]),
    fps=st.sampled_from([16, 25]),
)
def test_every_sample_goes_both_ways_once(sizes, rate_hz, fps):
    total = sum(sizes)
    samples = np.arange(total, dtype=np.float32)[:, None] / total
    feed = feed_of(np.split(samples, np.cumsum(sizes)[:-1]), rate_hz, fps=fps)
    while not feed.ended:
        assert feed.num_frames is None
        feed.pull()
    num_frames = max(1, -(-total * fps // rate_hz))
    assert feed.num_frames == num_frames
    assert feed.num_samples == max(1, round(total * 16_000 / rate_hz))
    assert len(feed.read(0, 1 << 40)) == feed.num_samples
    taken = [feed.take(frame + 1).samples for frame in range(num_frames)]
    np.testing.assert_array_equal(np.concatenate(taken), samples)
    assert [feed.covers_frame(i) for i in (0, num_frames - 1, num_frames)] == [True, True, False]


def test_an_hour_does_not_drift():
    """Both ways are at the same moment after an hour, at a rate that does not divide."""
    rate_hz, hours_s = 11_025, 3_600
    click_every_s = 600

    def pieces():
        for second in range(hours_s):
            piece = np.zeros((rate_hz, 1), np.float32)
            if second % click_every_s == 0:
                piece[0] = 1.0
            yield piece

    feed = feed_of(pieces(), rate_hz)
    frame, most_kept, clicks, shown = 0, 0, [], []
    while not feed.ended:
        feed.pull()
        most_kept = max(most_kept, len(feed._waveform))
        heard = feed.read(feed._waveform_start, feed.num_samples).numpy()
        clicks += [feed._waveform_start + i for i in np.flatnonzero(heard > 0.4)]
        feed.forget(feed.num_samples)
        while feed.covers_frame(frame + 12):
            sound = feed.take(frame + 12).samples[:, 0]
            begins = int(frame * rate_hz / 25)
            shown += [begins + i for i in np.flatnonzero(sound)]
            frame += 12
    assert feed.num_samples == hours_s * 16_000
    assert feed.num_frames == hours_s * 25
    expected_s = np.arange(0, hours_s, click_every_s)
    np.testing.assert_array_equal(np.array(shown) / rate_hz, expected_s)
    # The click is spread by the filter; its middle is heard where it is shown, to a sample.
    heard_s = np.array([min(clicks, key=lambda c, s=s: abs(c / 16_000 - s)) for s in expected_s])
    np.testing.assert_allclose(heard_s / 16_000, expected_s, atol=1.5 / 16_000)
    assert most_kept <= 2 * 16_000


def test_sound_that_was_forgotten_is_not_made_up():
    feed = feed_of([np.zeros((1_000, 1), np.float32)])
    feed.pull()
    feed.forget(500)
    assert len(feed.read(500, 2_000)) == 500
    with pytest.raises(ValueError, match="forgotten"):
        feed.read(499, 600)


@pytest.mark.parametrize("pieces", [[], [np.zeros((0, 1), np.float32)]])
def test_no_sample_at_all_is_an_error(pieces):
    feed = feed_of(pieces)
    for _ in pieces:
        feed.pull()
    with pytest.raises(AudioError, match="no samples"):
        feed.pull()


def test_sound_that_is_taken_back_is_silent_for_the_model():
    ones = np.ones((1_600, 1), np.float32)
    feed = feed_of([ones, ones, TakenBack(2_000), TakenBack(1_700), ones])
    for _ in range(4):
        feed.pull()
    assert feed.num_samples == 3_200
    heard = feed.read(0, 3_200).numpy()
    assert (heard[:1_200] == 1).all()
    assert not heard[1_200:].any()
    assert feed.take_silenced() == (1_200, 3_200)
    assert feed.take_silenced() is None
    feed.pull()
    assert (feed.read(3_200, 4_800).numpy() == 1).all()
