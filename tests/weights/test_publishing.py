"""A checkpoint directory appears whole or not at all, with the hashes of its files."""

import os
import subprocess
import sys

import pytest

from joyflash_cli.errors import CheckpointError, OutputError
from joyflash_cli.weights.integrity import CHECKSUMS, hash_file, read_checksums
from joyflash_cli.weights.publishing import published_directory


def make(target, content=b"new", **options):
    with published_directory(target, **options) as staging:
        (staging / "x.safetensors").write_bytes(content)


def test_it_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "model"
    with published_directory(target) as staging:
        (staging / "x.safetensors").write_bytes(b"new")
        assert not target.exists()
    assert {file.name for file in target.iterdir()} == {"x.safetensors", CHECKSUMS}
    assert list(target.parent.iterdir()) == [target]
    sums = read_checksums(target)
    assert sums == {"x.safetensors": {"bytes": 3, "sha256": hash_file(target / "x.safetensors")}}


def test_a_failure_leaves_nothing(tmp_path):
    target = tmp_path / "model"

    def fail():
        with published_directory(target) as staging:
            (staging / "x").write_bytes(b"half")
            raise CheckpointError("no")

    with pytest.raises(CheckpointError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_one_stays_unless_it_may_go(tmp_path):
    target = tmp_path / "model"
    make(target, b"old")
    with pytest.raises(OutputError, match="--overwrite") as caught:
        make(target)
    assert caught.value.exit_code == 6
    assert (target / "x.safetensors").read_bytes() == b"old"
    make(target, overwrite=True)
    assert (target / "x.safetensors").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_one_that_appears_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "model"

    def be_late():
        with published_directory(target):
            target.mkdir()
            (target / "theirs").touch()

    with pytest.raises(OutputError, match="exists already"):
        be_late()
    assert [file.name for file in target.iterdir()] == ["theirs"]


def test_a_replacement_that_fails_gives_the_earlier_one_back(tmp_path, monkeypatch):
    target = tmp_path / "model"
    make(target, b"old")
    replace = os.replace

    def fail_for_the_new(source, destination):
        if str(source).endswith(f"part-{os.getpid()}"):
            raise OSError(28, "No space left on device")
        replace(source, destination)

    monkeypatch.setattr("os.replace", fail_for_the_new)
    with pytest.raises(OutputError, match="No space left"):
        make(target, overwrite=True)
    assert (target / "x.safetensors").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_removed(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    gone = tmp_path / f".model.part-{done.stdout.strip()}"
    alive = tmp_path / f".model.part-{os.getppid()}"
    for folder in (gone, alive):
        folder.mkdir()
    make(tmp_path / "model")
    assert (gone.exists(), alive.exists()) == (False, True)


def test_a_place_where_nothing_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as caught:
        make(tmp_path / "file" / "model")
    assert caught.value.code == "E-OUTPUT-FOLDER"


@pytest.mark.parametrize("text", ["", "[]", '{"x": 1}', '{"x": {"bytes": "many", "sha256": ""}}'])
def test_checksums_that_cannot_be_read(tmp_path, text):
    (tmp_path / CHECKSUMS).write_text(text)
    with pytest.raises(CheckpointError) as caught:
        read_checksums(tmp_path)
    assert caught.value.code == "E-CHECKPOINT-DAMAGED"
