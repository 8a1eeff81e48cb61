"""The embedded face networks: found, turned, followed, refused."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from joyflash_cli.errors import CheckpointError
from joyflash_cli.media.inputs.face_networks import load_face_networks
from joyflash_cli.media.inputs.face_points import (
    CANONICAL,
    LEFT_LID,
    LIPS_OUTER,
    MIRRORED,
    NUM_POINTS,
    RIGHT_LID,
)
from joyflash_cli.media.inputs.faces import find_faces, read_points
from joyflash_cli.media.inputs.similarity import Similarity, cut


@pytest.fixture(scope="module")
def face(portrait):
    return find_faces(portrait)[0]


def error(points: np.ndarray, other: np.ndarray, outer_eye_distance: float) -> float:
    return float(np.linalg.norm(points - other, axis=1).mean()) / outer_eye_distance


def test_names_of_points():
    assert len(set(CANONICAL)) == NUM_POINTS == len(CANONICAL)
    np.testing.assert_array_equal(MIRRORED[MIRRORED], np.arange(NUM_POINTS))
    np.testing.assert_array_equal(MIRRORED[RIGHT_LID], LEFT_LID)
    assert CANONICAL[MIRRORED[LIPS_OUTER[0]]] == 291  # the corners change places


def test_a_portrait_shows_one_face_and_its_points_lie_on_it(portrait, face):
    assert len(find_faces(portrait)) == 1
    assert face.confidence > 0.9
    assert face.flaw == ""
    assert abs(face.roll_degrees) < 4
    assert abs(face.yaw) < 0.3
    height, width = portrait.shape[:2]
    assert face.eyes == pytest.approx([0.5 * width, 0.42 * height], abs=0.05 * width)
    assert face.mouth == pytest.approx([0.5 * width, 0.67 * height], abs=0.05 * width)
    assert 0.3 * width < face.outer_eye_distance < 0.42 * width
    # The person's right eye is on the picture's left, and lids open between brow and cheek.
    right, left = face.points[RIGHT_LID].mean(0), face.points[LEFT_LID].mean(0)
    assert right[0] < face.eyes[0] < left[0]


@pytest.mark.parametrize("degrees", [-150, -90, -30, 20, 60, 180])
def test_faces_are_read_at_any_angle(portrait, face, degrees):
    side = 760
    turned = Similarity(1.0, degrees, 0.0, 0.0)
    corner = np.full(2, len(portrait) / 2) - turned.to_picture(np.full(2, side / 2))
    place = replace(turned, x=float(corner[0]), y=float(corner[1]))
    found = find_faces(cut(portrait, place, side))
    assert len(found) == 1
    apart = (found[0].roll_degrees - face.roll_degrees + degrees + 180) % 360 - 180
    assert abs(apart) < 4
    back = place.to_picture(found[0].points)
    assert error(back, face.points, face.outer_eye_distance) < 0.05


def test_the_points_follow_scale_and_mirror(portrait, face):
    small = np.asarray(Image.fromarray(portrait).resize((200, 200)))
    scale = 200 / len(portrait)
    read = find_faces(small)[0].points
    assert error(read / scale, face.points, face.outer_eye_distance) < 0.03
    mirrored = find_faces(np.ascontiguousarray(portrait[:, ::-1]))[0].points
    back = mirrored[MIRRORED] * [-1, 1] + [len(portrait), 0]
    assert error(back, face.points, face.outer_eye_distance) < 0.02


def test_a_small_face_in_a_large_picture(portrait, face):
    background = np.full((1200, 1600, 3), 90, np.uint8)
    background[300:460, 500:660] = np.asarray(Image.fromarray(portrait).resize((160, 160)))
    found = find_faces(background)
    assert len(found) == 1
    expected = np.array([500, 300]) + face.points * 160 / len(portrait)
    assert error(found[0].points, expected, face.outer_eye_distance * 160 / len(portrait)) < 0.08


def test_faces_are_sorted_by_size(portrait):
    both = np.full((256, 440, 3), 120, np.uint8)
    both[48:208, 10:170] = np.asarray(Image.fromarray(portrait).resize((160, 160)))
    both[:, 180:436] = np.asarray(Image.fromarray(portrait).resize((256, 256)))
    large, small = find_faces(both)
    assert large.size > 1.3 * small.size
    assert large.centre[0] > 180 > small.centre[0]


def checkerboard(side: int) -> np.ndarray:
    rows, columns = np.mgrid[0:side, 0:side] // 40
    return np.repeat(((rows + columns) % 2 * 200).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize(
    "picture",
    [
        checkerboard(300),
        np.zeros((40, 300, 3), np.uint8),
        np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8),
    ],
)
def test_no_face(picture):
    assert find_faces(picture) == []


def test_a_scrambled_or_erased_face_is_none(portrait):
    tiles = portrait.reshape(4, 128, 4, 128, 3).swapaxes(1, 2).reshape(16, 128, 128, 3)
    parts = tiles[np.random.default_rng(1).permutation(16)]
    rows = [np.concatenate(parts[i : i + 4], 1) for i in range(0, 16, 4)]
    assert find_faces(np.concatenate(rows)) == []
    erased = portrait.copy()
    erased[170:400, 130:390] = portrait[300, 256]
    assert find_faces(erased) == []


@pytest.mark.parametrize("colour", [(30, 30, 35), (220, 225, 230), (90, 140, 200)])
def test_a_covered_mouth_is_told(portrait, face, colour):
    covered = portrait.copy()
    (x, y), reach = face.mouth, face.eyes_to_mouth
    top, left = int(y - 0.45 * reach), int(x - 0.9 * reach)
    covered[top : int(y + 0.6 * reach), left : int(x + 0.9 * reach)] = colour
    found = find_faces(covered)
    assert not [other for other in found if not other.flaw]
    assert all("covered" in other.flaw for other in found)


def test_a_face_is_followed_through_a_film(portrait, face):
    frames = []
    for step in range(20):
        place = Similarity(1.0, 0.5 * step, -2.0 * step, 1.5 * step)
        frames.append((place, cut(portrait, place, len(portrait))))
    track = read_points([frame for _, frame in frames])
    assert len(track) == 20
    for (place, _), seen in zip(frames, track, strict=True):
        assert seen.confidence > 0.5
        assert error(place.to_picture(seen.points), face.points, face.outer_eye_distance) < 0.03
    assert read_points([np.zeros((64, 64, 3), np.uint8)]) == []
    assert read_points([]) == []


def test_damaged_weights_are_told(tmp_path):
    path = tmp_path / "points.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_face_networks(path)
