"""The layout of the help: groups in a fixed order, nothing lost."""

from typing import Annotated

import pytest
import typer

from joyflash_cli.cli.app import run
from joyflash_cli.cli.help_text import EXPERT, FILES, GROUPS, MODEL, GroupedCommand


def sections(text: str) -> list[str]:
    return [line[:-1] for line in text.splitlines() if line.endswith(":") and line[0] != " "]


@pytest.mark.parametrize("verb", ["render", "batch", "report"])
def test_options_stand_in_groups(verb, capsys, monkeypatch):
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    assert run([verb, "--help"]) == 0
    text = capsys.readouterr().out
    found = [name for name in sections(text) if name in GROUPS]
    assert found == [name for name in GROUPS if name in found]
    assert "Examples:" in text
    options = {line.split()[0] for line in text.splitlines() if line.startswith("  --")}
    assert "--json" in options
    if verb == "render":
        assert {"Input and output", "Model", "Expert options", "Messages"} <= set(found)


def test_few_options_stay_one_list_and_unknown_ones_are_shown(capsys):
    def small(seed: Annotated[int, typer.Option("--seed", help="A number.")] = 0) -> None:
        """Small."""

    def large(
        folder: Annotated[str, typer.Argument(metavar="DIR", help="A place.")],
        image: Annotated[str, typer.Option("--image", rich_help_panel=FILES)] = "",
        seed: Annotated[int, typer.Option("--seed", rich_help_panel=MODEL)] = 0,
        own: Annotated[int, typer.Option("--own", help="Mine.", rich_help_panel=EXPERT)] = 0,
        a: Annotated[int, typer.Option("--a")] = 0,
        b: Annotated[int, typer.Option("--b")] = 0,
        c: Annotated[int, typer.Option("--c")] = 0,
        d: Annotated[int, typer.Option("--d")] = 0,
        e: Annotated[int, typer.Option("--e")] = 0,
        secret: Annotated[int, typer.Option("--secret", hidden=True)] = 0,
    ) -> None:
        """Large."""

    shown = []
    for verb in (small, large):
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command(cls=GroupedCommand)(verb)
        with pytest.raises(SystemExit):
            app(["--help"])
        shown.append(capsys.readouterr().out)
    assert sections(shown[0]) == ["Options"]
    assert sections(shown[1]) == [
        "Arguments", "Input and output", "Options", "Model", "Expert options", "Messages",
    ]  # fmt: skip
    assert "A place." in shown[1]
    assert "--secret" not in shown[1]
