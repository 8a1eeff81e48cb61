"""The evaluation set: balance, seeds, kinds and licences of files, and the built-in one."""

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from joyflash_cli.batch.manifest import read_rows
from joyflash_cli.cli.app import run
from joyflash_cli.errors import DataError
from joyflash_cli.measures.evaluation_set import pair_files
from joyflash_cli.measures.set_files import CATEGORIES, KINDS, SetFile


def files_of(known, number: int) -> list[SetFile]:
    return [
        SetFile(Path(f"{kind}-{index}"), kind, "CC0-1.0")
        for kind in known
        for index in range(number)
    ]


@pytest.mark.parametrize("count", [1, 7, 30, 100])
def test_pairs_are_balanced(count):
    pairs = pair_files(files_of(CATEGORIES, 40), files_of(KINDS, 25), count=count, seed=3)
    for values in (
        [pair.picture.kind for pair in pairs],
        [pair.voice.kind for pair in pairs],
        [(pair.picture.kind, pair.voice.kind) for pair in pairs],
    ):
        counts = Counter(values)
        assert max(counts.values()) - min(counts.values()) <= 1
    assert len({pair.id for pair in pairs}) == count
    assert len({pair.picture for pair in pairs}) == count
    assert len({pair.voice for pair in pairs}) == count


def test_as_many_kinds_as_categories_still_meet_each_other():
    voices = [file for file in files_of(KINDS, 3) if file.kind in ("opera", "singing", "synthetic")]
    pairs = pair_files(files_of(CATEGORIES, 3), voices, count=9, seed=0)
    assert len({(pair.picture.kind, pair.voice.kind) for pair in pairs}) == 9


def test_the_seed_decides():
    given = (files_of(CATEGORIES, 9), files_of(KINDS, 9))
    one, same, other = (pair_files(*given, count=20, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert [pair.picture for pair in one] != [pair.picture for pair in other]
    assert [pair.seed for pair in one] != [pair.seed for pair in other]


def write(path: Path, content: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    faces, voices = tmp_path / "faces", tmp_path / "voices"
    write(faces / "Photos" / "ann.png", "ann")
    write(faces / "Photos" / "LICENCE.txt", "\nCC BY 4.0\nmore")
    write(faces / "cartoon" / "deep" / "bob.JPG", "bob")
    write(faces / "cartoon" / "notes.txt")
    write(faces / "other" / "cy.webp", "cy")
    write(
        faces / "about.json",
        json.dumps({"other/cy.webp": {"category": "three-dimensional", "license": "MIT"}}),
    )
    write(voices / "TTS" / "one.wav", "one")
    write(voices / "TTS" / "about.json", json.dumps({"*": {"licence": "CC0-1.0"}}))
    write(voices / "any.ogg", "any")
    write(voices / "about.json", json.dumps({"any.ogg": {"kind": "opera"}}))
    return faces, voices


def build(folders, out: Path, *more: str) -> int:
    faces, voices = map(str, folders)
    command = ["evaluate", "set", "build", "--pictures", faces, "--speech", voices]
    return run([*command, "--out", str(out), *more])


def test_a_set_of_ones_own_files(folders, tmp_path, capsys):
    out = tmp_path / "set"
    assert build(folders, out, "--count", "6") == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(out / "manifest.csv")
    assert "6 videos of 3 avatars and 2 voices" in shown.err
    assert "without conversation, public-speaking, singing" in shown.err
    assert "the licence of 2 files is unknown" in shown.err
    described = json.loads((out / "set.json").read_text())
    assert described["categories"] == {"real": 2, "animated": 2, "three-dimensional": 2}
    assert described["licences"] == {"CC BY 4.0": 1, "CC0-1.0": 1, "MIT": 1, "unknown": 2}
    with (out / "manifest.csv").open("rb") as file:
        notes: list[str] = []
        rows = list(read_rows(file, "manifest.csv", note=notes.append))
    assert notes == []
    assert [row.values["id"] for row in rows] == [pair["id"] for pair in described["pairs"]]
    for row, pair in zip(rows, described["pairs"], strict=True):
        assert int(row.values["seed"]) == pair["seed"]
        for name in ("image", "audio"):
            path = out / row.values[name]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == pair[name]["sha256"]
    assert build(folders, out) == 6
    assert "E-SET-EXISTS" in capsys.readouterr().err
    assert build(folders, out, "--overwrite", "--copy", "--json", "--quiet") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["num_pairs"] == 100
    assert all((out / pair["image"]["path"]).parent == out / "pictures" for pair in made["pairs"])
    assert len(list((out / "speech").iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("faces/who.png", "x", "E-SET-KIND"),
        ("faces/Photos/about.json", "[1]", "E-SET-ABOUT"),
        ("voices/about.json", "{", "E-SET-ABOUT"),
    ],
)
def test_what_cannot_be_used_is_named(folders, tmp_path, capsys, name, content, code):
    write(tmp_path / name, content)
    assert build(folders, tmp_path / "set") == DataError.exit_code
    error = capsys.readouterr().err
    assert code in error
    assert str(tmp_path / name) in error
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("more", [[], ["--pictures", "a"], ["--built-in", "--speech", "a"]])
def test_files_or_the_built_in_set(more, tmp_path, capsys):
    assert run(["evaluate", "set", "build", "--out", str(tmp_path / "set"), *more]) == 2
    assert "E-USAGE" in capsys.readouterr().err


def test_the_built_in_set_has_true_films_of_the_same_name(tmp_path, capsys):
    out = tmp_path / "set"
    assert run(["evaluate", "set", "build", "--built-in", "--count", "4", "--out", str(out)]) == 0
    capsys.readouterr()
    described = json.loads((out / "set.json").read_text())
    assert described["categories"] == {"real": 0, "animated": 2, "three-dimensional": 2}
    assert "unknown" not in described["licences"]
    with (out / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert (out / row["image"]).is_file()
            assert (out / row["audio"]).is_file()
            assert (out / "truth" / f"{row['id']}.mp4").is_file()
