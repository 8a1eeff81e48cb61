import numpy as np
import pytest
from synthetic import smooth_track

from joyflash_cli.measures import sync


@pytest.fixture
def track():
    return smooth_track(np.random.default_rng(0), 120)


@pytest.mark.parametrize("late", [-4, -1, 0, 2, 5])
def test_a_late_picture_has_a_positive_lag(track, late):
    score = sync.score_curve(sync.lag_curve(np.roll(track, late)[6:-6], track[6:-6]))
    assert score.lag_frames == late
    assert score.correlation == pytest.approx(1.0)
    assert (score.correlation_at_zero == pytest.approx(1.0)) == (late == 0)


def test_gain_and_offset_do_not_matter_but_sign_does(track):
    assert sync.correlation(3 * track + 2, track) == pytest.approx(1.0)
    assert sync.correlation(-track, track) == pytest.approx(-1.0)


def test_a_still_mouth_follows_nothing(track):
    score = sync.score_curve(sync.lag_curve(np.full_like(track, 0.3), track))
    assert (score.correlation, score.lag_frames) == (0.0, 0)


def test_unequal_or_short_tracks_are_refused(track):
    with pytest.raises(ValueError, match="cannot be compared"):
        sync.lag_curve(track[:-1], track)
    with pytest.raises(ValueError, match="too few"):
        sync.lag_curve(track[:12], track[:12])


def test_unrelated_tracks_correlate_little_on_average():
    rng = np.random.default_rng(2)
    curves = [sync.lag_curve(smooth_track(rng, 81), smooth_track(rng, 81)) for _ in range(200)]
    assert abs(sync.score_curve(np.mean(curves, axis=0)).correlation) < 0.1


def test_movement_ratio_compares_silence_with_speech(track):
    silent = np.zeros(120, bool)
    silent[40:80] = True
    still = track.copy()
    still[38:82] = 0.1
    quiet = sync.movement_ratio(still, silent)
    assert quiet.ratio == pytest.approx(0.0, abs=1e-6)
    assert quiet.silence_frames == 39
    assert 0.5 < sync.movement_ratio(track, silent).ratio < 2
    assert sync.movement_ratio(np.ones(120), silent).ratio is None
    assert sync.movement_ratio(track, np.zeros(120, bool)).ratio is None
