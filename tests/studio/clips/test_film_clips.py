"""Films and pairs as clips: framed by their points, measured, in step with the sound."""

import json

import numpy as np
import pytest

from joyflash_cli.errors import DataError
from joyflash_cli.media.sheet import write_picture
from joyflash_cli.studio.clips.clip_file import write_frames, write_sound
from joyflash_cli.studio.clips.clips import MARGIN_FRAMES, ClipStore
from joyflash_cli.studio.clips.film_clips import (
    FilmClipsConfig,
    blinks_of,
    build_film_clips,
    cut_film,
    read_films,
    smoothed,
)
from joyflash_cli.studio.clips.mesh_points import NUM_POINTS
from joyflash_cli.studio.clips.photo_clips import PhotoClipsConfig, read_photos, speaking_photos
from joyflash_cli.studio.clips.photo_pairs import build_pairs, find_pairs
from joyflash_cli.studio.heads.drawn import sample_drawn
from joyflash_cli.studio.heads.face_points import FACE_POINTS, MOUTH_CORNERS, OUTER_EYES
from joyflash_cli.studio.heads.face_state import FaceState

NUM_FRAMES = 9
CONFIG = FilmClipsConfig(
    folder="films", num_frames=5, size_px=32, smoothing_frames=0, held_out=("nobody",)
)


def recorded(head, state):
    """A drawn head's points where a recording has them."""
    face, points = head.points(state), np.zeros((NUM_POINTS, 2))
    points[:] = np.concatenate([face[OUTER_EYES], face[MOUTH_CORNERS]]).mean(0)
    points[list(FACE_POINTS)] = face
    return points


def opened(jaw):
    return FaceState(visemes=np.array([jaw, 0, 0, 0, 0, 0], np.float32))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two films of drawn people whose mouths open and who are heard when they do."""
    folder = tmp_path_factory.mktemp("films")
    entries = []
    for number, person in enumerate(("somebody", "nobody")):
        head = sample_drawn(np.random.default_rng(number), size_px=64, split="train")
        states = [opened(0.8 * (index % 2)) for index in range(NUM_FRAMES)]
        write_frames(folder / f"{person}.mp4", np.stack([head.render(s) for s in states]), crf=4)
        points = np.stack([recorded(head, state) for state in states])
        np.savez(folder / f"{person}.npz", points=points.astype(np.float16))
        loud = np.repeat([0.8 * (index % 2) for index in range(NUM_FRAMES)], 640)
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, len(loud))
        write_sound(folder / f"{person}.flac", loud * noise)
        entries.append({"file": f"{person}.mp4", "person": person, "text": "oh oh"})
    (folder / "clips.json").write_text(json.dumps(entries))
    return folder


def film(films, person="somebody"):
    return next(record for record in read_films(films) if record.person == person)


def test_a_film_gives_clips_of_equal_length_and_their_mirror_images(films):
    clips = list(cut_film(film(films), CONFIG, split="train"))
    assert [clip["about"]["mirrored"] for clip in clips] == [False, True]
    for clip in clips:
        assert clip["frames"].shape == (5, 32, 32, 3)
        assert clip["lips"].shape == (5, 3)
        assert len(clip["waveform"]) == (5 + 2 * MARGIN_FRAMES) * 640
        assert np.isnan(clip["visemes"]).all()
    np.testing.assert_array_equal(clips[0]["frames"][:, :, ::-1], clips[1]["frames"])
    x0, _, x1, _ = clips[0]["mouth_box"]
    assert list(clips[1]["mouth_box"][[0, 2]]) == [32 - x1, 32 - x0]


def test_lips_and_sound_are_in_step(films):
    clip = next(cut_film(film(films), CONFIG, split="train"))
    sound = np.abs(clip["waveform"]).reshape(-1, 640).mean(1)[MARGIN_FRAMES:][:5]
    assert ((clip["lips"][:, 0] > 0.1) == (sound > 0.05)).all()
    assert list(clip["lips"][:, 0] > 0.1) == [False, True, False, True, False]


def test_points_of_another_number_of_frames_are_refused(films, tmp_path):
    record = film(films)
    for suffix in (".mp4", ".flac"):
        (tmp_path / f"x{suffix}").write_bytes(record.path.with_suffix(suffix).read_bytes())
    np.savez(tmp_path / "x.npz", points=np.zeros((4, NUM_POINTS, 2)) + np.eye(NUM_POINTS, 2))
    points = record.read_points()
    np.savez(tmp_path / "x.npz", points=points[:4])
    broken = type(record)(tmp_path / "x.mp4", "x", 0, "")
    with pytest.raises(DataError, match="9 frames at 25 a second, but points of 4"):
        next(cut_film(broken, CONFIG, split="train"))


def test_held_out_people_are_cut_apart(films, tmp_path):
    for split in ("train", "held-out"):
        build_film_clips(
            CONFIG, films_dir=films, out_dir=tmp_path / split, split=split, processes=1
        )
        persons = {ClipStore(tmp_path / split).about(0)["person"]}
        assert persons == {"somebody" if split == "train" else "nobody"}


def test_a_folder_without_its_list_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a folder of films"):
        read_films(tmp_path)


def test_blinks_are_told_from_lids():
    lids = np.array([0.3, 0.31, 0.3, 0.2, 0.1, 0.29])
    blink = blinks_of(lids)
    assert list(blink[[0, 1, 2, 5]]) == [0, 0, 0, 0]
    assert 0 < blink[3] < blink[4] == 1


def test_smoothing_calms_points_and_keeps_their_middle():
    track = np.random.default_rng(0).normal(0, 1, (50, 3))
    calm = smoothed(track, 1.0)
    assert calm.std() < 0.7 * track.std()
    np.testing.assert_array_equal(smoothed(track, 0), track)


@pytest.fixture
def photos(tmp_path):
    """Twelve drawn people with closed lips, the first of them with open ones, too."""
    entries, points = [], []
    for number in range(13):
        person = max(number - 1, 0)
        head = sample_drawn(np.random.default_rng(person), size_px=64, split="train")
        state = opened(0.6 if number == 1 else 0.0)
        write_picture(tmp_path / f"{number}.png", head.render(state))
        places = recorded(head, state)
        eyes_apart = np.linalg.norm(places[33] - places[263])
        gap = np.linalg.norm(places[13] - places[14]) / eyes_apart
        entries.append(
            {"file": f"{number}.png", "person": f"p{person:02}", "gap": gap, "yaw": 0.02 * number}
        )
        points.append(places)
    (tmp_path / "photos.json").write_text(json.dumps(entries))
    np.savez(tmp_path / "photos.npz", points=np.stack(points).astype(np.float16))
    return tmp_path


def test_a_closed_and_an_open_mouth_of_one_person_make_a_pair(photos, tmp_path):
    ((closed, smiling),) = find_pairs(read_photos(photos))
    assert closed.person == smiling.person == "p00"
    assert closed.gap < smiling.gap
    build_pairs(photos, tmp_path / "pairs", size_px=32, split="train")
    store = ClipStore(tmp_path / "pairs")
    assert len(store) == 2
    assert store.frames(0).shape == (2, 32, 32, 3)
    assert store.lips(0)[1, 0] > store.lips(0)[0, 0] + 0.03
    # Eyes stay where they are, so what differs is the mouth.
    x0, y0, x1, y1 = store.mouth_box(0)
    differs = np.abs(np.diff(store.frames(0).astype(int), axis=0)[0]).max(-1)
    assert differs[y0:y1, x0:x1].mean() > 4 * differs[: y0 - 2].mean()


def test_only_closed_lips_and_faces_to_the_front_can_speak(photos):
    records = read_photos(photos)
    config = PhotoClipsConfig(max_gap=0.06, max_yaw=0.15)
    chosen = speaking_photos(records, config)
    assert {record.path.stem for record in chosen} == {"0", "2", "3", "4", "5", "6", "7"}
    held_out = speaking_photos(records, PhotoClipsConfig(split="held-out", max_yaw=0.5))
    assert [record.person for record in held_out] == ["p09"]
    with pytest.raises(DataError, match="None of 13 photographs"):
        speaking_photos(records, PhotoClipsConfig(split="held-out", max_yaw=0.01))


def test_a_folder_without_points_is_refused(photos):
    (photos / "photos.npz").unlink()
    with pytest.raises(DataError, match="not a folder of photographs"):
        read_photos(photos)
