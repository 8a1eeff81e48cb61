"""Faces as SyncNet sees them: tracks and crops of the published protocol."""

import numpy as np
import pytest

from joyflash_cli.errors import DataError
from joyflash_cli.measures.sync_crops import (
    Track,
    cut_face,
    cut_faces,
    face_boxes,
    longest_track,
)
from joyflash_cli.media.inputs.face_points import OUTLINE
from tests.report.clips import held_out


def still_boxes(num_frames, box=(40.0, 50.0, 180.0, 210.0)):
    return np.tile(np.array(box), (num_frames, 1))


def gone(boxes, start, stop):
    boxes[start:stop] = np.nan
    return boxes


def test_a_face_that_stays_is_one_track():
    track = longest_track(still_boxes(100))
    assert (track.start, track.stop) == (0, 100)


def test_a_face_missed_for_a_second_is_bridged():
    boxes = still_boxes(120)
    boxes[:, [0, 2]] += np.arange(120)[:, None]
    track = longest_track(gone(boxes.copy(), 50, 74))
    assert (track.start, track.stop) == (0, 120)
    np.testing.assert_allclose(track.boxes, boxes)


def test_a_face_missed_for_longer_begins_a_new_track():
    track = longest_track(gone(still_boxes(260), 110, 136))
    assert (track.start, track.stop) == (136, 260)


def test_a_face_elsewhere_is_another_track():
    boxes = still_boxes(250)
    boxes[130:, [0, 2]] += 300
    track = longest_track(boxes)
    assert (track.start, track.stop) == (0, 130)


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        (still_boxes(99), "seen for 4.0 s on end; the protocol needs 4 s"),
        (still_boxes(200, (0, 0, 60, 90)), "90 px large; the protocol needs 100 px"),
        (gone(still_boxes(200), 0, 200), "no face"),
        (np.zeros((0, 4)), "no face"),
    ],
)
def test_what_the_protocol_does_not_measure_is_refused(boxes, reason):
    with pytest.raises(DataError, match=reason):
        longest_track(boxes)


@pytest.mark.parametrize("place", [(100.4, 90.7, 48.6), (10.0, 8.0, 60.2), (195.9, 170.2, 75.0)])
def test_a_crop_is_the_published_one(place):
    cv2 = pytest.importorskip("cv2")
    frame = np.random.default_rng(0).integers(0, 256, (180, 200, 3), dtype=np.uint8)
    x, y, half = place
    border = int(half * 1.8)
    wide = cv2.copyMakeBorder(
        frame, border, border, border, border, cv2.BORDER_CONSTANT, value=(110, 110, 110)
    )
    top, bottom = int(y + border - half), int(y + border + half * 1.8)
    left, right = int(x + border - half * 1.4), int(x + border + half * 1.4)
    expected = cv2.resize(wide[top:bottom, left:right], (224, 224)).astype(int)
    # OpenCV interpolates with 11 bits: the last of 8 may differ.
    assert np.abs(cut_face(frame, x, y, half) - expected).max() <= 1


def test_places_are_smoothed_by_a_median_with_zeros_beyond_the_ends():
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(1)
    boxes = still_boxes(40) + rng.normal(0, 3, (40, 4))
    frame = rng.integers(0, 256, (260, 240, 3), dtype=np.uint8)
    half = signal.medfilt(np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) / 2, 13)
    x = signal.medfilt((boxes[:, 0] + boxes[:, 2]) / 2, 13)
    y = signal.medfilt((boxes[:, 1] + boxes[:, 3]) / 2, 13)
    found = list(cut_faces([frame] * 45, Track(2, boxes)))
    assert len(found) == 40
    for place in (0, 3, 20, 39):
        expected = cut_face(frame, x[place], y[place], half[place])
        np.testing.assert_array_equal(found[place], expected)


def test_the_box_is_the_outline_of_the_points_of_the_face():
    frames, _ = held_out()
    boxes = face_boxes(frames[:40])
    assert boxes.shape == (40, 4)
    assert not np.isnan(boxes).any()
    from joyflash_cli.media.inputs.faces import read_points

    outline = read_points(frames[:1])[0].points[OUTLINE]
    np.testing.assert_allclose(boxes[0], [*outline.min(0), *outline.max(0)], atol=1e-3)


def test_a_face_that_comes_late_is_found():
    frames, _ = held_out()
    film = [*np.zeros((10, *frames.shape[1:]), np.uint8), *frames[:20]]
    boxes = face_boxes(film)
    assert len(boxes) == 30
    assert np.isnan(boxes[:5]).all()
    assert not np.isnan(boxes[15:]).any()


def test_nothing_is_no_face():
    assert face_boxes([]).shape == (0, 4)
    assert np.isnan(face_boxes(np.zeros((12, 64, 64, 3), np.uint8))).all()
