"""Shell completion: what the shell is offered, and that it can be installed."""

import os
import subprocess
import sys

import pytest

from joyflash_cli.cli.options import complete_device, complete_dtype, complete_profile

COMMAND = [sys.executable, "-c", "from joyflash_cli.cli.app import main; main()"]


def complete(line: str) -> list[str]:
    """What bash is offered at the end of a line."""
    words = line.split(" ")
    variables = {
        "_JOYFLASH_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        COMMAND, env=os.environ | variables, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("joyflash rend", "render"),
        ("joyflash render --loo", "--look-ahead"),
        ("joyflash render --profile ti", "tiny"),
        ("joyflash weights li", "list"),
    ],
)
def test_bash_is_offered_what_fits(line, expected):
    assert expected in complete(line)


def test_values():
    assert "tiny" in dict(complete_profile(""))
    assert dict(complete_profile("no-such")) == {}
    assert [name for name, _ in complete_device("cu")] == ["cuda", "cuda:1"]
    assert [name for name, _ in complete_dtype("b")] == ["bfloat16"]


def test_a_damaged_manifest_prints_nothing(monkeypatch):
    from joyflash_cli.errors import CheckpointError

    def damaged():
        raise CheckpointError("weights.toml is damaged")

    monkeypatch.setattr("joyflash_cli.weights.manifest.read_manifest", damaged)
    assert list(complete_profile("")) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_every_shell_is_shown(shell):
    variables = {"_JOYFLASH_COMPLETE": f"source_{shell}"}
    done = subprocess.run(COMMAND, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0
    assert "_JOYFLASH_COMPLETE" in done.stdout
