"""Checkpoint directories: what is accepted, and what each refusal says."""

import json
import shutil

import pytest

from joyflash_cli.conditioning.config import ConditioningConfig
from joyflash_cli.description import PARTS
from joyflash_cli.errors import CheckpointError, UsageError
from joyflash_cli.weights.store import (
    REQUIRED_FILES,
    check_safetensors,
    converted_directory,
    embedded_directory,
    is_converted,
    resolve_checkpoint,
)


@pytest.fixture
def copy(toy_checkpoint, tmp_path):
    return shutil.copytree(toy_checkpoint, tmp_path / "copy")


def test_a_complete_directory(toy_checkpoint):
    files = resolve_checkpoint("tiny", toy_checkpoint)
    described = files.description
    assert (files.name, described.version, described.licence) == ("toy", "1", "CC0-1.0")
    assert described.sampler.fps == 25
    assert described.conditioning == ConditioningConfig()
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


@pytest.mark.parametrize(
    ("profile", "command"),
    [
        ("livetalk-1.3b", "joyflash weights fetch livetalk-1.3b --accept-license"),
        ("avatarforcing-1.3b", "joyflash weights fetch avatarforcing-1.3b --accept-license"),
    ],
)
def test_the_hint_is_the_exact_command(hub_case, monkeypatch, repository, profile, command):
    monkeypatch.setattr(
        "joyflash_cli.weights.manifest.manifest_path", lambda: repository / "weights.toml"
    )
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint(profile)
    assert (caught.value.code, caught.value.exit_code) == ("E-CHECKPOINT-MISSING", 4)
    assert caught.value.hint.startswith(f"{command} && joyflash weights convert {profile}")


def test_a_base_is_no_avatar(hub_case):
    with pytest.raises(UsageError, match="to train from"):
        resolve_checkpoint("base")


def test_a_converted_checkpoint_is_found(hub_case, toy_checkpoint):
    assert not is_converted("small")
    target = hub_case.converted / "small"
    shutil.copytree(toy_checkpoint, target)
    assert is_converted("small")
    assert resolve_checkpoint("small").directory == target == converted_directory("small")
    (target / "codec.safetensors").unlink()
    assert not is_converted("small")
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint("small")
    assert caught.value.code == "E-CHECKPOINT-INCOMPLETE"
    assert "joyflash weights convert small --overwrite" in caught.value.hint


def test_a_part_in_several_files(copy):
    whole = copy / "transformer.safetensors"
    names = [f"transformer-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name in names:
        shutil.copy(whole, copy / name)
    whole.unlink()
    index = copy / "transformer.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": names[1], "b": names[0]}}))
    files = resolve_checkpoint("tiny", copy)
    assert files.shards("transformer") == tuple(copy / name for name in names)
    assert files.shards("codec") == (copy / "codec.safetensors",)
    (copy / names[1]).write_bytes(b"version https://git-lfs")
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        resolve_checkpoint("tiny", copy)
    (copy / names[1]).unlink()
    with pytest.raises(CheckpointError, match=names[1]):
        resolve_checkpoint("tiny", copy)
    index.write_text(json.dumps({"weight_map": {"a": "../../etc.safetensors"}}))
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint("tiny", copy)
    assert caught.value.code == "E-CHECKPOINT-DAMAGED"


@pytest.mark.parametrize("name", ["c\x1b[2J.safetensors", "x" * 5_000 + ".safetensors", "\u202e"])
def test_an_index_cannot_put_anything_into_a_message(copy, name):
    (copy / "codec.safetensors").unlink()
    index = copy / "codec.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint("tiny", copy)
    told = str(caught.value).replace(str(copy), "")
    assert told.isprintable()
    assert len(told) < 500
    many = {f"t{number}": f"shard-{number}.safetensors" for number in range(1_000)}
    index.write_text(json.dumps({"weight_map": many}))
    with pytest.raises(CheckpointError, match="and 992 more") as caught:
        resolve_checkpoint("tiny", copy)
    assert len(str(caught.value)) < 1_000


def test_optional_parts(copy):
    assert not resolve_checkpoint("tiny", copy).has("text_encoder")
    shutil.copy(copy / "codec.safetensors", copy / "text_encoder.safetensors")
    assert resolve_checkpoint("tiny", copy).has("text_encoder")
    (copy / "text_encoder.safetensors").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match="HTML"):
        resolve_checkpoint("tiny", copy)


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pt", ".bin"])
def test_a_pickle_is_refused_by_design(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="can execute code") as caught:
        resolve_checkpoint("tiny", path)
    assert caught.value.code == "E-CHECKPOINT-PICKLE"


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
        ({"x" * 5_000: {}}, "unknown entry"),
        ({"format": "x" * 5_000}, "of format"),
        ({"conditioning": 5}, "without conditioning"),
        ({"name": "\x1b[31m"}, "name"),
        ({"version": "1\n2"}, "version"),
        ({"licence": "x" * 5_000}, "licence"),
    ],
)
def test_a_wrong_description_says_what_is_wrong(copy, changes, words):
    edit(copy, **changes)
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint("tiny", copy)
    assert words in caught.value.message
    assert "checkpoint.json" in caught.value.message
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, "\x00", " " * (1 << 21)])
def test_a_description_that_is_not_json(copy, text):
    (copy / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint("tiny", copy)
    assert caught.value.code == "E-CHECKPOINT-DAMAGED"
