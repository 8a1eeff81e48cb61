"""People of photographs: the fit, the lips' edges, the light, and that rest is the photograph."""

from types import SimpleNamespace

import numpy as np
import pytest
from head_packs import write_ict_pack

from joyflash_cli.studio.heads import photo_head
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.studio.heads.ict_pack import load_ict
from joyflash_cli.studio.heads.mesh_head import head_turn
from joyflash_cli.studio.heads.mouth_light import FaceRows
from joyflash_cli.studio.heads.photo_fit import (
    FITTED_UNITS,
    NUM_MODES,
    Photo,
    colour_of,
    fit_photo,
    light_of,
    lips_apart,
)
from joyflash_cli.studio.heads.photo_head import PhotoHead
from joyflash_cli.studio.heads.rig import units_in_use

SIZE_PX = 48


@pytest.fixture(scope="module")
def skull():
    """Random points with a depth of half their width, and random shapes."""
    rng = np.random.default_rng(0)
    vertices = rng.normal(0, [0.5, 0.6, 0.3], (90, 3)).astype(np.float32)
    shapes = rng.normal(0, 0.03, (NUM_MODES, 90, 3)).astype(np.float16)
    units = {name: rng.normal(0, 0.02, (90, 3)).astype(np.float32) for name in FITTED_UNITS}
    return SimpleNamespace(vertices=vertices, modes=shapes, units=units, landmarks=np.arange(68))


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.2, -0.1, 0.15)])
def test_a_turned_head_is_found_again(skull, turn):
    rotation = head_turn(*turn)
    seen = 0.2 * skull.vertices[:68] @ rotation[:2].T + [0.5, -0.4]
    fit = fit_photo(skull, seen * [1, -1])
    # Points between the lips are taken for closed, which these random ones are not.
    assert fit.error < 0.03
    np.testing.assert_allclose(fit.rotation, rotation, atol=0.1)
    assert fit.scale == pytest.approx(0.2, rel=0.1)


def test_the_bend_brings_points_onto_the_photograph(skull):
    rng = np.random.default_rng(1)
    goal = 0.2 * skull.vertices[:68, :2] * [1, -1] + [0.5, 0.4] + rng.normal(0, 0.01, (68, 2))
    fit = fit_photo(skull, goal)
    seen = fit.scale * (fit.vertices @ fit.rotation[:2].T + fit.bend) + fit.shift
    away = np.linalg.norm(seen[:36] * [1, -1] - goal[:36], axis=1)
    assert np.median(away) < 0.3 * fit.error


def lips():
    """Two upper and two lower lip vertices and points of a mouth from 0.4 to 0.6 at 0.7."""
    points = np.zeros((68, 2))
    points[[48, 54]] = [[0.38, 0.7], [0.62, 0.7]]
    points[60:68] = [[0.4, 0.7], [0.45, 0.7], [0.5, 0.7], [0.55, 0.7], [0.6, 0.7], [0.55, 0.7],
                     [0.5, 0.7], [0.45, 0.7]]  # fmt: skip
    up, down = np.zeros((5, 3)), np.zeros((5, 3))
    up[[0, 1], 1], down[[2, 3], 1] = 0.1, 0.1
    return points, SimpleNamespace(
        units={"mouthRollUpper": up, "mouthRollLower": down},
        surfaces={"face": SimpleNamespace(rows=np.arange(5))},
    )


def test_each_lip_stays_on_its_side_of_the_line_between_them():
    points, ict = lips()
    source = np.array([[0.5, 0.66], [0.5, 0.74], [0.5, 0.66], [0.5, 0.75], [0.5, 0.9]])
    moved, tone = lips_apart(source, points, ict)
    assert moved[1, 1] < 0.7 < moved[2, 1]
    np.testing.assert_array_equal(moved[[0, 3, 4]], source[[0, 3, 4]])
    assert (tone[[1, 2]] < 1).all()
    assert (tone[[0, 3, 4]] == 1).all()


def test_beside_the_mouth_nothing_is_changed():
    points, ict = lips()
    source = np.array([[0.3, 0.66], [0.3, 0.74], [0.7, 0.66], [0.7, 0.75], [0.5, 0.9]])
    moved, tone = lips_apart(source, points, ict)
    np.testing.assert_array_equal(moved, source)
    assert (tone == 1).all()


def cheeks(colour):
    eyes = np.array([[10.0, 20.0], [50.0, 20.0]])
    mouth = np.array([[20.0, 40.0], [40.0, 40.0]])
    points = np.concatenate([eyes, eyes, eyes, eyes, mouth, mouth[:1], mouth[:1]])
    return np.full((64, 64, 3), colour, np.uint8), points


def test_the_mouth_is_lit_as_the_cheeks_are():
    pale, dark, blue = (
        light_of(*cheeks(colour)) for colour in ((200, 160, 140), (90, 70, 60), (150, 150, 200))
    )
    assert pale.colours.mean() > 2 * dark.colours.mean()
    assert blue.colours[0, 2] > blue.colours[0, 0]


def test_a_grey_photograph_gets_a_grey_mouth():
    assert colour_of(*cheeks((120, 120, 120))) == 0
    assert colour_of(*cheeks((200, 150, 120))) == 1


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    write_ict_pack(folder)
    ict = load_ict(folder, units=units_in_use())
    for name, row in (("mouthRollUpper", 54), ("mouthRollLower", 66)):
        ict.units[name][:] = 0
        ict.units[name][row, 1] = 0.1
    place = ict.vertices[ict.landmarks, :2] * [0.2, -0.2]
    rows, columns = np.mgrid[0 : 2 * SIZE_PX, 0 : 2 * SIZE_PX] / (2 * SIZE_PX)
    wave = 120 + 60 * np.sin(9 * columns) * np.cos(7 * rows)
    pixels = np.stack([wave, wave * 0.8, wave * 0.7], -1).astype(np.uint8)
    photo = Photo(pixels, place - place.mean(0) + [0.5, 0.45])
    pairs = np.array([36, 45, 39, 42, 38, 43, 26, 31, 48, 54])
    rows = FaceRows(pairs, upper_lip=np.array([66]), lower_lip=np.array([54]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo_head, "face_rows", lambda pack: rows)
        return photo, PhotoHead(ict, photo, size_px=SIZE_PX)


def test_at_rest_the_picture_is_the_photograph(head):
    photo, person = head
    picture, mask = person.render_with_mouth(FaceState())
    plain = photo.pixels.reshape(SIZE_PX, 2, SIZE_PX, 2, 3).mean((1, 3))
    off = np.abs(picture - plain).max(-1)[mask == 0]
    # The skin next to the line between the lips is drawn from a little further away.
    assert np.percentile(off, 97) <= 2


def test_a_turn_moves_the_picture_and_far_from_the_head_nothing(head):
    person = head[1]
    still, turned = (
        person.render(state).astype(int) for state in (FaceState(), FaceState(yaw=0.1))
    )
    moved = np.abs(still - turned).max(-1)
    assert moved.max() > 5
    assert (moved[-2:] <= 2).mean() > 0.9
