import json

import numpy as np
import pytest

from joyflash_cli.errors import DataError
from joyflash_cli.measures.reader import load_readers
from joyflash_cli.studio.clips.clip_framing import ClipFraming
from joyflash_cli.studio.evaluation import real
from joyflash_cli.studio.evaluation.real import list_films
from joyflash_cli.weights.store import resolve_checkpoint
from tests.report.clips import held_out, write_video

NUM_FRAMES = 30
PEOPLE = {"ann/one.mp4": "clip-00", "ann/two.mp4": "clip-01", "bob.mp4": "clip-05"}


class Echo:
    """Gives the true film back: late, or its first frame only, or as it is."""

    def __init__(self, films, framing, *, late=0, frozen=False):
        self.late, self.frozen = late, frozen
        self.films = []
        for film in films:
            self.films.append(list(film.clip.read(fps=25, framing=ClipFraming(framing)).frames))

    def stream(self, reference, waveform, *, seed):
        assert len(waveform) == NUM_FRAMES * 640
        frames = np.stack(self.films[seed])
        assert (frames[0] == reference).all()
        if self.frozen:
            frames = np.repeat(frames[:1], len(frames), axis=0)
        frames = np.concatenate([frames[:1]] * self.late + [frames])[: len(frames)]
        yield frames[:9]
        yield frames[9:]

    def reconstruct(self, frames, reference):
        raise NotImplementedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    (folder / "ann").mkdir()
    for name, clip in PEOPLE.items():
        frames, sound = held_out(clip)
        write_video(folder / name, frames[:NUM_FRAMES], sound)
    entries = [
        {"file": "ann/one.mp4", "person": "ann", "groups": ["glasses"]},
        {"file": "ann/two.mp4", "person": "ann", "groups": ["glasses"]},
        {"file": "bob.mp4", "person": "bob"},
        {"file": "gone.mp4", "person": "carl"},
    ]
    (folder / "clips.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture(scope="module")
def framing():
    return resolve_checkpoint("tiny").description.framing


@pytest.fixture(scope="module")
def readers():
    return load_readers()


@pytest.fixture(scope="module")
def late(folder, framing, readers):
    films = list_films([folder])
    return real.measure_films(films, Echo(films, framing, late=2), framing, readers)


def test_the_true_film_two_frames_late_is_found_out(late):
    assert late["lip_lag_frames"] == 2
    assert late["lip_correlation"] > 0.95
    assert late["lip_correlation_at_zero_lag"] < late["lip_correlation"] - 0.05
    assert late["lip_correlation_mismatched"] < 0.7
    assert late["mouth_amplitude"] == pytest.approx(1, abs=0.15)
    assert late["teeth"] == pytest.approx(0, abs=3)
    assert late["open_mouth_psnr_db"] > 35
    assert late["truth"]["identity_similarity"] == pytest.approx(
        late["identity_similarity"], abs=0.03
    )


def test_people_count_the_same_and_groups_are_told_apart(late):
    assert list(late["people"]) == ["ann", "bob"]
    assert late["people"]["ann"]["num_films"] == 2
    assert (late["num_films"], late["num_people"]) == (3, 2)
    amplitudes = [part["mouth_amplitude"] for part in late["people"].values()]
    assert late["mouth_amplitude"] == pytest.approx(np.mean(amplitudes), rel=1e-3)
    assert set(late["films"]) == {"ann/one", "ann/two", "bob"}
    assert late["films"]["ann/two"]["person"] == "ann"
    glasses = late["groups"]["glasses"]
    assert glasses["num_people"] == 1
    assert glasses["mouth_amplitude"] == late["people"]["ann"]["mouth_amplitude"]
    assert glasses["of_everybody"]["mouth_amplitude"] == pytest.approx(
        glasses["mouth_amplitude"] / late["mouth_amplitude"], rel=1e-3
    )
    skins = {
        name: "dark skin" if part["skin_lightness"] < 50 else "other skin"
        for name, part in late["people"].items()
    }
    assert {name for name in late["groups"] if name != "glasses"} == set(skins.values())
    assert json.loads(json.dumps(late)) == late
    assert late["skipped"] == []


def test_a_still_picture_follows_nothing_and_unfit_films_are_listed(
    folder, framing, readers, tmp_path
):
    films = list_films([folder], limit=1)
    still = Echo(films, framing, frozen=True)
    frames, sound = held_out()
    write_video(tmp_path / "no face.mp4", frames[:NUM_FRAMES] // 8 + 100, sound)
    write_video(tmp_path / "silent.mp4", frames[:NUM_FRAMES])
    write_video(tmp_path / "short.mp4", frames[:20], sound)
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    told = []
    found = real.measure_films(
        [*films, *list_films([tmp_path])], still, framing, readers,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert found["num_films"] == 1
    assert found["mouth_amplitude"] < 0.1
    assert found["blinks_per_min"] == 0
    assert "lip_correlation_mismatched" not in found
    reasons = {entry["film"]: entry["reason"] for entry in found["skipped"]}
    assert set(reasons) == {"no face", "silent", "short", "damaged"}
    assert "no face was found" in reasons["no face"]
    assert "holds no sound" in reasons["silent"]
    assert "at least 1 s" in reasons["short"]
    assert "damaged cannot be read" in reasons["damaged"]
    assert told[0] == ("ann/one", 1, 5)
    assert told[1][0].startswith("damaged is skipped: damaged cannot be read")
    with pytest.raises(DataError, match="none of 4 films can be measured"):
        real.measure_films(list_films([tmp_path]), still, framing, readers)


def test_a_limit_takes_of_every_person(folder, tmp_path):
    assert [film.name for film in list_films([folder], limit=2)] == ["ann/one", "bob"]
    inner = list_films([folder / "ann"])
    assert [(film.name, film.person) for film in inner] == [("one", "ann"), ("two", "ann")]
    with pytest.raises(DataError, match="not a folder"):
        list_films([tmp_path / "gone"])
    with pytest.raises(DataError, match="holds no clip"):
        list_films([tmp_path])


@pytest.mark.parametrize(
    "text", ["{", "[1]", '[{"person": "ann"}]', '{"a": 1}', "3", '[{"file": 3}]']
)
def test_a_list_of_people_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "clips.json").write_text(text)
    with pytest.raises(DataError, match=r"clips\.json is no list"):
        list_films([tmp_path])
