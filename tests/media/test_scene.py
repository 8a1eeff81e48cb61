"""What a video shows: sizes, proportions, and the square's place in them."""

import numpy as np
import pytest

from joyflash_cli.media.inputs.framing import Framed
from joyflash_cli.media.inputs.similarity import Similarity
from joyflash_cli.media.scene import FrameOptions, fit_scene, picture_scene
from joyflash_cli.types import Scene, Square


def framed(picture: np.ndarray, left: float, top: float, side: float) -> Framed:
    seen = np.zeros((64, 64, 3), np.uint8)
    return Framed(seen, Similarity(side / 64, 0.0, left, top), None, picture)


def ramp(width: int, height: int) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, :, 0] = np.arange(width) * 255 / width
    picture[:, :, 1] = (np.arange(height) * 255 / height)[:, None]
    return picture


@pytest.mark.parametrize(
    ("given", "longest", "size"),
    [
        ((640, 480), 1280, (640, 480)),
        ((641, 481), 1280, (640, 480)),
        ((33, 32), 1280, (32, 32)),
        ((3000, 2000), 1280, (1280, 854)),
        ((2000, 3001), 1280, (854, 1280)),
        ((1080, 1350), 1350, (1080, 1350)),
        ((1080, 1350), 1280, (1024, 1280)),
        ((40, 6000), 1280, (16, 1280)),
        ((5000, 5000), 64, (64, 64)),
    ],
)
def test_a_picture_keeps_its_proportions_with_even_sides(given, longest, size):
    scene = picture_scene(framed(ramp(*given), 0, 0, min(given)), max_side_px=longest)
    assert scene.size_px == size
    assert scene.goes_on
    assert scene.pixels.flags.c_contiguous


def test_a_picture_that_is_small_enough_keeps_its_own_pixels():
    picture = np.random.default_rng(0).integers(0, 256, (101, 77, 3), np.uint8)
    scene = picture_scene(framed(picture, 5.0, 6.0, 50.0), max_side_px=1280)
    np.testing.assert_array_equal(scene.pixels, picture[:100, :76])
    assert scene.square == Square(5.0, 6.0, 50.0)


def test_the_square_follows_what_is_scaled_and_cut():
    """A white patch marks the square; after reduction it is still what the square says."""
    picture = np.zeros((2003, 1501, 3), np.uint8)
    picture[400:1000, 300:900] = 255
    scene = picture_scene(framed(picture, 300.0, 400.0, 600.0), max_side_px=640)
    left, top, right, bottom = (round(edge) for edge in scene.square.bounds())
    white = scene.pixels[:, :, 0] > 127
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    assert (columns[0], columns[-1] + 1) == pytest.approx((left, right), abs=1)
    assert (rows[0], rows[-1] + 1) == pytest.approx((top, bottom), abs=1)


@pytest.mark.parametrize("side", [256, 512])
def test_a_face_is_its_square_alone(side):
    scene = FrameOptions(size_px=side).scene(framed(ramp(700, 900), -20.0, 100.0, 400.0))
    assert scene.size_px == (side, side)
    assert scene.square == Square(0.0, 0.0, float(side))
    assert not scene.goes_on


def test_a_square_knows_its_corners_and_bounds():
    square = Square(10.0, 20.0, 100.0, np.pi / 2)
    assert square.point(1, 0) == pytest.approx((10, 120))
    assert square.point(0, 1) == pytest.approx((-90, 20))
    assert square.bounds() == pytest.approx((-90, 20, 10, 120))
    seen = square.seen(left=10, top=0, scale=0.5)
    assert (seen.left, seen.top, seen.side, seen.angle) == (0, 10, 50, square.angle)


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (64, 64), (600, 300)])
def test_another_picture_covers_the_video_and_keeps_its_face(size):
    square = Square(210.0, 40.0, 60.0)
    scene = Scene(ramp(300, 200), square, goes_on=True)
    fitted = fit_scene(scene, size)
    assert fitted.size_px == size
    x, y = fitted.square.point(0.5, 0.5)
    assert 0 < x < size[0]
    assert 0 < y < size[1]
    # The ramp's colours tell where a pixel came from.
    red, green, _ = fitted.pixels[int(y), int(x)] / 255 * (300, 200, 1)
    assert (red, green) == pytest.approx((240, 70), abs=4)
