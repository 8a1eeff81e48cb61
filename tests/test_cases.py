"""Every documented case of misuse and failure has tests, and each of them exists."""

import ast
import tomllib
from pathlib import Path

import pytest

from joyflash_cli.errors import ExitCode

HERE = Path(__file__).parent
CASES = tomllib.loads((HERE / "data" / "cases.toml").read_text(encoding="utf-8"))
NUMBERS = {
    "A": (1, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 16, 17),
    "I": (1, 2, 3, 4, 5, 7, 8, 9, 10, 11),
    "C": (1, 2, 3, 4, 6, 7),
    "M": (1, 2, 3, 6, 7, 8, 9, 11, 12),
    "O": (1, 3, 4, 5, 7, 8, 9, 10),
    "P": (1, 2, 5, 6, 7, 8, 9),
    "K": (1, 2, 4, 6, 7, 8, 9, 10, 11, 12),
    "D": (1, 3, 4, 5),
    "R": (1, 2),
}
"""Audio, image, command line, manifest, output, process, checkpoint, device, report."""


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_case_is_listed():
    assert list(CASES) == [f"{letter}{n}" for letter, numbers in NUMBERS.items() for n in numbers]


@pytest.mark.parametrize("name", CASES)
def test_its_tests_exist(name):
    case = CASES[name]
    assert set(case) <= {"what", "exit", "tests", "note"}
    assert case["what"]
    assert case["tests"]
    if "exit" in case:
        assert case["exit"] in set(ExitCode)
    for place in case["tests"]:
        file, _, function = place.partition("::")
        assert function in functions_of(HERE / file), place


def test_no_module_opens_a_port(repository):
    """R2: nothing to reach from outside, so nothing to protect."""
    sources = {
        path.name: ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for path in (repository / "joyflash_cli").rglob("*.py")
    }
    attributes = {
        name: [node.attr for node in nodes if isinstance(node, ast.Attribute)]
        for name, nodes in sources.items()
    }
    listening = {name for name, used in attributes.items() if "listen" in used}
    assert listening == {"live_messages.py"}  # on a Unix socket of this user, when asked to
    assert {name for name in attributes["live_messages.py"] if name.startswith("AF_")} == {
        "AF_UNIX"
    }
    assert not [name for name, used in attributes.items() if "serve_forever" in used]
