"""A head of triangles: units move it, turning and shifting show, its boxes hold what they name."""

import numpy as np
import pytest

from joyflash_cli.media.inputs.face_points import points_of
from joyflash_cli.studio.heads.face_points import MOUTH_CORNERS, measures
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.studio.heads.mesh_head import HeadMesh, MeshHead, collar_height
from joyflash_cli.studio.heads.mouth_light import FaceRows, exposure_for, mouth_openness
from joyflash_cli.studio.heads.rasteriser import NO_CLOTH, Lighting, Material, Part, Surface
from joyflash_cli.studio.heads.surroundings import Surroundings

SIZE_PX = 48
JAW = FaceState(visemes=np.array([1, 0, 0, 0, 0, 0], np.float32))


def ball(count=600):
    """A ball of radius 1 where heads are, with outward triangles."""
    from scipy.spatial import ConvexHull

    index = np.arange(count) + 0.5
    height, angle = 1 - 2 * index / count, index * np.pi * (1 + np.sqrt(5))
    radius = np.sqrt(1 - height**2)
    points = np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], 1)
    triangles = ConvexHull(points).simplices
    a, b, c = np.moveaxis(points[triangles], 1, 0)
    inward = (np.cross(b - a, c - a) * a).sum(1) < 0
    triangles[inward] = triangles[inward][:, [0, 2, 1]]
    return (points + [0, 7, 0.5]).astype(np.float32), triangles


def nearest(points, *places):
    """Front vertices next to places (x, y)."""
    front = np.flatnonzero(points[:, 2] > 1)
    return np.array(
        [front[np.linalg.norm(points[front, :2] - place, axis=1).argmin()] for place in places]
    )


def head(seed=0, spread=1.0):
    points, triangles = ball()
    front = points[:, 2] > 1.1
    eyes = np.flatnonzero(
        front & (np.abs(points[:, 1] - 7.3) < 0.12) & (np.abs(points[:, 0]) > 0.2)
    )
    mouth = np.flatnonzero(front & (np.abs(points[:, 1] - 6.7) < 0.1))
    drop = np.zeros(points.shape, np.float32)
    drop[points[:, 1] < 6.7, 1] = -0.3
    sides = ((0.4, 7.3), (0.2, 7.3), (0.3, 7.36), (0.3, 7.24), (0.25, 6.8))
    rows = FaceRows(
        pairs=nearest(points, *((sign * x, y) for x, y in sides for sign in (-1, 1))),
        upper_lip=nearest(points, (0, 6.76)),
        lower_lip=nearest(points, (0, 6.66)),
    )
    texture = np.full((2, 2, 4), (180, 140, 120, 255), np.uint8)
    skin = Surface(np.arange(len(points)), np.zeros((len(points), 2)), triangles)
    mesh = HeadMesh(
        parts=[Part(skin, Material(texture))], vertices=points, units={"jawOpen": drop},
        rig=lambda state: {"jawOpen": float(state.visemes[0])},
        skin_count=len(points), skin_triangles=triangles.astype(np.int32),
        cloth_height=np.full(len(points), NO_CLOTH, np.float32), eyeballs=eyes, eye_light=0.6,
        layers=mouth[:0], lip_line=mouth,
        lips=mouth, lids=eyes, chin_height=6.2, points=rows, mouth_inside=rows.upper_lip,
        mouth_gain=np.ones(1),
        landmarks=tuple(zip(rows.pairs[8:].tolist(), (61, 291), strict=True)),
    )  # fmt: skip
    lighting = Lighting(
        directions=np.array([[0.3, 0.4, 1.0]]), colours=np.ones((1, 3)), ambient=np.full(3, 0.4)
    )
    backdrop = np.full((SIZE_PX, SIZE_PX, 3), 0.1, np.float32)
    surroundings = Surroundings(lighting, backdrop, framing_spread=spread)
    rng = np.random.default_rng(seed)
    return MeshHead(mesh, rng, size_px=SIZE_PX, surroundings=surroundings)


def test_units_move_only_their_vertices():
    made = head()
    moved = made.shape(JAW) - made.shape(FaceState())
    below = made.shape(FaceState())[:, 1] < 6.7
    np.testing.assert_allclose(moved[below, 1], -0.3, atol=1e-6)
    assert not moved[~below].any()


def test_pictures_depend_on_the_state_alone():
    made = head()
    still = made.render(FaceState())
    assert still.shape == (SIZE_PX, SIZE_PX, 3)
    assert still.dtype == np.uint8
    assert (made.render(JAW) != still).any()
    np.testing.assert_array_equal(made.render(FaceState()), still)


def test_the_seed_decides_the_framing():
    np.testing.assert_array_equal(head(1).render(FaceState()), head(1).render(FaceState()))
    assert (head(1).render(FaceState()) != head(2).render(FaceState())).any()


def test_framing_varies_as_far_as_asked():
    nominal = np.array(head(5, spread=0.0).eyes_box)
    np.testing.assert_array_equal(nominal, head(6, spread=0.0).eyes_box)
    moved = [
        np.abs(np.array([head(seed, spread=spread).eyes_box for seed in range(8)]) - nominal).mean()
        for spread in (1.0, 3.0)
    ]
    assert 0 < moved[0] < moved[1]


@pytest.mark.parametrize(("shift", "axis"), [("shift_x", 1), ("shift_y", 0)])
def test_a_shift_moves_the_head_in_the_picture(shift, axis):
    made = head()
    mass = [
        np.indices((SIZE_PX, SIZE_PX))[axis][made.render(state).mean(-1) > 60].mean()
        for state in (FaceState(), FaceState(**{shift: 0.1}))
    ]
    # A tenth of the picture, less what leaves it on that side.
    assert 1.0 < mass[1] - mass[0] <= 0.1 * SIZE_PX + 0.5


def test_points_of_the_face_move_with_the_head():
    made = head()
    still, moved = (made.canonical_points(state) for state in (FaceState(), FaceState(shift_x=0.1)))
    known = np.isfinite(still).all(1)
    np.testing.assert_array_equal(known, np.isin(np.arange(len(still)), points_of((61, 291))))
    left, top, right, bottom = made.mouth_box
    assert ((still[known] > [left, top]) & (still[known] < [right, bottom])).all()
    np.testing.assert_allclose(
        moved[known] - still[known], [[0.1 * made.size_px, 0]] * 2, atol=1e-4
    )


def test_boxes_lie_in_the_picture_eyes_above_mouth():
    made = head()
    for x0, y0, x1, y1 in (made.eyes_box, made.mouth_box):
        assert 0 <= x0 < x1 <= SIZE_PX
        assert 0 <= y0 < y1 <= SIZE_PX
    assert made.eyes_box[1] < made.mouth_box[1]
    assert made.eyes_box[3] < made.mouth_box[3]


def test_the_collar_dips_in_front():
    points = np.array([[0, 5.7, 1.0], [0, 5.7, -0.5], [0, 6.5, 1.0]], np.float32)
    front, back, neck = collar_height(points, (5.7, 0.4, 0.1))
    assert front == pytest.approx(0.4, abs=1e-5)
    assert back == pytest.approx(0, abs=1e-5)
    assert neck > 1


def test_a_falling_jaw_is_measured_as_a_gap():
    made = head()
    closed, opened = (measures(made.points(state)) for state in (FaceState(), JAW))
    assert opened[0] > closed[0] + 0.2
    np.testing.assert_allclose(opened[1:], closed[1:], rtol=0.05)


def test_measures_know_neither_place_nor_size_nor_tilt():
    moved = FaceState(shift_x=0.1, shift_y=-0.05, roll=0.2)
    plain, tilted = (measures(head().points(state)) for state in (FaceState(), moved))
    np.testing.assert_allclose(plain, tilted, rtol=0.02, atol=0.005)


def test_canonical_points_are_those_of_the_same_vertices():
    moved = FaceState(shift_x=0.1, yaw=0.2, roll=0.1)
    found = head().canonical_points(moved)
    assert np.isfinite(found).all(1).sum() == 2
    corners = head().points(moved)[MOUTH_CORNERS]
    np.testing.assert_allclose(found[points_of((61, 291))], corners, atol=1e-3)


def mouth(opening):
    """Lips at z = 0, half as far above as below the middle, corners 0.2 to the sides."""
    vertices = np.array(
        [[0, opening / 2, 0], [0, -opening / 2, 0], [-0.2, 0, 0], [0.2, 0, 0]], np.float32
    )
    pairs = np.tile([2, 3], 5)
    rows = FaceRows(pairs, upper_lip=np.array([0]), lower_lip=np.array([1]))
    return vertices, rows


def light(opening, *points):
    vertices, rows = mouth(opening)
    inside = np.arange(len(vertices), len(vertices) + len(points))
    vertices = np.concatenate([vertices, np.array(points, np.float32)])
    return mouth_openness(vertices, inside, rows, gain=np.ones(len(points)))


def test_it_gets_lighter_in_a_mouth_as_it_opens():
    tooth = (0.0, 0.0, -0.1)
    levels = [light(opening, tooth)[0] for opening in (0.0, 0.05, 0.1, 0.2)]
    assert levels[0] < 0.05
    assert levels == sorted(levels)
    assert levels[-1] > 0.4


def test_the_throat_is_darker_than_teeth_and_what_hides_behind_a_lip_is_darker_still():
    tooth, throat, hidden = light(0.1, (0, 0, -0.08), (0, 0, -0.8), (0, 0.3, -0.08))
    assert tooth > 2 * throat
    assert tooth > 3 * hidden


def test_between_dark_lips_less_light_is_let_in():
    pale, dark = (
        Material(np.full((16, 16, 4), (level, level, level, 255), np.uint8)) for level in (200, 70)
    )
    assert exposure_for(pale) == 1
    assert 0.3 < exposure_for(dark) < 0.8


def test_the_share_of_some_triangles_is_seen_where_they_are():
    made = head()
    scene = made._scene
    picture = made.render(FaceState())
    everything = scene.share_of(np.ones(len(scene.triangles), bool))
    assert everything.max() == 1
    np.testing.assert_array_equal(everything > 0, (picture != picture[0, 0]).any(-1))
    assert not scene.share_of(np.zeros(len(scene.triangles), bool)).any()
