"""Figures of the face networks, on a folder whose truth is what they themselves said."""

import json

import numpy as np
import pytest
from PIL import Image

from joyflash_cli.cli.app import run
from joyflash_cli.media.inputs.face_points import CANONICAL, NUM_POINTS, points_of
from joyflash_cli.media.inputs.faces import Face, find_faces
from joyflash_cli.studio.clips.clip_file import write_frames
from joyflash_cli.studio.clips.real_faces import PointedPicture
from joyflash_cli.studio.evaluation import points


@pytest.fixture(scope="module")
def folders(portrait, tmp_path_factory):
    real, faceless = tmp_path_factory.mktemp("real"), tmp_path_factory.mktemp("faceless")
    known = np.full((478, 2), np.nan, np.float32)
    known[list(CANONICAL)] = find_faces(portrait)[0].points
    rows = []
    for number in (4, 5):
        Image.fromarray(portrait).save(real / f"{number}.png")
        rows.append({"file": f"{number}.png", "set": "london", "person": f"london-{number:03d}",
                     "yaw": 0.0})  # fmt: skip
    (real / "photos.json").write_text(json.dumps(rows))
    np.savez(real / "photos.npz", points=np.stack([known, known]))
    write_frames(real / "film.mp4", np.stack([portrait] * 3))
    np.savez(real / "film.npz", points=np.stack([known] * 3))
    films = [{"file": "film.mp4", "person": name} for name in ("grid-s31", "grid-s1")]
    (real / "clips.json").write_text(json.dumps(films))
    Image.fromarray(portrait).save(faceless / "face.png")
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(faceless / "night.png")
    (faceless / "README.txt").write_text("no picture")
    return real, faceless


def test_figures(folders, capsys):
    real, faceless = folders
    options = ["--real", str(real), "--faceless", str(faceless), "--json", "--quiet"]
    assert run(["evaluate", "points", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    # One photograph and three frames of one film are held out.
    assert (report["faces"], report["missed"], report["refused"]) == (4, 0, 0)
    assert report["frontal"]["london"] == pytest.approx(0, abs=1e-3)  # stored as 16-bit numbers
    assert report["frontal"]["clip"] < 0.02
    assert report["rolled_30_degrees"]["all"] < 0.05
    assert report["frontal"]["shapes"]["london"] == {}  # one face has no slope
    assert set(report["frontal"]["shapes"]["all"]) == {"opening", "width", "lids"}
    assert max(report["framed_spread"].values()) < 0.01
    assert report["ms_per_megapixel"] > 0
    assert report["faceless"] == {"pictures": 2, "accepted": 1, "names": "face.png"}


def test_mouths_that_are_read_half_open_have_half_a_slope():
    generator = np.random.default_rng(0)
    reads = []
    for opening in generator.uniform(0, 20, 12):
        recorded, measured = (face_of_opening(part * opening) for part in (1.0, 0.5))
        truth = PointedPicture(np.zeros((1, 1, 3), np.uint8), recorded, 0.0, True, "clip")
        reads.append(points._Read(truth, Face(measured, 1.0)))
    found = points._errors(reads)
    assert found["all"] < 0.01
    for shapes in (found["shapes"]["clip"], found["shapes"]["all"]):
        assert shapes["opening"] == pytest.approx({"slope": 0.5, "r": 1.0}, abs=1e-3)
        assert shapes["width"] == {"slope": None, "r": None}  # all faces have the same


def face_of_opening(opening_px):
    """Points of a face that differs from others in the distance of the inner lips alone."""
    face = np.random.default_rng(7).uniform(0, 200, (NUM_POINTS, 2)).astype(np.float32)
    upper, lower = points_of((13, 14))
    face[lower] = face[upper] + [0, opening_px]
    return face


def test_what_is_missing_is_told(folders, tmp_path, capsys):
    assert run(["evaluate", "points"]) == 2
    assert "--real DIR" in capsys.readouterr().err
    assert run(["evaluate", "points", "--real", str(tmp_path)]) == 3
    assert "photos.json" in capsys.readouterr().err
    (tmp_path / "note.txt").write_text("nothing")
    options = ["--real", str(folders[0]), "--faceless", str(tmp_path), "--quiet"]
    assert run(["evaluate", "points", *options]) == 3
    assert "holds no picture" in capsys.readouterr().err
