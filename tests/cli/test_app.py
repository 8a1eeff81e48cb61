"""The command as a whole: help, version, speed of start, verbs without a model."""

import json
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from joyflash_cli import __version__
from joyflash_cli.cli.app import run

GOLDEN = Path(__file__).parents[1] / "data" / "cli"
COMMAND = [sys.executable, "-c", "from joyflash_cli.cli.app import main; main()"]
MAX_CPU_S = 0.3


def start(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, **options)


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")


@pytest.mark.parametrize(
    "verb",
    [
        "", "render", "live", "batch", "report", "benchmark", "config", "doctor", "evaluate",
        "evaluate set", "evaluate set build", "train", "weights",
        "weights list", "weights fetch", "weights verify", "weights path", "weights convert",
        "weights licenses", "weights prompt", "evaluate videos",
        "provenance", "provenance init", "provenance show",
    ],
)  # fmt: skip
def test_help_is_as_recorded(verb, capsys):
    """A changed help text changes the recorded one too, in the same commit."""
    name = verb.replace(" ", "-") or "joyflash"
    assert run([*verb.split(), "--help"]) == 0
    assert capsys.readouterr().out == (GOLDEN / f"help-{name}.txt").read_text()


@pytest.mark.parametrize("arguments", [[], ["weights"]])
def test_no_verb_shows_the_help(arguments, capsys):
    assert run(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("Usage: joyflash")
    assert shown.err == ""


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"joyflash {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_first_answer_is_quick(arguments):
    """Least of three runs: processor seconds, because the machine may be busy."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert start(*arguments).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < MAX_CPU_S


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["render", "--help"], ["weights", "list"]]
)
def test_nothing_heavy_is_imported_for_the_help(arguments):
    script = (
        "import sys; from joyflash_cli.cli.app import run; code = run(sys.argv[1:]); "
        "heavy = {'torch', 'av', 'numpy', 'PIL', 'rich'} & set(sys.modules); "
        "sys.exit(code or ' '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_ends_the_program_with_141():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, "weights", "list"], stdout=writer, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


def test_a_bug_is_one_line_and_shows_its_place_with_debug(monkeypatch, capsys):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("nothing\nto divide")

    monkeypatch.setattr("joyflash_cli.weights.manifest.read_manifest", broken)
    assert run(["weights", "list"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("joyflash: error[E-INTERNAL]: ZeroDivisionError: nothing to divide")
    assert run(["evaluate", "tiny", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_weights_list_as_json(capsys):
    assert run(["weights", "list", "--json"]) == 0
    profiles = json.loads(capsys.readouterr().out)
    assert profiles["tiny"]["source"] == "embedded"
    assert profiles["livetalk-1.3b"]["acceptance"] is True
    for profile in profiles.values():
        for file in profile["files"]:
            assert file["sha256"] == "" or len(file["sha256"]) == 64
            assert file["revision"] == "" or len(file["revision"]) == 40


def test_evaluate_prints_the_report(monkeypatch, capsys, tmp_path):
    import types

    asked = {}

    def evaluate_tiny(**options):
        asked.update(options)
        return {"lip_correlation": 0.5, "drift": {"5": {"colour": 0.25}}}

    fake = types.ModuleType("joyflash_cli.studio.evaluation.report")
    fake.evaluate_tiny = evaluate_tiny
    monkeypatch.setitem(sys.modules, "joyflash_cli.studio.evaluation.report", fake)
    command = ["evaluate", "tiny", "--held-out", "--horizon", "300", "--assets", str(tmp_path)]
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lip_correlation"] == 0.5
    assert asked.pop("progress") is not None
    assert asked == {
        "horizon_s": 300.0, "assets_dir": tmp_path, "checkpoint": None, "sheets_dir": None
    }  # fmt: skip
    assert run(command) == 0
    assert capsys.readouterr().out == "lip_correlation: 0.5\ndrift.5.colour: 0.25\n"


def test_train_runs_a_stage(monkeypatch, capsys, tmp_path):
    import types

    asked = []

    def run_stage(stage, config, *, assets_dir, resume, report, should_stop, progress):
        assert not should_stop()
        assert not progress  # no terminal here
        report({"loss": 0.5})
        asked.append((stage, config, resume))

    fake = types.ModuleType("joyflash_cli.studio.training.stages")
    fake.run_stage = run_stage
    monkeypatch.setitem(sys.modules, "joyflash_cli.studio.training.stages", fake)
    config = tmp_path / "codec.toml"
    assert run(["train", "codec", "--config", str(config)]) == 2
    assert "codec.toml does not exist" in capsys.readouterr().err
    config.write_text("")
    assert run(["train", "codec", "--config", str(config), "--resume"]) == 0
    assert capsys.readouterr().out == '{"loss": 0.5}\n'
    assert asked == [("codec", config, True)]


def test_a_name_cannot_command_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = "a\x1b[2J\x9b\u202e.png"
    code = run(["render", "--image", name, "--audio", name, "-o", "out.mp4", "-q"])
    error = capsys.readouterr().err
    assert code == 3
    assert error.rstrip("\n").isprintable()
    assert "a\\x1b[2J\\x9b\\u202e.png" in error


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(closed):
    """Their numbers are taken at once: no file that is opened later may get one of them."""
    program = (
        "import os; from joyflash_cli.cli import app;"
        "app.run = lambda _: 0 if open(os.devnull).fileno() > 2 else 9;"
        "app.main()"
    )
    line = f"{shlex.join([sys.executable, '-c', program])} {closed}"
    assert subprocess.run(["bash", "-c", line], check=False).returncode == 0


@pytest.mark.parametrize("stderr", ["2> /dev/full", "2> >(exec true)"])
def test_a_log_that_cannot_be_written_changes_nothing(stderr):
    program = (
        "import sys, time; from joyflash_cli.cli import app;"
        "app.run = lambda _: [time.sleep(0.2), print('x' * 70_000, file=sys.stderr, flush=True),"
        " print('done')] and 5;"
        "app.main()"
    )
    line = f"{shlex.join([sys.executable, '-c', program])} {stderr}"
    done = subprocess.run(["bash", "-c", line], check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (5, b"done\n")


def test_an_answer_for_nobody_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert run(["config"]) == 0


def test_the_module_is_the_program():
    done = subprocess.run(
        [sys.executable, "-m", "joyflash_cli", "--version"], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (f"joyflash {__version__}\n", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_answer_that_cannot_be_written(unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = shlex.join([sys.executable, "-m", "joyflash_cli", "config", "--json"])
    done = subprocess.run(
        ["bash", "-c", f"{command} > /dev/full"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 6
    assert done.stderr.count("\n") == 1
    assert "error[E-OUTPUT-WRITE]: standard output cannot be written" in done.stderr
