"""Frames of full-size profiles: sizes in whole tokens, pictures covered and never stretched."""

import numpy as np
import pytest

from joyflash_cli.errors import ConfigError
from joyflash_cli.media.inputs import framing
from joyflash_cli.media.inputs.face_points import EYE_CORNERS, MOUTH_CORNERS, NUM_POINTS
from joyflash_cli.media.inputs.faces import Face
from joyflash_cli.media.inputs.framing import (
    FramingRule,
    SizeRule,
    frame_picture,
    largest_size,
)
from joyflash_cli.media.inputs.picture import Picture


@pytest.fixture(autouse=True)
def no_faces(monkeypatch):
    monkeypatch.setattr(framing, "find_faces", lambda pixels: [])


def gradient(width, height):
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([columns * 255 / width, rows * 255 / height, rows * 0], axis=-1)
    return Picture(pixels.astype(np.uint8), ())


WAN = SizeRule(sizes=((832, 480), (480, 832), (640, 640)))


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ((1920, 1080), (832, 480)),
        ((1080, 1920), (480, 832)),
        ((1000, 1000), (640, 640)),
        ((1000, 900), (640, 640)),
        ((3000, 500), (832, 480)),
    ],
)
def test_the_nearest_shape_is_taken(picture, expected):
    assert WAN.frame_size(*picture) == expected


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ((832, 480), (832, 480)),
        ((480, 832), (480, 832)),
        ((1664, 960), (832, 480)),
        ((416, 240), (832, 480)),
        ((1000, 1000), (624, 624)),
        ((4000, 1000), (1248, 304)),
    ],
)
def test_an_area_keeps_the_picture_s_shape_in_whole_tokens(picture, expected):
    rule = SizeRule(area_px=480 * 832)
    size = rule.frame_size(*picture)
    assert size == expected
    assert size[0] % 16 == size[1] % 16 == 0
    assert size[0] * size[1] <= 480 * 832


@pytest.mark.parametrize("size", [(640, 640), (832, 480), (480, 832), (512, 512), (48, 32)])
@pytest.mark.parametrize("picture", [(300, 200), (200, 300), (1200, 1200)])
def test_pictures_cover_the_frame_undistorted(size, picture):
    framed = frame_picture(gradient(*picture), SizeRule(sizes=(size,)))
    assert framed.pixels.shape == (size[1], size[0], 3)
    # Colours were drawn by place: equal steps in both directions mean nothing was stretched.
    scale = max(size[0] / picture[0], size[1] / picture[1])
    across = framed.pixels[size[1] // 2, :, 0].astype(float)
    down = framed.pixels[:, size[0] // 2, 1].astype(float)
    # The first and the last pixel are half a step inside, and smoothing reaches over another.
    step = max(4, 510 / min(size))
    assert np.ptp(across) == pytest.approx(255 * size[0] / scale / picture[0], abs=step)
    assert np.ptp(down) == pytest.approx(255 * size[1] / scale / picture[1], abs=step)
    # The middle stays in the middle.
    assert across.mean() == pytest.approx(127.5, abs=2)
    assert down.mean() == pytest.approx(127.5, abs=2)


def face_at(x: float, y: float) -> Face:
    """A face of 100 pixels around a point."""
    points = np.full((NUM_POINTS, 2), (x, y), np.float32)
    points[EYE_CORNERS], points[MOUTH_CORNERS] = (x, y - 20), (x, y + 20)
    return Face(points, 1.0)


def test_the_cut_moves_for_a_face_and_only_as_far_as_needed(monkeypatch):
    picture, rule = gradient(400, 1200), SizeRule(sizes=((400, 400),))
    assert frame_picture(picture, rule).box[1] == 400
    monkeypatch.setattr(framing, "find_faces", lambda pixels: [face_at(200, 110)])
    assert frame_picture(picture, rule).box[1] == 10  # the face with its margin begins at row 10
    monkeypatch.setattr(framing, "find_faces", lambda pixels: [face_at(200, 600)])
    assert frame_picture(picture, rule).box[1] == 400


def test_notes_for_small_pictures_and_missing_faces():
    notes = frame_picture(gradient(100, 100), SizeRule(sizes=((512, 512),))).warnings
    assert any("100 x 100 pixels are enlarged" in note for note in notes)
    assert any("no face" in note for note in notes)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "either sizes or area_px"),
        ({"sizes": ((512, 512),), "area_px": 4000}, "either sizes or area_px"),
        ({"sizes": ((500, 512),)}, "496 x 512"),
        ({"sizes": ((0, 16),)}, "16"),
        ({"area_px": 9}, "256"),
    ],
)
def test_impossible_rules(fields, words):
    with pytest.raises(ConfigError) as caught:
        SizeRule(**fields)
    assert words in str(caught.value)


def test_the_rule_decides_between_face_and_size():
    picture = gradient(100, 80)
    by_size = frame_picture(picture, SizeRule(sizes=((64, 32),)))
    assert by_size.pixels.shape == (32, 64, 3)
    by_face = frame_picture(picture, FramingRule(64, 0.5, 0.42, 0.25))
    assert by_face.pixels.shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (SizeRule(sizes=((64, 32), (48, 96), (32, 64))), (48, 96)),
        (SizeRule(area_px=64 * 64), (64, 64)),
        (FramingRule(128, 0.5, 0.42, 0.25), (128, 128)),
    ],
)
def test_the_largest_size_of_a_profile(rule, expected):
    assert largest_size(rule) == expected
