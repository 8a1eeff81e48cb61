"""The fuzzing programs: they run, and their judge sees what it is there to see."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parent / "fuzz"
COUNT = 25


def test_every_target_rehearsed(tmp_path):
    """Seeds, inputs that were once findings, and a few mutations: nothing is found."""
    done = subprocess.run(
        [sys.executable, str(FUZZ / "rehearse.py"), str(tmp_path), str(COUNT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert {name: tally["findings"] for name, tally in told.items()} == dict.fromkeys(told, {})
    for name, tally in told.items():
        assert tally["executions"] == tally["seeds"] + tally["known"] + COUNT
        assert tally["accepted"] > 0, name
        assert tally["refused"], name


JUDGE = """
import os, socket, sqlite3, subprocess, sys
from pathlib import Path
from oracle import Oracle, Violation
from joyflash_cli.errors import AudioError

def check(data, folder, oracle):
    with oracle.armed():
        exec(data.decode(), {**globals(), "folder": folder})

oracle = Oracle(check, Path(sys.argv[1]))
for line in sys.stdin.read().split("\\0"):
    print(oracle.run(line.encode()) or "fine")
"""
DEEDS = [
    ("pass", "fine"),
    ("raise AudioError('one line')", "fine"),
    ("raise AudioError('two\\nlines')", "fine"),  # the command line joins them
    ("raise AudioError('')", "an error without a text"),
    ("raise AudioError('x' * 9000)", "an error of more than 2000 characters"),
    ("raise AudioError('\\x1b[31m')", "an error with unprintable characters"),
    ("raise KeyError('x')", "KeyError at"),
    ("raise MemoryError", "MemoryError at"),
    ("raise Violation('another file was read')", "another file was read"),
    ("sqlite3.connect(folder / 'x').execute('create table t (a)')", "changed the files beside"),
    ("open('/dev/null', 'w')", "opened a file for writing"),
    ("os.system('true')", "did os.system"),
    ("subprocess.run(['true'])", "did subprocess.Popen"),
    ("socket.create_connection(('127.0.0.1', 9), 1)", "did socket."),
    ("x = bytearray(1200 << 20)", "took 1.3 GB"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at memory as Linux tells it")
def test_the_judge_sees_what_it_is_there_to_see(tmp_path):
    paths = os.pathsep.join([str(FUZZ), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", JUDGE, str(tmp_path / "folder")],
        input="\0".join(deed for deed, _ in DEEDS),
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for (deed, expected), found in zip(DEEDS, done.stdout.splitlines(), strict=True):
        assert found.startswith(expected), (deed, found)
