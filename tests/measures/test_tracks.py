import numpy as np
import pytest

from joyflash_cli.measures.tracks import FrameMeter, FrameTracks, drift_at, drift_table


def steady(num_frames=1500):
    return FrameTracks(
        colour=np.full((num_frames, 3), 100.0),
        sharpness=np.full(num_frames, 0.05),
        changes=np.zeros(num_frames - 1),
        visemes=np.zeros((num_frames, 6)),
        identity=np.ones((num_frames, 4)),
    )


def test_constant_streams_do_not_drift():
    for row in drift_table(steady(), (5.0, 30.0, 60.0)).values():
        assert row == pytest.approx({"colour": 0.0, "sharpness": 1.0, "identity": 1.0})


def test_drift_is_what_changed_since_the_first_ten_seconds():
    tracks = steady()
    tracks.colour[:, 1] += np.arange(1500) * 0.01
    tracks.sharpness[500:] *= 0.5
    tracks.identity[1250:] = [1, -1, 1, -1]
    table = drift_table(tracks, (5.0, 30.0, 60.0))
    assert table["5"]["colour"] == pytest.approx(0.62, abs=0.01)  # its halves
    assert table["60"]["colour"] == pytest.approx(12.5)
    assert [table[key]["sharpness"] for key in ("5", "30")] == pytest.approx([1.0, 0.5])
    assert [table[key]["identity"] for key in ("30", "60")] == pytest.approx([1.0, 0.0])


def test_horizons_beyond_the_stream_are_left_out_or_refused():
    assert set(drift_table(steady(), (5.0, 60.0, 300.0))) == {"5", "60"}
    with pytest.raises(ValueError, match="300"):
        drift_at(steady(), 300.0)


def test_a_video_in_chunks_is_measured_as_in_one():
    frames = np.random.default_rng(0).integers(0, 255, (9, 16, 16, 3)).astype(np.uint8)
    whole, parts = FrameMeter(face=(2, 2, 12, 12)), FrameMeter(face=(2, 2, 12, 12))
    whole.add(frames)
    for part in (frames[:4], frames[4:5], frames[5:]):
        parts.add(part)
    ours, theirs = parts.tracks(), whole.tracks()
    assert len(ours.changes) == 8
    for name in ("colour", "sharpness", "changes"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.visemes.size == ours.identity.size == 0
