"""The documentation is true: generated pages, figures, commands, and a build without warnings."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from joyflash_cli.cli.app import run
from joyflash_cli.errors import ExitCode

DOCS = Path(__file__).resolve().parents[1] / "docs"


def load(name: str):
    """One of the programs in ``docs/``."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def _no_settings(monkeypatch, tmp_path):
    """Help shows defaults, whatever is set on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.mark.usefixtures("_no_settings")
@pytest.mark.parametrize("name", ["command-line.md", "hardware.md", "profiles.md"])
def test_generated_pages_are_as_the_code_says(name):
    """After a change run ``python docs/generate.py``."""
    assert (DOCS / name).read_text(encoding="utf-8") == load("generate").PAGES[name]()


@pytest.mark.parametrize("name", ["schedule.svg", "motion.svg", "positions.svg", "noise.svg"])
def test_figures_are_what_the_sampler_does(name):
    """After a change run ``python docs/draw.py``."""
    assert (DOCS / "figures" / name).read_text(encoding="utf-8") == load("draw").FIGURE_OF[name]()


def test_the_figures_show_the_papers_numbers():
    draw = load("draw")
    schedule = draw.draw_schedule()
    steps = re.findall(r">(\d) steps<", schedule)
    assert steps[:6] == ["8", "7", "6", "5", "4", "4"]
    assert max(draw.largest_indices(draw.PAPER, 60)) < 21 + 1
    growing = draw.largest_indices(draw.replace(draw.PAPER, position_policy="absolute"), 60)
    assert growing[-1] == 60 * 3 + 8


def test_every_exit_code_is_listed():
    listed = re.findall(r"^\| (\d+) \|", (DOCS / "command-line.md").read_text(), flags=re.M)
    assert {int(code) for code in listed} == {int(code) for code in ExitCode}


def commands() -> list[str]:
    """Command lines of the pages' shell examples that start our own program."""
    lines = []
    for page in sorted(DOCS.glob("*.md")):
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S):
            joined = block.replace("\\\n", " ")
            lines += [line.partition(" #")[0].strip() for line in joined.splitlines()]
    return [line for line in lines if re.search(r"(^|\| )joyflash\b", line)]


@pytest.mark.parametrize("line", commands())
def test_commands_of_the_pages_exist(line, capsys):
    """Every verb and option of an example is one the program knows."""
    words = line[line.index("joyflash") :].partition(" | ")[0].split()[1:]
    known_verbs = [list(verb) for verb in load("generate").verbs()]
    verb = max((verb for verb in known_verbs if words[: len(verb)] == verb), key=len)
    assert verb or words[0].startswith("-")
    assert run([*verb, "--help"]) == 0
    known = capsys.readouterr().out
    for word in words:
        if word.startswith("-") and word != "-":
            assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", known), word


def test_it_builds_without_a_warning(repository, tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip("material", reason="the extra docs is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"^WARNING", done.stderr, flags=re.M), done.stderr
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(https?:)?//(fonts|cdn|unpkg)', home)
    assert not list((tmp_path / "site").rglob("*.py"))
