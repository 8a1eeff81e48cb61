"""Hashes of what is embedded, the cache's state, and headers read without weights."""

import base64
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights import diagnosis
from joyflash_cli.weights.diagnosis import cache_state, embedded_files
from joyflash_cli.weights.integrity import CHECKSUMS, write_checksums
from joyflash_cli.weights.store import embedded_directory
from joyflash_cli.weights.tensors import num_parameters, read_tensors, tensor_shapes


def test_embedded_files_are_hashed():
    states = {state["name"]: state for state in embedded_files()}
    path = embedded_directory("tiny") / "codec.safetensors"
    state = states["tiny/codec.safetensors"]
    assert state["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert state["num_bytes"] == path.stat().st_size


class Recorded:
    """A file as the installer recorded it."""

    def __init__(self, path: Path, digest: bytes) -> None:
        self.path, self.parts = path, path.parts
        value = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        self.hash = type("Hash", (), {"mode": "sha256", "value": value})

    def locate(self) -> Path:
        return self.path


def test_they_are_compared_with_what_was_installed(monkeypatch):
    folder = embedded_directory("tiny")
    good, bad = folder / "codec.safetensors", folder / "checkpoint.json"
    records = [
        Recorded(good, hashlib.sha256(good.read_bytes()).digest()),
        Recorded(bad, hashlib.sha256(b"something else").digest()),
    ]
    monkeypatch.setattr(diagnosis.metadata, "files", lambda name: records)
    states = {state["name"]: state["is_as_installed"] for state in embedded_files()}
    assert states["tiny/codec.safetensors"] is True
    assert states["tiny/checkpoint.json"] is False
    assert states["tiny/front_end.safetensors"] is True  # by the checkpoint's own checksums


def test_they_are_compared_with_what_was_exported(monkeypatch, tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes(name.encode())
    monkeypatch.setattr(diagnosis, "embedded_directory", lambda name: folder)

    def states():
        return {state["name"]: state["is_as_installed"] for state in embedded_files()}

    assert states() == {"tiny/a.safetensors": None, "tiny/b.safetensors": None}
    write_checksums(folder)
    (folder / "b.safetensors").write_bytes(b"changed")
    assert states() == {"tiny/a.safetensors": True, "tiny/b.safetensors": False}
    (folder / CHECKSUMS).write_text("{")
    assert set(states().values()) == {False}


def test_a_cache_that_does_not_exist_yet_can_be_made(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "a" / "b"))
    state = cache_state()
    assert state["directory"] == str(tmp_path / "a" / "b" / "hub")
    assert state["is_writable"]
    assert state["free_bytes"] > 0
    (tmp_path / "a").write_text("a file is in the way")
    assert not cache_state()["is_writable"]


def test_shapes_come_from_the_headers_of_all_shards(tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"x": torch.zeros(3, 4), "s": torch.zeros(())}, first, metadata={"format": "pt"})
    save_file({"y": torch.zeros(5, dtype=torch.bfloat16)}, second)
    assert tensor_shapes([first, second]) == {"x": (3, 4), "s": (), "y": (5,)}
    assert num_parameters([first, second]) == 12 + 1 + 5
    assert num_parameters([]) == 0
    assert read_tensors([first, second])["y"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        b"\x04\0\0\0\0\0\0\0null",
        (2).to_bytes(8, "little") + b"[]",
        (len(h := json.dumps({"x": {"shape": "no"}}).encode())).to_bytes(8, "little") + h,
        (len(h := json.dumps({"x": 3}).encode())).to_bytes(8, "little") + h,
    ],
)
def test_damaged_headers_are_refused(content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors") as caught:
        tensor_shapes([path])
    assert caught.value.code == "E-CHECKPOINT-DAMAGED"
    with pytest.raises(CheckpointError):
        read_tensors([path])
