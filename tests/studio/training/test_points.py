"""The stage that trains the face networks, at toy size, and what it learns from."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from joyflash_cli.errors import ConfigError, DataError
from joyflash_cli.media.inputs.face_networks import (
    FaceFinder,
    FaceNetworks,
    PointsNetwork,
    load_face_networks,
    save_face_networks,
)
from joyflash_cli.media.inputs.face_points import (
    CANONICAL,
    CROP_PX,
    FINDER_STRIDE,
    LIPS_INNER,
    NUM_POINTS,
    OUTLINE,
)
from joyflash_cli.studio.clips.clip_file import write_frames
from joyflash_cli.studio.clips.real_faces import PointedPicture, read_photos
from joyflash_cli.studio.heads.drawn import sample_drawn
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.studio.training.points import PointsConfig, build_collection
from joyflash_cli.studio.training.points_batches import (
    SCENE_PX,
    UNKNOWN,
    Collection,
    draw_crops,
    draw_scenes,
)
from joyflash_cli.studio.training.points_pictures import (
    eyes_and_mouth,
    load_parts,
    sample_faceless,
    write_part,
)
from joyflash_cli.studio.training.stages import run_stage


def drawn(seed: int, **state) -> tuple[np.ndarray, np.ndarray]:
    head = sample_drawn(np.random.default_rng(seed), size_px=256, split="train")
    shown = FaceState(**state)
    return head.render(shown), head.canonical_points(shown)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of six drawn people, as photographs with recorded points come; one is held out."""
    folder = tmp_path_factory.mktemp("real")
    rows, points = [], np.full((6, 478, 2), np.nan, np.float32)
    for index in range(6):
        pixels, known = drawn(index)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        points[index, list(CANONICAL)] = known
        rows.append({"file": f"{index}.png", "set": "london", "person": f"london-{index + 4:03d}",
                     "yaw": 0.0})  # fmt: skip
    (folder / "photos.json").write_text(json.dumps(rows))
    film = [drawn(9, shift_x=0.01 * step) for step in range(4)]
    write_frames(folder / "film.mp4", np.stack([pixels for pixels, _ in film]))
    of_film = np.full((4, 478, 2), np.nan, np.float32)
    of_film[:, list(CANONICAL)] = [known for _, known in film]
    np.savez(folder / "film.npz", points=of_film)
    (folder / "clips.json").write_text(json.dumps([{"file": "film.mp4", "person": "anna"}]))
    np.savez(folder / "photos.npz", points=points)
    return folder


@pytest.fixture(scope="module")
def collection(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    write_part(folder, "photos", read_photos(pictures))
    (store,) = load_parts(folder, ("photos",))
    rng = np.random.default_rng(0)
    faceless = np.stack([sample_faceless(rng, 256) for _ in range(8)])
    return Collection([store], [1.0], faceless)


def test_points_of_drawn_heads_lie_where_they_are_drawn():
    head = sample_drawn(np.random.default_rng(1), size_px=256, split="train")
    closed, opened = (
        head.canonical_points(FaceState(np.array([jaw, 0, 0, 0, 0, 0], np.float32)))
        for jaw in (0, 1)
    )
    gaps = [points[LIPS_INNER[5], 1] - points[LIPS_INNER[15], 1] for points in (closed, opened)]
    assert gaps[1] > gaps[0] + 10
    eyes, mouth = eyes_and_mouth(closed)
    for place, box in ((eyes, head.eyes_box), (mouth, head.mouth_box)):
        assert box[0] < place[0] < box[2]
        assert box[1] < place[1] < box[3]
    chin = closed[OUTLINE[18]]
    assert abs(chin[0] - eyes[0]) < 4
    assert chin[1] > mouth[1] + 20
    turned = head.canonical_points(FaceState(yaw=0.3))
    assert eyes_and_mouth(turned)[1][0] > mouth[0] + 2


def test_squares_keep_the_points_on_the_picture(collection):
    (store,) = collection.stores
    assert len(store) == 6
    assert store.held_out.tolist() == [False, True, False, False, False, False]
    eyes, mouth = eyes_and_mouth(store.points)
    np.testing.assert_allclose(np.linalg.norm(mouth - eyes, axis=1), 52, atol=8)
    for pixels, points in zip(store.pixels, store.points, strict=True):
        lips = points[LIPS_INNER].mean(0).astype(int)
        assert (pixels[lips[1], lips[0]] != 128).any()


def test_crops_have_points_or_say_that_there_is_no_face(collection):
    crops, points, labels = draw_crops(collection, 64, np.random.default_rng(0))
    assert crops.shape == (64, 3, CROP_PX, CROP_PX)
    assert crops.min() >= -1
    assert crops.max() <= 1
    faces = labels[:, 0] == 1
    assert 32 < faces.sum() < 60
    assert points[~faces].isnan().all()
    assert (labels[~faces, 1:] == UNKNOWN).all()
    eyes, mouth = (torch.from_numpy(p) for p in eyes_and_mouth(points[faces].numpy()))
    distance = (mouth - eyes).norm(dim=-1)
    assert ((distance > 0.15) & (distance < 0.45)).all()
    assert {0.0, 1.0} <= set(labels[faces, 1].tolist())
    again, *_ = draw_crops(collection, 64, np.random.default_rng(0))
    torch.testing.assert_close(again, crops, atol=0, rtol=0)


def test_scenes_tell_where_faces_are(collection):
    _, heat, shape = draw_scenes(collection, 24, np.random.default_rng(0))
    cells = SCENE_PX // FINDER_STRIDE
    assert heat.shape == (24, cells, cells)
    peaks = torch.nonzero(heat == 1)
    assert 10 < len(peaks) < 60
    for scene, row, column in peaks.tolist():
        dx, dy, size, cosine, sine = shape[scene, :, row, column].tolist()
        assert max(abs(dx), abs(dy)) <= 0.51
        assert 0.5 < np.exp(size) * FINDER_STRIDE / 6 < 6
        assert cosine**2 + sine**2 == pytest.approx(1, abs=1e-5)


def test_folded_networks_say_the_same_and_fit_into_two_megabytes(tmp_path):
    torch.manual_seed(0)
    networks = FaceNetworks(FaceFinder(), PointsNetwork())
    crops = torch.randn(2, 3, CROP_PX, CROP_PX)
    with torch.no_grad():
        for network in (networks.finder, networks.points):
            network.train()
            network(crops)
            network.eval()
        before = networks.points(crops)
        save_face_networks(networks, tmp_path / "points.safetensors")
        after = load_face_networks(tmp_path / "points.safetensors").points(crops)
    assert before.points.shape == (2, NUM_POINTS, 2)
    torch.testing.assert_close(after.points, before.points, atol=2e-3, rtol=0)
    torch.testing.assert_close(after.logits, before.logits, atol=2e-2, rtol=2e-2)
    assert (tmp_path / "points.safetensors").stat().st_size < 2_000_000


def write_run(folder, pictures, *, steps: int):
    path = folder / "run.toml"
    tables = "".join(
        f"[points.{name}]\nbatch = 4\nlog_every = 1\n"
        f"[points.{name}.optimiser]\nsteps = {steps}\nwarmup_steps = 1\n"
        for name in ("finder", "network")
    )
    path.write_text(
        f'work_dir = "{folder / "work"}"\nassets_dir = "{folder}"\nversion = "toy"\nthreads = 1\n'
        f'[points]\npictures = "{pictures}"\nnum_heads = 0\nnum_faceless = 4\n{tables}'
    )
    return path


def test_the_stage_ends_with_networks_that_load(pictures, tmp_path):
    threads, reports = torch.get_num_threads(), []
    try:
        run_stage("points", write_run(tmp_path, pictures, steps=2), report=reports.append)
    finally:
        torch.set_num_threads(threads)
    assert [line["step"] for line in reports] == [1, 2, 1, 2]
    assert all(np.isfinite(line["loss"]) for line in reports)
    load_face_networks(tmp_path / "work/points/points.safetensors")


def test_nothing_to_learn_from_is_told(tmp_path):
    with pytest.raises(ConfigError, match="neither pictures nor num_heads"):
        build_collection(PointsConfig(num_heads=0), assets_dir=tmp_path, directory=tmp_path)
    config = PointsConfig(num_heads=0, pictures=str(tmp_path))
    with pytest.raises(DataError, match="photos.json"):
        build_collection(config, assets_dir=tmp_path, directory=tmp_path / "parts")
    with pytest.raises(ConfigError, match="add up to 1"):
        PointsConfig(shares=(0.5, 0.5, 0.5))


def test_a_part_that_exists_is_not_made_again(tmp_path):
    pixels, points = drawn(3)
    picture = PointedPicture(pixels, points, 0.0, False, "drawn")
    write_part(tmp_path, "few", iter([picture]))
    write_part(tmp_path, "few", iter([picture, picture]))
    assert len(load_parts(tmp_path, ("few",))[0]) == 1
    (tmp_path / "few.npy").unlink()
    with pytest.raises(DataError, match="few"):
        load_parts(tmp_path, ("few",))
