"""Recorded points: the same measures as rendered heads have, and cuts by eyes and mouth."""

import numpy as np
import pytest

from joyflash_cli.studio.clips.mesh_points import (
    EYE_CENTRE,
    EYE_CORNERS,
    EYE_TO_MOUTH,
    MIRRORED_68,
    MOUTH_CORNERS,
    NUM_POINTS,
    USUAL_68,
    cut_turned,
    face_points,
    framing_of,
    into_frame,
)
from joyflash_cli.studio.heads.face_points import measures


def recorded(*, roll=0.0, scale=1.0, shift=(0.0, 0.0)):
    """A face of 100 pixels between the outer eye corners, as a network would record it."""
    points = np.zeros((NUM_POINTS, 2))
    places = {33: (-50, 0), 133: (-20, 0), 362: (20, 0), 263: (50, 0), 61: (-25, 80),
              291: (25, 80), 13: (0, 78), 14: (0, 88), 159: (-35, -5), 145: (-35, 5),
              386: (35, -5), 374: (35, 5)}  # fmt: skip
    for index, place in places.items():
        points[index] = place
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return scale * points @ turn.T + shift


@pytest.mark.parametrize("roll", [0.0, 0.6, 3.0])
def test_measures_are_ratios(roll):
    found = measures(face_points(recorded(roll=roll, scale=3, shift=(40, 20))))
    np.testing.assert_allclose(found, [0.1, 0.5, 1 / 3], rtol=1e-5)


def test_films_are_measured_frame_by_frame():
    film = np.stack([recorded(), recorded(scale=2)])
    assert measures(face_points(film)).shape == (2, 3)


@pytest.mark.parametrize("roll", [0.0, 0.6, 3.0])
def test_eyes_and_mouth_come_to_their_places(roll):
    points = recorded(roll=roll, scale=2, shift=(300, 200))
    framed = into_frame(points, framing_of(points))
    np.testing.assert_allclose(framed[list(EYE_CORNERS)].mean(0), EYE_CENTRE, atol=1e-9)
    mouth = framed[list(MOUTH_CORNERS)].mean(0)
    np.testing.assert_allclose(mouth, np.add(EYE_CENTRE, [0, EYE_TO_MOUTH]), atol=1e-9)


def test_mirrored_twice_is_as_before():
    assert [MIRRORED_68[index] for index in MIRRORED_68] == list(range(68))
    assert len(set(USUAL_68)) == 68


def test_a_cut_shows_what_its_framing_says():
    rows, columns = np.mgrid[0:200, 0:160]
    picture = np.stack([columns, rows, 0 * rows], -1).astype(np.uint8)
    framing = np.array([[0.0, -40.0, 120.0], [40.0, 0.0, 60.0]])
    cut = cut_turned(picture, framing, 20).astype(float)
    assert cut.shape == (20, 20, 3)
    middle = framing @ [0.525, 0.525, 1]
    np.testing.assert_allclose(cut[10, 10, :2], middle - 0.5, atol=1)
    # To the right in the cut is down in the picture.
    assert cut[10, 15, 1] > cut[10, 5, 1] + 15


def test_beyond_the_edge_a_cut_goes_on_without_black():
    picture = np.full((40, 40, 3), 90, np.uint8)
    framing = np.array([[60.0, 0.0, -10.0], [0.0, 60.0, -10.0]])
    np.testing.assert_array_equal(cut_turned(picture, framing, 30), 90)
