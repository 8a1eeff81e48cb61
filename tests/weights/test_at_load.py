"""Weights whose bytes have changed are not rendered with; what is not verified is said."""

import shutil

import pytest

from joyflash_cli.cli.app import run
from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights import store
from joyflash_cli.weights.integrity import write_checksums
from joyflash_cli.weights.places import converted_directory
from joyflash_cli.weights.store import resolve_checkpoint, unverified, verify_at_load

PARTS = ("transformer", "codec", "front_end")


@pytest.fixture
def checkpoint(toy_checkpoint, tmp_path):
    folder = tmp_path / "weights" / "toy"
    shutil.copytree(toy_checkpoint, folder)
    write_checksums(folder)
    return folder


def flip(path, place=-100):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("place", [-1, -100, 8])
def test_a_flipped_byte_ends_in_one_line(checkpoint, toy_picture, toy_voice, capsys, part, place):
    flip(checkpoint / f"{part}.safetensors", place)
    out = checkpoint.parent / "out.mp4"
    command = ["render", "--image", str(toy_picture), "--audio", str(toy_voice), "-o", str(out)]
    assert run([*command, "--checkpoint", str(checkpoint)]) == 4
    told = capsys.readouterr().err
    assert "error[E-CHECKPOINT-DAMAGED]" in told
    assert f"{part}.safetensors" in told
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_description_may_be_changed_but_not_where_the_program_keeps_it(checkpoint, monkeypatch):
    text = (checkpoint / "checkpoint.json").read_text()
    (checkpoint / "checkpoint.json").write_text(text.replace('"version": "1"', '"version": "2"'))
    files = resolve_checkpoint("tiny", checkpoint)
    verify_at_load(files)
    monkeypatch.setenv("XDG_CACHE_HOME", str(checkpoint.parent))
    converted = shutil.copytree(checkpoint, converted_directory("toy"))
    with pytest.raises(CheckpointError, match=r"checkpoint\.json"):
        verify_at_load(resolve_checkpoint("tiny", converted))
    monkeypatch.setattr(store, "embedded_directory", lambda profile: checkpoint.parent / profile)
    with pytest.raises(CheckpointError, match=r"checkpoint\.json"):
        verify_at_load(files)


def test_of_large_files_only_the_size_counts_and_that_is_said(checkpoint, monkeypatch):
    files = resolve_checkpoint("tiny", checkpoint)
    assert unverified(files) == ""
    size = (checkpoint / "transformer.safetensors").stat().st_size
    monkeypatch.setattr(store, "QUICK_BYTES", size - 1)
    assert "transformer.safetensors" in unverified(files)
    assert "front_end" not in unverified(files)
    flip(checkpoint / "transformer.safetensors")
    verify_at_load(files)
    with (checkpoint / "transformer.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CheckpointError, match="its bytes have changed"):
        verify_at_load(files)


def test_weights_without_checksums_are_said_to_be_unverified(toy_checkpoint):
    files = resolve_checkpoint("tiny", toy_checkpoint)
    verify_at_load(files)
    assert "it holds no checksums.json" in unverified(files)


def test_the_embedded_weights_are_verified_to_the_last():
    files = resolve_checkpoint("tiny")
    verify_at_load(files)
    assert files.directory == store.embedded_directory("tiny")
    assert unverified(files) == ""
