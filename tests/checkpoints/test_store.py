"""Checkpoint directories: what is accepted, and what each refusal says."""

import json
import shutil

import pytest

from joyflash_cli.checkpoints.store import (
    PARTS,
    REQUIRED_FILES,
    check_safetensors,
    embedded_directory,
    resolve_checkpoint,
)
from joyflash_cli.errors import CheckpointError


@pytest.fixture
def copy(toy_checkpoint, tmp_path):
    return shutil.copytree(toy_checkpoint, tmp_path / "copy")


def test_a_complete_directory(toy_checkpoint):
    files = resolve_checkpoint("tiny", toy_checkpoint)
    assert (files.name, files.version, files.licence) == ("toy", "1", "CC0-1.0")
    assert files.section("sampler")["fps"] == 25
    assert files.section("conditioning") == {}
    for part in PARTS:
        assert files.weights(part).is_file()


def test_embedded_checkpoints_lie_inside_the_package(repository):
    assert embedded_directory("tiny") == repository / "joyflash_cli" / "assets" / "tiny"


@pytest.mark.parametrize("profile", ["livetalk-1.3b", "avatarforcing-1.3b"])
def test_weights_that_are_elsewhere_are_listed_with_the_next_step(profile):
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint(profile)
    assert "wav2vec2-base-960h/model.safetensors" in caught.value.message
    assert "--checkpoint DIR" in caught.value.hint


def test_weights_that_nobody_published():
    with pytest.raises(CheckpointError, match="no public weights") as caught:
        resolve_checkpoint("joyavatar-flash-1.3b")
    assert "--checkpoint DIR" in caught.value.hint


@pytest.mark.parametrize("missing", REQUIRED_FILES)
def test_an_incomplete_directory_lists_what_is_missing(copy, missing):
    (copy / missing).unlink()
    with pytest.raises(CheckpointError, match=missing) as caught:
        resolve_checkpoint("tiny", copy)
    assert caught.value.code == "E-CHECKPOINT-INCOMPLETE"


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "E-CHECKPOINT-POINTER", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "E-CHECKPOINT-DAMAGED", "HTML"),
        (b"", "E-CHECKPOINT-DAMAGED", "cut short"),
        (b"\xff" * 8 + b"{}", "E-CHECKPOINT-DAMAGED", "cut short"),
        (b"PK\x03\x04" + bytes(60), "E-CHECKPOINT-DAMAGED", "not a safetensors file"),
    ],
)
def test_files_that_are_no_safetensors_are_told_apart(tmp_path, data, code, words):
    path = tmp_path / "codec.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        check_safetensors(path)
    assert caught.value.code == code
    assert words in str(caught.value)


def edit(folder, **changes):
    file = folder / "checkpoint.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "format 2"),
        ({"sampler": None}, "without sampler"),
        ({"framing": 3}, "without framing"),
        ({"smapler": {}}, "'smapler'"),
    ],
)
def test_a_wrong_description_says_what_is_wrong(copy, changes, words):
    edit(copy, **changes)
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint("tiny", copy)
    assert words in caught.value.message
    assert "checkpoint.json" in caught.value.message


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, "\x00", " " * (1 << 21)])
def test_a_description_that_is_not_json(copy, text):
    (copy / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint("tiny", copy)
    assert caught.value.code == "E-CHECKPOINT-DAMAGED"
