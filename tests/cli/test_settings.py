"""Settings from files and the environment: who wins, and that no mistake stays silent."""

import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.main import get_command, get_group

from joyflash_cli.cli.app import app, run
from joyflash_cli.cli.settings import (
    NOT_SETTINGS,
    default_map,
    known_settings,
    read_settings,
    user_file,
)
from joyflash_cli.errors import ConfigError

KNOWN = known_settings(get_command(app))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An empty current folder and an empty configuration folder."""
    here, configuration = tmp_path / "here", tmp_path / "config"
    here.mkdir()
    (configuration / "joyflash").mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(configuration))
    return configuration / "joyflash" / "config.toml"


def shown(capsys, *arguments: str) -> dict:
    assert run([*arguments, "config", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["settings"]


def test_the_nearer_place_wins(home, monkeypatch, capsys):
    assert shown(capsys)["render.seed"] == {
        "value": 0, "origin": "default", "set": False, "variable": "JOYFLASH_RENDER_SEED",
    }  # fmt: skip
    places = []
    for write in (
        lambda: home.write_text("seed = 1"),
        lambda: home.write_text("seed = 1\n[render]\nseed = 2"),
        lambda: Path("joyflash.toml").write_text("seed = 3"),
        lambda: Path("joyflash.toml").write_text("seed = 3\n[render]\nseed = 4"),
        lambda: monkeypatch.setenv("JOYFLASH_SEED", "5"),
        lambda: monkeypatch.setenv("JOYFLASH_RENDER_SEED", "6"),
    ):
        write()
        found = shown(capsys)["render.seed"]
        places.append((found["value"], found["origin"]))
    assert places == [
        (1, str(home)), (2, str(home)), (3, "joyflash.toml"), (4, "joyflash.toml"),
        (5, "JOYFLASH_SEED in the environment"), (6, "JOYFLASH_RENDER_SEED in the environment"),
    ]  # fmt: skip
    assert shown(capsys, "--no-config")["render.seed"]["value"] == 0


def test_a_verb_gets_them_and_its_own_option_wins(toy_checkpoint, toy_picture, toy_voice, capsys):
    Path("joyflash.toml").write_text(f'[render]\nseed = 4\ncheckpoint = "{toy_checkpoint}"\n')
    command = ["render", "--image", str(toy_picture), "--audio", str(toy_voice), "--dry-run"]
    for more, seed in (([], 4), (["--seed", "9"], 9)):
        assert run([*command, "--json", *more]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert plan["seed"] == seed
        assert plan["checkpoint"] == str(toy_checkpoint)


def test_origins_are_shown(capsys):
    Path("joyflash.toml").write_text("[render]\nseed = 4\n")
    assert run(["config", "--show-origin"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("render.seed")]
    assert line.split() == ["render.seed", "=", "4", "#", "joyflash.toml"]
    assert run(["config"]) == 0
    assert "render.seed = 4\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[render]\nsede = 4", "unknown key 'render.sede' (hint: did you mean 'render.seed'?)"),
        ("sede = 4", "unknown key 'sede' (hint: did you mean 'seed'?)"),
        ("[rendr]\nseed = 4", "unknown verb 'rendr' (hint: did you mean 'render'?)"),
        ("[render]\nimage = 'a.png'", "unknown key 'render.image'"),
        ("[render]\nseed = 'abc'", "render.seed is 'abc'; an integer is needed"),
        ("[render]\nseed = true", "render.seed is true; an integer is needed"),
        ("[render]\nseed = 1.5", "render.seed is 1.5; an integer is needed"),
        ("[render]\nseed = -2", "render.seed is -2; at least 0 is needed"),
        ("[render]\nquiet = 1", "render.quiet is 1; true or false is needed"),
        ("[render]\nprompt = 1", "render.prompt is 1; a text is needed"),
        ("seed = [1]", "seed is [1]; an integer is needed"),
        ("seed = ", "is not TOML"),
        ("seed = " + "[" * 50_000, "is not TOML"),
        ("seed = " + "9" * 5_000, "is not TOML"),
        ("k" * 5_000 + " = 1", "has the unknown key"),
        ("seed = '" + "9" * 5_000 + "'", "an integer is needed"),
        ("output-fps = nan", "output-fps is nan; a finite number is needed"),
        ("output-fps = " + "9" * 400, "output-fps is inf; a finite number is needed"),
        ("[render]\ncheckpoint = '~nobody-of-this-name/x'", "there is no such user"),
    ],
)
def test_mistakes_in_a_file_name_file_and_key(text, expected, capsys):
    """C3, C4: exit code 2, one line."""
    Path("joyflash.toml").write_text(text)
    assert run(["config"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("joyflash: error[E-CONFIG]: joyflash.toml")
    assert expected in error
    assert error.count("\n") == 1
    assert len(error) < 2_000


def test_encodings(capsys):
    """C7: a byte-order mark is no mistake, another encoding is."""
    Path("joyflash.toml").write_bytes(b"\xef\xbb\xbf[render]\nseed = 4\n")
    assert shown(capsys)["render.seed"]["value"] == 4
    Path("joyflash.toml").write_bytes("[render]\nprompt = 'caf\xe9'\n".encode("latin-1"))
    assert run(["config"]) == 2
    assert "joyflash.toml is not UTF-8 (byte 22)" in capsys.readouterr().err


def test_any_text_is_kept_verbatim(capsys):
    """C6: new lines, emoji, great length."""
    text = "one\ntwo \U0001f600 " + "x" * 10_000
    Path("joyflash.toml").write_text(f'[render]\nprompt = """{text}"""\n', encoding="utf-8")
    assert shown(capsys)["render.prompt"]["value"] == text


def test_variables(monkeypatch, capsys):
    monkeypatch.setenv("JOYFLASH_SEDE", "4")
    monkeypatch.setenv("JOYFLASH_QUIET", "yes")
    assert run(["config", "--json"]) == 0
    answer = capsys.readouterr()
    assert answer.err == (
        "joyflash: warning: JOYFLASH_SEDE is not a setting; did you mean JOYFLASH_SEED?\n"
    )
    assert json.loads(answer.out)["settings"]["render.quiet"]["value"] is True
    for variable, text, expected in (
        ("JOYFLASH_SEED", "abc", "JOYFLASH_SEED is 'abc'; an integer is needed"),
        ("JOYFLASH_RENDER_SEED", "-2", "JOYFLASH_RENDER_SEED is -2; at least 0 is needed"),
        ("JOYFLASH_QUIET", "perhaps", "JOYFLASH_QUIET is 'perhaps'; true or false is needed"),
    ):
        with monkeypatch.context() as change:
            change.setenv(variable, text)
            assert run(["config"]) == 2
        assert expected in capsys.readouterr().err


def test_paths_count_from_the_file_that_holds_them(home, monkeypatch):
    home.write_text('[render]\ncheckpoint = "weights/mine"\n')
    values = default_map(read_settings(KNOWN))
    assert values["render"]["checkpoint"] == home.parent / "weights" / "mine"
    home.write_text('[render]\ncheckpoint = "~/mine"\n')
    monkeypatch.setenv("HOME", "/home/somebody")
    values = default_map(read_settings(KNOWN))
    assert values["render"]["checkpoint"] == Path("/home/somebody/mine")


def test_where_the_users_file_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    usual = Path("/home/somebody/.config/joyflash/config.toml")
    assert user_file({}) == user_file({"XDG_CONFIG_HOME": "relative"}) == usual
    assert user_file({"XDG_CONFIG_HOME": "/c"}) == Path("/c/joyflash/config.toml")


def test_a_folder_or_a_huge_file_in_its_place_is_told(home):
    Path("joyflash.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(KNOWN)
    Path("joyflash.toml").rmdir()
    home.write_text("#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="at most"):
        read_settings(KNOWN)


def test_every_kind_of_option_becomes_a_setting():
    """The catalogue is read from the verbs; what names one job's files is left out."""
    small = typer.Typer()

    @small.command()
    def verb(
        image: Annotated[Path, typer.Option("--image")],
        name: Annotated[str, typer.Argument()],
        as_json: Annotated[bool, typer.Option("--json")] = False,
        kind: Annotated[Literal["a", "b"], typer.Option("-k", "--the-kind")] = "a",
        share: Annotated[float | None, typer.Option("--share", min=0, max=1)] = None,
        many: Annotated[list[str] | None, typer.Option("--many")] = None,
        secret: Annotated[int, typer.Option("--secret", hidden=True)] = 1,
    ) -> None: ...

    kind, share = known_settings(get_group(small))
    assert (kind.key, kind.kind, kind.value) == ("verb.the_kind", str, "a")
    assert (share.kind, share.variables) == (float, ("JOYFLASH_SHARE", "JOYFLASH_VERB_SHARE"))
    Path("joyflash.toml").write_text("[verb]\nthe-kind = 'b'\nshare = 1\n")
    assert default_map(read_settings([kind, share])) == {"verb": {"kind": "b", "share": 1.0}}
    Path("joyflash.toml").write_text("[verb]\nthe-kind = 'c'\n")
    with pytest.raises(ConfigError, match="use one of a, b"):
        read_settings([kind, share])
    Path("joyflash.toml").write_text("[verb]\nshare = 2\n")
    with pytest.raises(ConfigError, match="at most 1"):
        read_settings([kind, share])


def test_the_programs_own_settings():
    keys = {setting.key for setting in KNOWN}
    assert {"render.seed", "render.device", "batch.workers", "report.details"} <= keys
    assert not [key for key in keys if key.rpartition(".")[2] in NOT_SETTINGS]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["render", "--sede", "4"], "did you mean --seed?"),
        (["render", "--fps", "30"], "--output-fps"),
        (["render", "--seed", "abc"], "--seed"),
        (["render", "--seed", "-2"], "--seed"),
        (["confg"], "confg"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(arguments, expected, capsys):
    """C1, C3."""
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
