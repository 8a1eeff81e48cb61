"""The README's commands run as they stand: a newcomer's first hour with a toy model."""

import io
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_tone

from joyflash_cli.cli.app import run
from joyflash_cli.media.outputs.probe import probe

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.S)
AUDIO_S = 0.5
NUM_FRAMES = 13
NOT_HERE = (
    "joyflash evaluate", "joyflash weights fetch", "joyflash weights convert",
    "joyflash render --profile",
)  # fmt: skip
"""Minutes of measuring, and what needs downloads: tested elsewhere."""


def commands(*, piped: bool) -> list[str]:
    """The README's own command lines, plain ones or those in a pipe, without what is remarked."""
    lines = [
        line.partition("  #")[0].strip()
        for kind, block in BLOCKS
        if kind == "bash"
        for line in block.splitlines()
    ]
    ours = [line for line in lines if re.search(r"(^|\| )joyflash\b", line)]
    return [line for line in ours if ("|" in line) == piped and not line.startswith(NOT_HERE)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy_checkpoint, toy_picture) -> Path:
    """What the README takes for granted: a picture, a voice, the table that it shows."""
    folder = tmp_path_factory.mktemp("newcomer")
    shutil.copy(toy_picture, folder / "face.png")
    write_tone(folder / "talk.wav", AUDIO_S)
    (table,) = [block for kind, block in BLOCKS if kind == "csv"]
    (folder / "manifest.csv").write_text(table)
    # Settings make the toy model the default one, so that the commands can stay as they are.
    (folder / "joyflash.toml").write_text(f'checkpoint = "{toy_checkpoint}"\ndevice = "cpu"\n')
    return folder


def fresh(folder: Path) -> None:
    """Videos of an earlier test have gone, as in another folder."""
    for path in folder.glob("*.mp4"):
        path.unlink()


def test_the_plain_commands_run_in_their_order(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    lines = commands(piped=False)
    assert len(lines) >= 8
    fresh(folder)
    for line in lines:
        code = run(shlex.split(line)[1:])
        shown = capsys.readouterr()
        assert code == 0, f"{line}\n{shown.err}"
        for name in (part for part in shown.out.split() if part.endswith(".mp4")):
            assert probe(folder / name).num_frames == NUM_FRAMES, line
    assert {"anna-1.mp4", "anna-2.mp4", "report.html", "results.csv"} <= {
        path.name for path in (folder / "out").iterdir()
    }


@pytest.mark.parametrize("line", commands(piped=True))
def test_the_pipes_run_in_a_shell(line, folder, tmp_path):
    fresh(folder)
    programs = {
        "joyflash": f"exec {shlex.quote(sys.executable)} -c "
        '"from joyflash_cli.cli.app import main; main()" "$@"',
        "espeak-ng": "exec cat talk.wav",
        "ffplay": f"exec cat > {tmp_path}/shown.mp4",
    }
    for name, body in programs.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=folder,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written = tmp_path / "shown.mp4" if "ffplay" in line else folder / done.stdout.strip()
    assert probe(written).num_frames == NUM_FRAMES


def test_the_python_example_runs(folder, monkeypatch, toy_checkpoint):
    fresh(folder)
    monkeypatch.chdir(folder)
    (example,) = [block for kind, block in BLOCKS if kind == "python"]
    own = f'JoyFlash.load("tiny", Path({str(toy_checkpoint)!r}))'
    assert 'JoyFlash.load("tiny")' in example
    shown = io.StringIO()
    program = example.replace('JoyFlash.load("tiny")', own)
    exec(compile(program, "README.md", "exec"), {"print": lambda *a: shown.write(f"{a}\n")})
    assert shown.getvalue().count("(") >= 2
    assert probe(folder / "hello.mp4").num_frames == NUM_FRAMES
