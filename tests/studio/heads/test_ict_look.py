"""Painting, warping and placing: what an ICT head wears lies where it should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.studio.heads import ict_warp
from joyflash_cli.studio.heads.face_state import VISEMES, FaceState
from joyflash_cli.studio.heads.ict import UNIT_GAIN, ict_units
from joyflash_cli.studio.heads.ict_atlas import Tile, _places, _signed_distance
from joyflash_cli.studio.heads.ict_pack import IctAssets
from joyflash_cli.studio.heads.ict_paint import (
    INSIDE,
    Paint,
    paint_eye,
    paint_lashes,
    paint_skin,
    sample_texture,
)
from joyflash_cli.studio.heads.ict_warp import fit_warp
from joyflash_cli.studio.heads.makehuman_pack import MakeHumanAssets, Proxy
from joyflash_cli.studio.heads.painter import smoothstep
from joyflash_cli.studio.heads.rasteriser import Surface

SIDE = 32
PAINT = Paint(
    hair=np.array([40.0, 30.0, 25.0]),
    lip_tint=np.array([1.0, 0.5, 0.5]),
    lip_amount=1.0,
    brow_amount=1.0,
    stubble=0.0,
    scalp=1.0,
    hairline=0.0,
    freckles=0.0,
)


def tile_with(**maps):
    """A tile of bare skin except for the given maps, each a slice of rows set to 1."""
    empty = np.zeros((SIDE, SIDE), np.float32)
    values = {name: empty.copy() for name in ("lips", "brows", "beard", "inside", "blush")}
    values["scalp"] = empty - 1
    for name, rows in maps.items():
        values[name][rows] = 1
    middle = np.full((SIDE, SIDE, 2), 0.5, np.float32)
    return Tile(place=np.zeros((SIDE, SIDE, 3), np.float32), skin_uv=middle, **values)


def painted(tile, paint=PAINT, seed=0):
    skin = np.full((8, 8, 4), 200, np.uint8)
    picture = paint_skin(tile, skin, paint, np.random.default_rng(seed))
    assert picture.shape == (SIDE, SIDE, 4)
    assert (picture[..., 3] == 255).all()
    return picture[..., :3].astype(float)


def test_bare_skin_keeps_the_texture_and_gets_pores():
    picture = painted(tile_with())
    assert picture.mean() == pytest.approx(200, abs=2)
    assert 0.5 < picture.std() < 8


def test_paint_covers_exactly_its_own_map():
    picture = painted(tile_with(lips=slice(0, 8), inside=slice(8, 16), scalp=slice(16, 24)))
    lips, inside, scalp, skin = picture.reshape(4, 8, SIDE, 3).mean((1, 2))
    np.testing.assert_allclose(lips / 200, PAINT.lip_tint, atol=0.06)
    np.testing.assert_allclose(inside, INSIDE, atol=3)
    np.testing.assert_allclose(scalp, PAINT.hair, atol=22)
    np.testing.assert_allclose(skin, 200, atol=4)


def test_brows_take_the_colour_of_hair():
    picture = painted(tile_with(brows=slice(0, 16)))
    assert picture[:16].mean() < 90 < 190 < picture[16:].mean()


def test_a_seed_decides_the_pores():
    tile = tile_with()
    np.testing.assert_array_equal(painted(tile, seed=3), painted(tile, seed=3))
    assert (painted(tile, seed=3) != painted(tile, seed=4)).any()


def test_eye_has_a_dark_pupil_a_coloured_iris_and_a_white():
    eye = paint_eye(np.array([60.0, 90.0, 160.0]), np.random.default_rng(0)).astype(float)
    middle = len(eye) // 2
    assert eye[middle, middle, :3].max() < 20
    ring = eye[middle, middle + 15, :3]
    assert ring[2] > ring[0] + 20
    assert eye[middle, 8, :3].min() > 120


def test_lashes_thin_out_towards_the_tip():
    lashes = paint_lashes(np.array([20.0, 20.0, 20.0]), np.random.default_rng(0))
    rows = lashes[..., 3].astype(float).mean(1)
    assert rows[-1] > 150 > rows[len(rows) // 2] > rows[0]


@given(st.floats(0, 1), st.floats(0, 1))
def test_bilinear_lookup_is_exact_on_a_ramp(u, v):
    x, y = np.meshgrid(np.arange(16), np.arange(16))
    ramp = np.stack([x * 10, y * 10, 0 * x, 0 * x + 255], -1).astype(np.uint8)
    colour = sample_texture(ramp, np.array([u, v], np.float32))
    expected = np.clip([u * 16 - 0.5, (1 - v) * 16 - 0.5], 0, 15) * 10
    np.testing.assert_allclose(colour[:2], expected, atol=1e-2)


def test_texels_know_their_place_even_where_the_texture_is_empty():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    corners = np.array([[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.8]], np.float32)
    surface = Surface(np.arange(4), corners, np.array([[0, 1, 2], [0, 2, 3]]))
    place, triangle = _places(surface, vertices, 50)
    u, v = 0.6, 0.35
    found = place[int((1 - v) * 50), int(u * 50)]
    np.testing.assert_allclose(found, [(u - 0.2) / 0.6, (v - 0.2) / 0.6, 0], atol=0.03)
    assert np.isfinite(place).all()
    assert set(np.unique(triangle)) == {0, 1}
    np.testing.assert_allclose(place[0, 0], [0, 1, 0], atol=0.05)


def test_signed_distance_of_a_square():
    square = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    distance = _signed_distance(np.array([[0.0, 0], [0.9, 0], [3, 0]]), square)
    np.testing.assert_allclose(distance, [-1, -0.1, 2], atol=0.06)


def test_smoothstep_runs_both_ways():
    values = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(smoothstep(values, 0, 1), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(smoothstep(values, 1, 0), [1, 1, 0.5, 0, 0])


def units(**weights):
    visemes = np.array([weights.pop(name, 0.0) for name in VISEMES], np.float32)
    return ict_units(FaceState(visemes=visemes, **weights))


def test_the_upper_lip_keeps_the_teeth_in_sight_unless_the_lips_are_pressed():
    assert units(jaw=0.9)["mouthUpperUpLeft"] > units(jaw=0.3)["mouthUpperUpLeft"] + 0.05
    pressed = units(jaw=0.9, press=1.0)
    assert pressed.get("mouthUpperUpLeft", 0) == pytest.approx(0, abs=1e-6)
    assert pressed["mouthClose"] == pytest.approx(pressed["jawOpen"])


def test_gains_scale_jaw_and_its_cancelling_alike():
    assert UNIT_GAIN["jawOpen"] == UNIT_GAIN["mouthClose"]
    assert units(jaw=0.8)["jawOpen"] == pytest.approx(2 * units(jaw=0.4)["jawOpen"])


def egg(count):
    """Points of an egg around the place where heads are, with outward triangles."""
    from scipy.spatial import ConvexHull

    index = np.arange(count) + 0.5
    height, angle = 1 - 2 * index / count, index * np.pi * (1 + np.sqrt(5))
    radius = np.sqrt(1 - height**2)
    unit = np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], 1)
    points = (unit * [0.8, 1.1, 0.9] + [0, 7.3, 0.5]).astype(np.float32)
    triangles = ConvexHull(points).simplices
    a, b, c = np.moveaxis(points[triangles], 1, 0)
    inward = (np.cross(b - a, c - a) * (a - points.mean(0))).sum(1) < 0
    triangles[inward] = triangles[inward][:, [0, 2, 1]]
    return points, triangles


def two_heads():
    """A head and a target that is the same head, stretched and bent, with its points marked."""
    points, triangles = egg(2900)
    bent = points.copy()
    bent[:, 0] *= 1.1
    bent[:, 2] += 0.15 * (points[:, 1] - 7.3) ** 2 - 0.05
    landmarks = np.zeros(68, np.int64)
    for vertex, point in ict_warp._POINTS:
        landmarks[point] = vertex
    corner = {
        sign: int(np.argmax(sign * points[:, 0] - 9 * (points[:, 1] > 7))) for sign in (1, -1)
    }
    landmarks[54], landmarks[48] = corner[1], corner[-1]
    lips = np.zeros_like(points)
    lips[list(corner.values()), 1] = 0.05
    eyes = [int(np.argmax(points @ [s * 0.4, 0, 1])) for s in (1, -1)]
    proxy = Proxy(
        reference=np.array([[e] * 3 for e in eyes]), weight=np.full((2, 3), 1 / 3),
        offset=np.zeros((2, 3), np.float32), scale=np.array([[0, 1, 1.0]] * 3),
        surface=Surface(np.arange(2), np.zeros((2, 2)), np.zeros((0, 3), int)),
    )  # fmt: skip
    rows = np.arange(len(points))
    source = MakeHumanAssets(
        vertices=points, surface=Surface(rows, np.zeros((len(points), 2)), triangles),
        units={"mouthRollLower": lips}, macros={}, details={}, proxies={"eyes": proxy},
        texture_folder=None,
    )  # fmt: skip
    flat = np.zeros((len(points), 2), np.float32)
    surfaces = {"face": Surface(rows, flat, triangles), "back": Surface(rows, flat, triangles[:0])}
    for name, eye in zip(("left_eye", "right_eye"), eyes, strict=True):
        surfaces[name] = Surface(np.array([eye]), flat[:1], triangles[:0])
    target = IctAssets(
        vertices=bent, modes=np.zeros((1, *bent.shape), np.float16), units={}, surfaces=surfaces,
        landmarks=landmarks, skin_count=len(points),
    )  # fmt: skip
    return source, target


def test_the_warp_carries_one_head_onto_the_other():
    source, target = two_heads()
    warp = fit_warp(source, target)
    upper = source.vertices[:, 1] > 6.3
    before = np.linalg.norm(source.vertices - target.vertices, axis=1)[upper]
    moved = warp(source.vertices[upper])
    from scipy.spatial import cKDTree

    after = cKDTree(target.vertices).query(moved)[0]
    assert before.mean() > 0.05
    assert np.percentile(after, 90) < 0.04  # the target's vertices lie 0.06 apart
    hair = source.vertices[upper] + [0, 0.05, 0]
    np.testing.assert_allclose(warp(hair) - moved, [[0, 0.05, 0]] * upper.sum(), atol=0.03)
