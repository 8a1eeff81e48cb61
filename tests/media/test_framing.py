import sys
import types

import numpy as np
import pytest
from PIL import Image

from joyflash_cli.errors import ConfigError, ImageError
from joyflash_cli.media.faces import FaceBox, fills_picture, find_faces
from joyflash_cli.media.framing import FramingRule, frame_face, measure_framing
from joyflash_cli.media.picture import Picture

RULE = FramingRule(size_px=128, face_centre_x=0.5, face_centre_y=0.4, face_size=0.45)
# The face of scikit-image's portrait of Eileen Collins, by eye.
PORTRAIT_CENTRE = (222, 120)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    from skimage.data import astronaut

    return astronaut()


@pytest.fixture(scope="module")
def no_models(tmp_path_factory):
    return tmp_path_factory.mktemp("no_models")


def checkerboard(side: int = 300) -> np.ndarray:
    rows, columns = np.mgrid[0:side, 0:side] // 40
    return np.repeat(((rows + columns) % 2 * 200).astype(np.uint8)[:, :, None], 3, axis=2)


def test_the_face_of_a_portrait_is_found(portrait, no_models):
    faces = find_faces(portrait, models_dir=no_models)
    assert len(faces) == 1
    assert faces[0].centre == pytest.approx(PORTRAIT_CENTRE, abs=15)
    assert 80 < faces[0].size < 130


def test_the_place_follows_scale_and_mirror(portrait, no_models):
    large = np.asarray(Image.fromarray(portrait).resize((1024, 1024)))
    face = find_faces(large, models_dir=no_models)[0]
    assert face.centre == pytest.approx([2 * c for c in PORTRAIT_CENTRE], abs=30)
    mirrored = find_faces(np.ascontiguousarray(portrait[:, ::-1]), models_dir=no_models)[0]
    straight = find_faces(portrait, models_dir=no_models)[0]
    assert mirrored.centre[0] == pytest.approx(512 - straight.centre[0], abs=4)


def test_a_small_face_in_a_large_picture_is_found(portrait, no_models):
    background = np.full((1200, 1600, 3), 90, np.uint8)
    background[300:812, 500:1012] = portrait
    face = find_faces(background, models_dir=no_models)[0]
    assert face.centre == pytest.approx((722, 420), abs=20)


@pytest.mark.parametrize("picture", [checkerboard(), np.zeros((40, 300, 3), np.uint8)])
def test_no_face(picture, no_models):
    assert find_faces(picture, models_dir=no_models) == []


def test_faces_are_sorted_by_size(portrait, no_models):
    small = np.asarray(Image.fromarray(portrait[0:256, 94:350]).resize((160, 160)))
    both = np.full((256, 440, 3), 120, np.uint8)
    both[48:208, 10:170] = small
    both[:, 180:436] = portrait[0:256, 94:350]
    faces = find_faces(both, models_dir=no_models)
    assert len(faces) == 2
    assert faces[0].size > 1.3 * faces[1].size
    assert faces[0].centre[0] > 180 > faces[1].centre[0]


def test_overlap():
    assert FaceBox(0, 0, 10).overlap(FaceBox(0, 0, 10)) == 1
    assert FaceBox(0, 0, 10).overlap(FaceBox(5, 0, 10)) == pytest.approx(1 / 3)
    assert FaceBox(0, 0, 10).overlap(FaceBox(10, 0, 10)) == 0


@pytest.fixture
def insightface(monkeypatch, tmp_path):
    """A stand-in for the package with one model file; it sees one face, told by the test."""
    (tmp_path / "buffalo_l").mkdir()
    (tmp_path / "buffalo_l" / "det_10g.onnx").write_bytes(b"")
    seen = types.SimpleNamespace(boxes=[], picture=None, models_dir=tmp_path)

    class Detector:
        def prepare(self, **options):
            assert options["ctx_id"] == -1

        def detect(self, picture):
            seen.picture = picture
            return np.array(seen.boxes, np.float32).reshape(-1, 5), None

    def get_model(path):
        assert path.endswith("det_10g.onnx")
        return Detector()

    package = types.ModuleType("insightface")
    package.model_zoo = types.SimpleNamespace(get_model=get_model)
    monkeypatch.setitem(sys.modules, "insightface", package)
    return seen


def test_insightface_decides_where_it_is_present(portrait, insightface, no_models):
    by_cascade = find_faces(portrait, models_dir=no_models)[0]
    x, y = PORTRAIT_CENTRE
    insightface.boxes = [(x - 45, y - 60, x + 45, y + 60, 0.9), (400, 300, 440, 360, 0.8)]
    faces = find_faces(portrait, models_dir=insightface.models_dir)
    np.testing.assert_array_equal(insightface.picture, portrait[:, :, ::-1])
    # The cascade saw the first too: its own square is kept, the second is converted.
    assert faces == [by_cascade, FaceBox(400.0, 310.0, 40.0)]
    insightface.boxes = []
    assert find_faces(portrait, models_dir=insightface.models_dir) == [by_cascade]


def test_without_a_model_file_insightface_is_not_touched(portrait, insightface, no_models):
    insightface.boxes = [(0, 0, 10, 10, 0.9)]
    assert len(find_faces(portrait, models_dir=no_models)) == 1
    assert insightface.picture is None


def test_a_faint_face_in_the_middle_is_enough(portrait):
    face = find_faces(portrait)[0]
    x, y, half = *map(round, face.centre), round(face.size * 0.9)
    close = portrait[max(y - half, 0) : y + half, max(x - half, 0) : x + half]
    assert fills_picture(np.ascontiguousarray(close))
    corner = portrait[:180, :180]  # beside the face
    assert not fills_picture(np.ascontiguousarray(corner))
    assert not fills_picture(checkerboard(64))
    assert not fills_picture(np.zeros((8, 200, 3), np.uint8))


def test_the_face_lands_where_the_rule_says(portrait):
    framed = frame_face(Picture(portrait, ("kept",)), RULE)
    assert framed.pixels.shape == (128, 128, 3)
    assert framed.pixels.dtype == np.uint8
    assert framed.warnings == ("kept",)
    face = find_faces(framed.pixels)[0]
    assert face.size / 128 == pytest.approx(0.45, rel=0.12)
    assert face.centre[0] / 128 == pytest.approx(0.5, abs=0.04)
    assert face.centre[1] / 128 == pytest.approx(0.4, abs=0.04)


def test_framing_twice_changes_nothing(portrait):
    once = frame_face(Picture(portrait), RULE)
    twice = frame_face(Picture(once.pixels), RULE)
    np.testing.assert_array_equal(once.pixels, twice.pixels)


def test_pixels_are_never_stretched():
    """A disc stays a disc when a wide picture without a face is cut to a square."""
    rows, columns = np.mgrid[0:200, 0:400]
    disc = (rows - 100) ** 2 + (columns - 200) ** 2 < 60**2
    framed = frame_face(Picture(np.repeat(disc[:, :, None] * np.uint8(255), 3, axis=2)), RULE)
    inside = framed.pixels[:, :, 0] > 127
    assert inside.any(axis=0).sum() == pytest.approx(120 * 128 / 200, abs=1)
    assert inside.any(axis=1).sum() == pytest.approx(120 * 128 / 200, abs=1)
    assert framed.box == (100.0, 0.0, 200.0)
    assert framed.face is None
    assert "no face" in framed.warnings[0]


def test_downscaling_is_antialiased():
    lines = np.zeros((1280, 1280, 3), np.uint8)
    lines[::2] = 255
    framed = frame_face(Picture(lines), RULE)
    assert np.ptp(framed.pixels[4:-4].astype(int)) < 12


def test_crop_beyond_the_picture_continues_its_edge(portrait):
    close = np.ascontiguousarray(portrait[60:190, 160:290])
    framed = frame_face(Picture(close), RULE)
    assert any("outside the picture" in warning for warning in framed.warnings)
    left, top, side = framed.box
    assert left < 0
    assert side > 130
    # The detector's box is placed by the rule, moved by at most the tolerance to show less fill.
    assert framed.face.size / side == pytest.approx(0.45)
    assert (framed.face.centre[0] - left) / side == pytest.approx(0.5, abs=0.081)
    assert (framed.face.centre[1] - top) / side == pytest.approx(0.4, abs=0.081)
    # No black bars: every border pixel continues the picture's own colours.
    border = np.concatenate([framed.pixels[:, 0], framed.pixels[:, -1]])
    assert border.max(axis=1).min() >= close.max(axis=2).min()
    # No seam: the steps across the picture's left border are no larger than inside it.
    column = round(-left / side * 128)
    steps = np.abs(np.diff(framed.pixels[:, :, 1].astype(int), axis=1)).mean(axis=0)
    assert steps[column - 2 : column + 1].max() <= steps[column + 2 :].max()


def test_several_faces_and_the_choice(portrait):
    both = np.concatenate([portrait[:256, 94:350], portrait[:256, 94:350]], axis=1)
    framed = frame_face(Picture(both), RULE)
    assert any("2 faces" in warning for warning in framed.warnings)
    first = frame_face(Picture(both), RULE, face_index=0)
    second = frame_face(Picture(both), RULE, face_index=1)
    assert not any("faces" in warning for warning in first.warnings)
    assert abs(first.box[0] - second.box[0]) == pytest.approx(256, abs=20)
    with pytest.raises(ImageError) as caught:
        frame_face(Picture(both), RULE, face_index=2)
    assert caught.value.code == "E-IMAGE-FACE"


def test_enlarging_is_told():
    framed = frame_face(Picture(checkerboard(64)), RULE)
    assert any("soft" in warning for warning in framed.warnings)


def test_measured_rule_describes_the_frames(portrait):
    frames = [frame_face(Picture(portrait), RULE).pixels, np.zeros((128, 128, 3), np.uint8)]
    rule = measure_framing(frames)
    assert rule.size_px == 128
    assert rule.face_size == pytest.approx(0.45, rel=0.12)
    assert (rule.face_centre_x, rule.face_centre_y) == pytest.approx((0.5, 0.4), abs=0.04)


def test_frames_without_faces_or_of_two_sizes_give_no_rule():
    with pytest.raises(ImageError, match="no face"):
        measure_framing([np.zeros((64, 64, 3), np.uint8)])
    with pytest.raises(ImageError, match="one size"):
        measure_framing([np.zeros((64, 64, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)])
    with pytest.raises(ImageError, match="one size"):
        measure_framing([])


@pytest.mark.parametrize("change", [{"size_px": 0}, {"face_size": 1.5}, {"face_centre_x": 0.0}])
def test_impossible_rules(change):
    with pytest.raises(ConfigError):
        FramingRule(**{**RULE.__dict__, **change})
