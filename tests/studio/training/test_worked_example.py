"""The worked example of docs/training.md, from clips to a video, a few steps of each stage."""

import re
import runpy
import sys
import tomllib

import pytest

from joyflash_cli.cli.app import run
from joyflash_cli.media.inputs.picture import read_picture

pytest.importorskip("numba", reason="the extra train is not installed")
SIZES = {
    r"\bsteps = (40|20)\b": "steps = 2",
    r"every = 20": "every = 2",
    r"num_blocks = 4": "num_blocks = 2",
    r"\[dmd\]\n": "[dmd]\nrollout = { num_blocks = [2, 2] }\n",
    r"num_pairs = 8": "num_pairs = 2\nnum_blocks = 2",
}
STAGES = ("dataset", "teacher", "ode-pairs", "ode", "dmd", "export")


@pytest.fixture
def config(repository, tmp_path):
    """The example's own file, in another folder and with fewer steps and clips."""
    text = (repository / "runs" / "own-clips.toml").read_text()
    text = text.replace('"out/', f'"{tmp_path}/out/').replace("threads = 2", "threads = 1")
    for large, small in SIZES.items():
        text = re.sub(large, small, text)
    path = tmp_path / "own-clips.toml"
    path.write_text(text)
    return path


def test_the_example_runs_from_clips_to_a_video(repository, tmp_path, config, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["own_clips.py", str(tmp_path / "out" / "clips"), "4"])
    runpy.run_path(str(repository / "examples" / "own_clips.py"), run_name="__main__")
    for stage in STAGES:
        assert run(["train", stage, "--config", str(config)]) == 0, capsys.readouterr().err
    work = tmp_path / "out" / "own-clips"
    for stage in ("teacher", "ode", "dmd"):
        sheet = read_picture(work / stage / "validation" / "step-0000002.png").pixels
        assert sheet.std() > 10
        assert (work / stage / "metrics.jsonl").read_text().count("validation_psnr_db") == 1
    video = tmp_path / "out" / "video.mp4"
    command = [
        "render", "--image", str(repository / "examples" / "face.png"),
        "--audio", str(tmp_path / "out" / "clips" / "clip-00.wav"), "--quiet",
        "--checkpoint", str(work / "checkpoint"), "--output", str(video),
    ]  # fmt: skip
    assert run(command) == 0, capsys.readouterr().err
    assert video.stat().st_size > 1000


def test_the_documentation_tells_these_commands(repository):
    text = (repository / "docs" / "training.md").read_text()
    example = text.partition("## A worked example")[2].partition("## Your own videos")[0]
    assert "python examples/own_clips.py out/clips" in example
    assert f"for stage in {' '.join(STAGES)}; do" in example
    assert "joyflash train $stage --config runs/own-clips.toml" in example
    values = tomllib.loads((repository / "runs" / "own-clips.toml").read_text())
    assert values["dataset"]["path"] == "out/clips"
    assert f"{values['work_dir']}/checkpoint" in example
