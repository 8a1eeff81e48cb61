"""Latents that are no numbers any more: the render ends at their block, and says which."""

from pathlib import Path

import pytest
from conftest import write_tone

from joyflash_cli.cli.app import run
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.sampler.stream import Stream


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_they_stop_at_their_block(
    value, toy_checkpoint, toy_picture, tmp_path, monkeypatch, capsys
):
    """Exit code 5, one line; the blocks before are kept, nothing black is written."""
    monkeypatch.chdir(tmp_path)
    voice = write_tone(tmp_path / "voice.wav", 6.0)
    window_pass, num_passes = Stream.window_pass, 0

    def spoil(stream):
        nonlocal num_passes
        num_passes += 1
        result = window_pass(stream)
        if num_passes == 16:
            result.clean[..., -1] = value
        return result

    monkeypatch.setattr(Stream, "window_pass", spoil)
    command = ["render", "--image", str(toy_picture), "--audio", str(voice), "-o", "out.mp4", "-q"]
    command += ["--checkpoint", str(toy_checkpoint), "--device", "cpu", "--dtype", "float32"]
    assert run(command) == 5
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "error[E-DEVICE-NONFINITE]: Block " in told.err
    assert "frames are kept in out.partial.mp4" in told.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.partial.mp4", "out.partial.mp4.json", "voice.wav",
    ]  # fmt: skip
    assert 0 < probe(Path("out.partial.mp4")).num_frames < 150
    assert num_passes == 16
