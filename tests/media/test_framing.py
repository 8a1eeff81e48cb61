"""Faces in their places: eyes and mouth where the rule wants them, honest edges, plain refusals."""

import numpy as np
import pytest
from PIL import Image

from joyflash_cli.errors import ConfigError, ImageError
from joyflash_cli.media.inputs import framing
from joyflash_cli.media.inputs.faces import Face, find_faces
from joyflash_cli.media.inputs.framing import (
    FramingRule,
    cut_notes,
    frame_picture,
)
from joyflash_cli.media.inputs.picture import Picture
from joyflash_cli.media.inputs.similarity import (
    Similarity,
    cut,
    cut_frame,
    cut_smoothly,
    similarity_between,
)
from joyflash_cli.studio.clips.clip_framing import measure_framing

RULE = FramingRule(size_px=128, eyes_x=0.5, eyes_y=0.4, eyes_to_mouth=0.27)


def checkerboard(side: int = 300) -> np.ndarray:
    rows, columns = np.mgrid[0:side, 0:side] // 40
    return np.repeat(((rows + columns) % 2 * 200).astype(np.uint8)[:, :, None], 3, axis=2)


def in_place(framed, rule=RULE, *, tolerance: float) -> bool:
    """Whether the framed pixels, read anew, have eyes and mouth in their places."""
    face = find_faces(framed.pixels)[0]
    found = np.stack([face.eyes, face.mouth]) / rule.size_px
    return bool(np.abs(found - rule.targets).max() < tolerance)


def test_similarities():
    frame, picture = np.array([[10, 20], [30, 60.0]]), np.array([[100, 100], [20, 150.0]])
    place = similarity_between(frame, picture)
    np.testing.assert_allclose(place.to_picture(frame), picture)
    np.testing.assert_allclose(place.to_frame(picture), frame)
    assert Similarity(2.0, 90.0, 5.0, 7.0).to_picture(np.array([1.0, 0.0])) == pytest.approx([5, 9])


@pytest.mark.parametrize("cutter", [cut, cut_smoothly])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.3])
def test_a_cut_shows_what_the_similarity_says(cutter, scale):
    """A picture whose colours are its coordinates."""
    axis = np.arange(256, dtype=np.uint8)
    pixels = np.stack([*np.meshgrid(axis, axis), np.zeros((256, 256), np.uint8)], -1)
    place = Similarity(scale, 20.0, 60.0, 20.0)
    side = int(100 / scale)
    made = cutter(pixels, place, side)
    grid = np.stack(np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5), -1)
    np.testing.assert_allclose(made[..., :2], place.to_picture(grid) - 0.5, atol=1.6)


@pytest.mark.parametrize("degrees", [30, -25, 90, 180, -70])
def test_tilted_and_sideways_portraits_are_turned_upright(portrait, degrees):
    side = 760
    turned = Similarity(1.0, degrees, 0.0, 0.0)
    corner = np.full(2, len(portrait) / 2) - turned.to_picture(np.full(2, side / 2))
    pixels = cut(portrait, Similarity(1.0, degrees, *corner.tolist()), side)
    framed = frame_picture(Picture(pixels), RULE)
    assert in_place(framed, tolerance=0.02)
    notes = (*framed.warnings, *cut_notes(framed, RULE.size_px))
    assert any("upright" in note for note in notes)
    assert framed.quarters == {30: 0, -25: 0, 90: 3, 180: 2, -70: 1}[degrees]
    # The frame is cut from the picture that comes with it.
    again = cut_frame(framed.picture, framed.place, RULE.size_px)
    np.testing.assert_array_equal(again, framed.pixels)
    if degrees in (90, 180):
        assert framed.picture.shape == pixels.shape
        assert abs(framed.place.degrees) < 8


def stand_in(**changes) -> Face:
    """A face of 100 pixels at (200, 200), seen by nobody."""
    from joyflash_cli.media.inputs.face_points import EYE_CORNERS, MOUTH_CORNERS, NUM_POINTS

    points = np.full((NUM_POINTS, 2), 200.0, np.float32)
    points[EYE_CORNERS] = [[150, 180], [180, 180], [220, 180], [250, 180]]
    points[MOUTH_CORNERS] = [[180, 240], [220, 240]]
    return Face(points, 1.0, **changes)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "no face was found"),
        ([stand_in(mouth_seen=0.1)], "the mouth of the face is covered"),
        ([stand_in(facing=0.1)], "the face is turned away too far"),
    ],
)
def test_what_cannot_speak_is_refused_with_the_way_on(monkeypatch, found, words):
    monkeypatch.setattr(framing, "find_faces", lambda pixels: found)
    picture = Picture(checkerboard(400))
    with pytest.raises(ImageError, match=words) as caught:
        frame_picture(picture, RULE, needs_face=True)
    assert caught.value.code == "E-IMAGE-FACE"
    assert "--allow-no-face" in caught.value.hint
    framed = frame_picture(picture, RULE)
    assert framed.face is None
    assert framed.warnings == (f"{words}; the middle of the picture is used",)


def test_covered_faces_are_not_counted(monkeypatch):
    monkeypatch.setattr(framing, "find_faces", lambda pixels: [stand_in(mouth_seen=0), stand_in()])
    framed = frame_picture(Picture(checkerboard(400)), RULE, face_index=0)
    assert framed.face.mouth_seen == 1.0
    with pytest.raises(ImageError, match="face 1 was asked for and 1 found"):
        frame_picture(Picture(checkerboard(400)), RULE, face_index=1)


def test_the_face_lands_where_the_rule_says(portrait):
    framed = frame_picture(Picture(portrait, ("kept",)), RULE)
    assert framed.pixels.shape == (128, 128, 3)
    assert framed.pixels.dtype == np.uint8
    assert framed.warnings == ("kept",)
    assert in_place(framed, tolerance=0.015)


def test_framing_twice_changes_nothing(portrait):
    once = frame_picture(Picture(portrait), RULE)
    twice = frame_picture(Picture(once.pixels), RULE)
    np.testing.assert_array_equal(once.pixels, twice.pixels)


def test_pixels_are_never_stretched():
    """A disc stays a disc when a wide picture without a face is cut to a square."""
    rows, columns = np.mgrid[0:200, 0:400]
    disc = (rows - 100) ** 2 + (columns - 200) ** 2 < 60**2
    framed = frame_picture(Picture(np.repeat(disc[:, :, None] * np.uint8(255), 3, axis=2)), RULE)
    inside = framed.pixels[:, :, 0] > 127
    assert inside.any(axis=0).sum() == pytest.approx(120 * 128 / 200, abs=1)
    assert inside.any(axis=1).sum() == pytest.approx(120 * 128 / 200, abs=1)
    assert framed.box == (100.0, 0.0, 200.0)
    assert framed.face is None
    assert "no face" in framed.warnings[0]


def test_downscaling_is_antialiased():
    lines = np.zeros((1280, 1280, 3), np.uint8)
    lines[::2] = 255
    framed = frame_picture(Picture(lines), RULE)
    assert np.ptp(framed.pixels[4:-4].astype(int)) < 12


def test_crop_beyond_the_picture_continues_its_edge(portrait):
    close = np.ascontiguousarray(portrait[100:400, 110:410])
    framed = frame_picture(Picture(close), RULE)
    assert any("outside the picture" in note for note in cut_notes(framed, 128))
    left, top, side = framed.box
    assert left < 0
    assert side > 300
    found = framed.place.to_frame(np.stack([framed.face.eyes, framed.face.mouth])) / 128
    np.testing.assert_allclose(found, RULE.targets, atol=3e-4)
    # No black bars: every border pixel continues the picture's own colours.
    border = np.concatenate([framed.pixels[:, 0], framed.pixels[:, -1]])
    assert border.max(axis=1).min() >= close.max(axis=2).min()
    # No seam: the steps across the picture's left border are no larger than inside it.
    column = round(-left / side * 128)
    steps = np.abs(np.diff(framed.pixels[:, :, 1].astype(int), axis=1)).mean(axis=0)
    assert steps[column - 2 : column + 1].max() <= steps[column + 2 :].max()


def test_several_faces_and_the_choice(portrait):
    half = np.asarray(Image.fromarray(portrait).resize((256, 256)))
    both = np.concatenate([half, half], axis=1)
    framed = frame_picture(Picture(both), RULE)
    assert any("2 faces" in warning for warning in framed.warnings)
    first = frame_picture(Picture(both), RULE, face_index=0)
    second = frame_picture(Picture(both), RULE, face_index=1)
    assert not any("faces" in warning for warning in first.warnings)
    assert abs(first.box[0] - second.box[0]) == pytest.approx(256, abs=20)
    with pytest.raises(ImageError) as caught:
        frame_picture(Picture(both), RULE, face_index=2)
    assert caught.value.code == "E-IMAGE-FACE"


def test_enlarging_is_told():
    framed = frame_picture(Picture(checkerboard(64)), RULE)
    assert any("soft" in note for note in cut_notes(framed, 128))
    assert not any("soft" in note for note in cut_notes(framed, 64))


def test_measured_rule_describes_the_frames(portrait):
    frames = [frame_picture(Picture(portrait), RULE).pixels, np.zeros((128, 128, 3), np.uint8)]
    rule = measure_framing(frames)
    assert rule.size_px == 128
    found = (rule.eyes_x, rule.eyes_y, rule.eyes_to_mouth)
    assert found == pytest.approx((0.5, 0.4, 0.27), abs=0.015)


def test_frames_without_faces_or_of_two_sizes_give_no_rule():
    with pytest.raises(ImageError, match="no face"):
        measure_framing([np.zeros((64, 64, 3), np.uint8)])
    with pytest.raises(ImageError, match="one size"):
        measure_framing([np.zeros((64, 64, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)])
    with pytest.raises(ImageError, match="one size"):
        measure_framing([])


@pytest.mark.parametrize("change", [{"size_px": 0}, {"eyes_to_mouth": 1.5}, {"eyes_x": 0.0}])
def test_impossible_rules(change):
    with pytest.raises(ConfigError):
        FramingRule(**{**RULE.__dict__, **change})
