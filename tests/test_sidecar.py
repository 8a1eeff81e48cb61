"""The record beside a video: complete, whole or absent, and refused when damaged."""

import json
from pathlib import Path

import pytest

from joyflash_cli import __version__
from joyflash_cli.errors import DataError, OutputError
from joyflash_cli.render.record import (
    SIDECAR_KEYS,
    RunRecord,
    read_sidecar,
    sidecar_path,
    weights_sha256,
    write_sidecar,
)
from joyflash_cli.weights.store import resolve_checkpoint


def record(**changes) -> RunRecord:
    values = {
        "output": Path("a.mp4"), "status": "complete", "profile": "toy", "seed": 7, "fps": 25.0,
        "video_frames": 50, "audio_s": 1.99, "wall_s": 4.0,
    } | changes  # fmt: skip
    return RunRecord(**values)


def test_what_is_written_is_read_back(tmp_path):
    written = record(block_timings_s=(0.1, 0.25), prompt="smile\n\U0001f600", warnings=("soft",))
    path = write_sidecar(tmp_path / "a.mp4", written)
    assert path == tmp_path / "a.mp4.json"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4.json"]
    values = read_sidecar(tmp_path / "a.mp4")
    assert values == read_sidecar(path)
    assert tuple(values) == SIDECAR_KEYS
    assert values["block_timings_s"] == [0.1, 0.25]
    assert values["prompt"] == "smile\n\U0001f600"
    assert (values["video_s"], values["realtime_factor"]) == (2.0, 0.5)
    assert values["version"] == __version__
    assert values["ai_generated"] is True
    assert values["notice"].startswith("AI-generated with JoyFlash")
    assert values["created"].endswith("+00:00")


def test_a_record_of_an_earlier_version_is_read(tmp_path):
    path = write_sidecar(tmp_path / "a.mp4", record(truncated=True, skipped=((1.0, 0.5),)))
    values = json.loads(path.read_text())
    assert (values["truncated"], values["skipped"]) == (True, [[1.0, 0.5]])
    for key in ("audio_track", "truncated", "skipped"):
        del values[key]
    path.write_text(json.dumps(values))
    read = read_sidecar(path)
    assert (read["audio_track"], read["truncated"], read["skipped"]) == (None, False, [])


def test_the_docstring_names_every_key():
    from joyflash_cli.render import record as record_module

    assert all(f"``{key}``" in record_module.__doc__ for key in SIDECAR_KEYS)


def test_a_pattern_has_one_record(tmp_path):
    assert sidecar_path(tmp_path / "f-%05d.png").name == "f-05d.png.json"


def test_an_unwritable_place_is_told(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_sidecar(tmp_path / "gone" / "a.mp4", record())


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 2}', '{"format": 1}', "\xff", "[" * 100_000]
)
def test_damaged_records_are_one_clear_error(tmp_path, text):
    path = tmp_path / "a.mp4.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="record of a video") as caught:
        read_sidecar(path)
    assert caught.value.code == "E-SIDECAR"


def test_a_missing_record_is_told(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_sidecar(tmp_path / "a.mp4")


def test_the_hash_of_a_checkpoint_follows_weights_and_settings(toy_checkpoint, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(toy_checkpoint, folder)
    original = weights_sha256(resolve_checkpoint("tiny", toy_checkpoint))
    assert weights_sha256(resolve_checkpoint("tiny", folder)) == original
    assert len(original) == 64
    description = json.loads((folder / "checkpoint.json").read_text())
    description["sampler"]["shift"] = 3.0
    (folder / "checkpoint.json").write_text(json.dumps(description))
    changed = weights_sha256(resolve_checkpoint("tiny", folder))
    assert changed != original
    weights = folder / "codec.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    assert weights_sha256(resolve_checkpoint("tiny", folder)) not in (original, changed)
