from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("numba")

from joyflash_cli.studio.heads.drawn import sample_drawn  # noqa: E402
from joyflash_cli.studio.heads.drawn_mouth import shape_mouth  # noqa: E402
from joyflash_cli.studio.heads.drawn_pen import Canvas, Pen, Pose  # noqa: E402
from joyflash_cli.studio.heads.drawn_style import HELD_OUT_STYLE, STYLES, sample_identity  # noqa: E402
from joyflash_cli.studio.heads.face_points import LOWER_LIP, MOUTH_CORNERS, UPPER_LIP, measures  # noqa: E402
from joyflash_cli.studio.heads.face_state import VISEMES, FaceState  # noqa: E402
from joyflash_cli.studio.heads.painter import ellipse, spline  # noqa: E402

SEEDS = range(24)


def head(seed, split="train", size_px=128):
    return sample_drawn(np.random.default_rng(seed), size_px=size_px, split=split)


def state(**values):
    visemes = np.array([values.pop(name, 0.0) for name in VISEMES], np.float32)
    return FaceState(visemes=visemes, **values)


def changed(first, second):
    return np.abs(first.astype(int) - second.astype(int)).max(axis=-1) > 6


def inside(box, mask):
    x0, y0, x1, y1 = box
    return mask[y0:y1, x0:x1]


def test_same_generator_state_gives_the_same_pictures():
    pose = state(jaw=0.4, width=0.3, yaw=0.2, pitch=0.05, roll=-0.04, blink=0.3)
    for seed in (3, 4):
        np.testing.assert_array_equal(head(seed).render(pose), head(seed).render(pose))


def test_a_picture_does_not_depend_on_earlier_frames():
    person, pose = head(5), state(jaw=0.2)
    before = person.render(pose)
    person.render(state(jaw=1.0, yaw=0.4, roll=0.2, blink=1.0))
    np.testing.assert_array_equal(person.render(pose), before)


def test_pictures_have_the_protocols_shape_and_identities_differ():
    for size_px in (96, 128, 256):
        picture = head(1, size_px=size_px).render(FaceState())
        assert picture.shape == (size_px, size_px, 3)
        assert picture.dtype == np.uint8
    assert changed(head(1).render(FaceState()), head(2).render(FaceState())).mean() > 0.3


def test_held_out_style_is_never_trained_on_and_always_held_out():
    rng = np.random.default_rng(0)
    trained = {sample_identity(rng, split="train").style.name for _ in range(200)}
    held_out = {sample_identity(rng, split="held-out").style.name for _ in range(40)}
    assert trained == set(STYLES) - {HELD_OUT_STYLE}
    assert held_out == {HELD_OUT_STYLE}


def test_picture_scales_with_its_size():
    pose = state(jaw=0.6, smile=0.4)
    small = head(8, size_px=64).render(pose).astype(float)
    large = head(8, size_px=128).render(pose).astype(float)
    halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - halved).mean() < 3.0


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_jaw_opens_a_dark_mouth_and_press_closes_it(split):
    for seed in SEEDS:
        person = head(seed, split)
        dark = np.array(person.identity.palette.mouth_inside)

        def interior(pose, person=person, dark=dark):
            picture = person.render(pose).astype(float)
            near = np.abs(picture - dark * 0.85).max(axis=-1) < 24.0
            return int(inside(person.mouth_box, near).sum())

        opened, pressed = interior(state(jaw=1.0)), interior(state(jaw=1.0, press=1.0))
        half = interior(state(jaw=0.5))
        assert opened > half > pressed, seed
        assert opened - pressed > 60, seed


def test_mouth_shape_follows_each_viseme():
    identity = head(0).identity
    rest = shape_mouth(identity, state())
    assert rest.gap == 0.0
    assert shape_mouth(identity, state(width=1.0)).half_width > 1.2 * rest.half_width
    assert shape_mouth(identity, state(round=1.0)).half_width < 0.6 * rest.half_width
    gaps = [shape_mouth(identity, state(jaw=jaw)).gap for jaw in np.linspace(0.0, 1.0, 6)]
    assert np.all(np.diff(gaps) > 1.0)
    assert shape_mouth(identity, state(jaw=1.0, press=1.0)).gap == 0.0


def test_teeth_brighten_and_tongue_reddens_the_open_mouth():
    for seed in SEEDS:
        person = head(seed)
        x0, y0, x1, y1 = person.mouth_box
        plain, teeth, tongue = (
            person.render(pose)[y0:y1, x0:x1].astype(float)
            for pose in (state(jaw=0.3), state(jaw=0.3, teeth=1.0), state(jaw=0.3, tongue=1.0))
        )
        # The shade of the mouth lies on teeth, too.
        white = 0.7 * np.array(person.identity.palette.teeth) + 0.3 * plain.min((0, 1))
        red = np.array(person.identity.palette.tongue)

        def share(picture, colour, reach=30.0):
            return int((np.abs(picture - colour).max(axis=-1) < reach).sum())

        assert share(teeth, white, 40.0) > share(plain, white, 40.0), seed
        assert share(tongue, red) > share(plain, red), seed


def test_mouth_moves_in_small_steps():
    person = head(11)
    steps = [person.render(state(jaw=jaw)).astype(int) for jaw in np.linspace(0.0, 1.0, 41)]
    changes = [np.abs(a - b).mean() for a, b in zip(steps[1:], steps[:-1], strict=True)]
    assert min(changes) > 0.0
    assert max(changes) < 6.0 * np.median(changes)


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_boxes_contain_what_changes(split):
    for seed in SEEDS:
        person = head(seed, split)
        neutral = person.render(FaceState())
        lips = changed(neutral, person.render(state(width=1.0, teeth=1.0)))
        assert lips.sum() > 20, seed
        assert inside(person.mouth_box, lips).sum() == lips.sum(), seed
        blink = changed(neutral, person.render(FaceState(blink=1.0)))
        assert blink.sum() > 20, seed
        assert inside(person.eyes_box, blink).sum() == blink.sum(), seed
        brow = changed(neutral, person.render(FaceState(brow=1.0)))
        assert inside(person.eyes_box, brow).sum() == brow.sum(), seed


def test_an_open_jaw_leaves_eyes_and_hair_alone():
    for seed in SEEDS:
        person = head(seed)
        difference = changed(person.render(FaceState()), person.render(state(jaw=1.0)))
        assert not inside(person.eyes_box, difference).any(), seed
        assert not difference[: person.eyes_box[1]].any(), seed
        assert inside(person.mouth_box, difference).sum() > 0.35 * difference.sum(), seed


def test_yaw_slides_the_features_more_than_the_outline():
    points = np.array([[0.0, 72.0], [36.0, 64.0]])
    straight = Pose(1.0, (64.0, 64.0))
    moved = replace(straight, yaw=0.3).to_pixels(points) - straight.to_pixels(points)
    assert moved[0, 0] > 2.0 * moved[1, 0] > 0.0
    assert np.abs(moved[:, 1]).max() < 1e-9


def coverage(polygon, size_px):
    """Coverage of a polygon in pixels."""
    pen = Pen(Canvas(size_px), STYLES["vector"], (0, 0, 0), Pose(1.0, (0.0, 64.0), flat=True))
    return pen.mask(polygon)


def test_fill_covers_exactly_the_polygons_area():
    for polygon in (
        np.array([[3.25, 4.5], [20.75, 4.5], [20.75, 9.75], [3.25, 9.75]]),
        np.array([[2.3, 28.1], [29.7, 25.4], [11.2, 3.6]]),
        ellipse((15.3, 16.8), (9.2, 6.1), points=40),
    ):
        x, y = polygon.T
        area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
        assert coverage(polygon, 32).sum() == pytest.approx(area, abs=1e-3)


def test_fill_is_clipped_at_the_pictures_edge():
    square = np.array([[-9.0, -9.0], [7.5, -9.0], [7.5, 40.0], [-9.0, 40.0]])
    assert coverage(square, 16).sum() == pytest.approx(7.5 * 16, abs=1e-3)


def test_spline_passes_through_its_points():
    points = np.array([[0.0, 0.0], [3.0, 4.0], [8.0, 1.0]])
    np.testing.assert_allclose(spline(points, steps=5)[::5], points)
    np.testing.assert_allclose(spline(points, closed=True, steps=5)[::5], points)


def test_lips_and_lids_are_measured_where_they_are_drawn():
    for seed in SEEDS:
        person = head(seed)
        picture, mask = person.render_with_mouth(state(jaw=0.8))
        points = person.points(state(jaw=0.8))
        rows, columns = np.nonzero(mask > 0.5)
        assert abs(points[UPPER_LIP, 1] - rows.min()) < 2.5, seed
        assert abs(points[LOWER_LIP, 1] - rows.max()) < 2.5, seed
        assert points[MOUTH_CORNERS][0, 0] < columns.min() + 1, seed
        np.testing.assert_array_equal(picture, person.render(state(jaw=0.8)))
        opened, closed = (measures(person.points(state(blink=lid)))[2] for lid in (0.0, 1.0))
        assert closed < 0.25 * opened, seed
