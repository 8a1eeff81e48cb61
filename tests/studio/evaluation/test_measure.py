import numpy as np
import pytest
from synthetic import smooth_track

from joyflash_cli.measures import sync
from joyflash_cli.measures.tracks import FrameTracks, drift_at
from joyflash_cli.studio.evaluation import measure


def test_the_floor_leaves_out_everyone_with_themselves():
    assert measure.other_people_similarity(np.eye(4)) == 0.0
    with pytest.raises(ValueError, match="two people"):
        measure.other_people_similarity(np.eye(4)[:1])


def test_recognition_rate_counts_nearest_references():
    frames = [np.array([[1.0, 0.1], [0.2, 1.0]]), np.array([[0.0, 1.0]])]
    assert measure.recognition_rate(frames, np.eye(2)) == pytest.approx(0.75)


def test_permutation_tells_true_pairs_from_unrelated_ones():
    rng = np.random.default_rng(1)
    targets = np.stack([smooth_track(rng, 81) for _ in range(10)])
    unrelated = np.stack([smooth_track(rng, 81) for _ in range(10)])
    noisy = targets + 0.2 * rng.normal(size=targets.shape)
    assert measure.permutation_p_value(noisy, targets, num_permutations=400) < 0.01
    assert measure.permutation_p_value(unrelated, targets, num_permutations=400) > 0.05


def test_silence_is_found_inside_its_margins():
    rng = np.random.default_rng(3)
    waveform = (0.1 * rng.normal(size=100 * 640)).astype(np.float32)
    waveform[40 * 640 : 70 * 640] = 0
    silent = sync.quiet_frames(sync.speech_level_db(waveform, 100), margin_frames=6)
    assert np.flatnonzero(silent).tolist() == list(range(46, 64))


def steady(num_frames=1500):
    return FrameTracks(
        colour=np.full((num_frames, 3), 100.0),
        sharpness=np.full(num_frames, 0.05),
        changes=np.zeros(num_frames - 1),
        visemes=np.zeros((num_frames, 6)),
        identity=np.ones((num_frames, 4)),
    )


def test_constant_streams_do_not_drift():
    for row in measure.drift_table(steady(), (5.0, 30.0, 60.0)).values():
        assert row == pytest.approx({"colour": 0.0, "sharpness": 1.0, "identity": 1.0})


def test_drift_is_what_changed_since_the_first_ten_seconds():
    tracks = steady()
    tracks.colour[:, 1] += np.arange(1500) * 0.01
    tracks.sharpness[500:] *= 0.5
    tracks.identity[1250:] = [1, -1, 1, -1]
    table = measure.drift_table(tracks, (5.0, 30.0, 60.0))
    assert table["5"]["colour"] == pytest.approx(0.62, abs=0.01)  # its halves
    assert table["60"]["colour"] == pytest.approx(12.5)
    assert [table[key]["sharpness"] for key in ("5", "30")] == pytest.approx([1.0, 0.5])
    assert [table[key]["identity"] for key in ("30", "60")] == pytest.approx([1.0, 0.0])


def test_horizons_beyond_the_stream_are_left_out_or_refused():
    assert set(measure.drift_table(steady(), (5.0, 60.0, 300.0))) == {"5", "60"}
    with pytest.raises(ValueError, match="300"):
        drift_at(steady(), 300.0)
