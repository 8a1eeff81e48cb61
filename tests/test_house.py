"""Rules of the house that a test can keep: directions, silence, sizes, a README that is true."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from checked import CHECKED_PACKAGES

from joyflash_cli.cli.app import run

PACKAGE = Path(__file__).resolve().parents[1] / "joyflash_cli"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 60
# The only folders that may touch these libraries (at any depth of a function).
HOMES = {
    "av": {"media", "studio"},
    "PIL": {"media", "studio"},
    "soundfile": {"media", "studio"},
    "rich": {"cli"},
    "typer": {"cli"},
    "diffusers": {"codec", "weights"},
    "transformers": {"encoders", "weights"},
    "insightface": {"encoders"},
    "huggingface_hub": {"weights"},
    "ray": {"batch"},
    "torchao": {"model"},
    "c2pa": {"provenance"},
    "cryptography": {"provenance"},
}
HEAVY = {
    "diffusers",
    "transformers",
    "numba",
    "av",
    "PIL",
    "scipy",
    "insightface",
    "ray",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imported(node: ast.AST) -> set[str]:
    """Top-level packages that an import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {node.module.partition(".")[0]}
    return set()


def all_imports(tree: ast.Module) -> set[str]:
    return set().union(*(imported(node) for node in ast.walk(tree)))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def test_only_the_command_line_prints(trees):
    guilty = []
    for path, tree in trees.items():
        if path.is_relative_to(PACKAGE / "cli"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print", "sys.exit", "exit", "quit", "input",
            ):  # fmt: skip
                guilty.append(f"{name_of(path)}:{node.lineno}")
    assert guilty == []


def test_libraries_stay_where_they_belong(trees):
    guilty = [
        f"{name_of(path)} imports {library}"
        for path, tree in trees.items()
        for library in sorted(all_imports(tree) & set(HOMES))
        if path.relative_to(PACKAGE).parts[0] not in HOMES[library]
    ]
    assert guilty == []


def test_heavy_libraries_are_imported_inside_functions(trees):
    """Rendering must not wait for libraries that only the studio needs."""
    guilty = [
        f"{name_of(path)} imports {library}"
        for path, tree in trees.items()
        if path.relative_to(PACKAGE).parts[0] != "studio"
        for node in tree.body
        if not is_type_checking(node)
        for library in sorted(imported(node) & HEAVY)
    ]
    assert guilty == []


def test_every_package_that_says_shapes_has_them_checked(trees):
    saying = {
        ".".join(path.relative_to(PACKAGE).parent.parts)
        for path, tree in trees.items()
        if "jaxtyping" in all_imports(tree)
    }
    assert saying == {name for packages in CHECKED_PACKAGES.values() for name in packages}


def test_checked_packages_keep_their_annotations(trees):
    """The hook that checks shapes under test needs real annotations, not strings."""
    guilty = [
        name_of(path)
        for path, tree in trees.items()
        if "jaxtyping" in all_imports(tree)
        and any(
            isinstance(node, ast.ImportFrom)
            and node.module == "__future__"
            and any(alias.name == "annotations" for alias in node.names)
            for node in tree.body
        )
    ]
    assert guilty == []


def test_no_bare_except(trees):
    guilty = [
        f"{name_of(path)}:{node.lineno}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert guilty == []


def test_files_stay_readable():
    long = {name_of(p): n for p in SOURCES if (n := len(p.read_text().splitlines())) > MAX_LINES}
    assert long == {}


def test_functions_stay_readable(trees):
    long = {
        f"{name_of(path)}:{node.name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long == set()


def test_nothing_is_unpickled_but_by_conversion(trees):
    """Weights are safetensors; what is opened as a pickle may hold tensors only."""
    calls = [
        (name_of(path), node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    homes = {"weights/convert_pickles.py"}
    assert {name for name, _ in calls} <= homes
    for name, call in calls:
        assert "weights_only=True" in [ast.unparse(word) for word in call.keywords], name
    assert [name_of(p) for p, tree in trees.items() if "pickle" in all_imports(tree)] == []


def test_loading_the_model_does_not_import_the_compiler():
    """It takes a second, and nothing here compiles."""
    script = (
        "import sys; from joyflash_cli.render import JoyFlash; "
        "JoyFlash.load('tiny', device='cpu'); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def readme_commands() -> list[str]:
    """Command lines of the README's shell examples that start our own program or make."""
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, flags=re.S)
    lines = [
        line.partition(" #")[0].strip().removeprefix("$ ")
        for block in blocks
        for line in block.splitlines()
    ]
    return [line for line in lines if re.match(r"(make|joyflash)\b", line) or "| joyflash" in line]


def test_the_readme_opens_with_the_two_commands():
    assert readme_commands()[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("target", ["test", "check"])
def test_every_way_to_test_checks_everything(repository, target):
    """README, Makefile and continuous integration mean the same."""
    assert (repository / ".ci" / "run").read_text().splitlines()[-1] == "exec make test"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--dry-run", "--assume-new=pyproject.toml", target]
    done = subprocess.run(command, cwd=repository, env=outside, capture_output=True, text=True)
    steps = [line.partition("bin/")[2] for line in done.stdout.splitlines()]
    wanted = ("ruff format --check .", "ruff check .", "mypy joyflash_cli", "lint-imports")
    assert [step for step in steps if step in wanted] == list(wanted)
    assert steps[-1].startswith("python -m pytest ")


@pytest.mark.parametrize("line", readme_commands())
def test_readme_commands_exist(line, repository, capsys):
    """Every option of a README example is one the program knows; every make target exists."""
    if line.startswith("make"):
        makefile = (repository / "Makefile").read_text()
        for target in line.split()[1:]:
            assert re.search(rf"^{re.escape(target)}:", makefile, flags=re.M), target
        return
    words = line[line.index("joyflash") :].partition(" | ")[0].split()[1:]
    verbs = [word for word in words[:2] if re.fullmatch(r"[a-z]+", word)]
    verbs = verbs[: 2 if verbs[:1] == ["weights"] else 1]
    assert run([*verbs, "--help"]) == 0
    known = capsys.readouterr().out
    for word in words:
        if word.startswith("-") and word != "-":
            assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", known), word


def test_the_readme_lists_every_exit_code(repository):
    from joyflash_cli.errors import ExitCode

    text = (repository / "README.md").read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, flags=re.M)}
    assert listed == {int(code) for code in ExitCode}


def test_every_dependency_is_pinned_for_make(repository):
    """`make` must install the same versions tomorrow."""
    constraints = (repository / "constraints.txt").read_text().lower().replace("_", "-")
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in ("full", "dev") for name in project["optional-dependencies"][extra]),
    ]
    names = {
        re.match(r"[\w-]+", requirement).group().lower().replace("_", "-") for requirement in wanted
    }
    missing = [name for name in sorted(names - {"joyflash"}) if f"\n{name}==" not in constraints]
    assert missing == []
