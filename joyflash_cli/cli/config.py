"""``joyflash config``: every setting, its value and where that comes from."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli.cli.settings import DEFAULT, PROJECT_FILE, Settings, Value, user_file


def config(
    context: typer.Context,
    show_origin: Annotated[
        bool, typer.Option("--show-origin", help="Also show where each value comes from.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Show every setting and its value.

    \b
    Where values come from, first wins:
      1. the option on the command line
      2. JOYFLASH_RENDER_SEED, then JOYFLASH_SEED, in the environment
      3. joyflash.toml in the current folder
      4. joyflash/config.toml in $XDG_CONFIG_HOME, by default ~/.config
      5. the default
    What a checkpoint decides (frame rate, size, sampling) is no setting; it travels with the
    weights. `joyflash --no-config VERB` reads neither files nor environment.

    \b
    A file holds options by verb; at its top they count for every verb that has them:
      device = "cuda:0"
      [render]
      seed = 7

    \b
    Examples:
      joyflash config --show-origin
      JOYFLASH_SEED=7 joyflash config --show-origin --json
    """  # noqa: D301 - \b tells the help not to fold what follows
    settings: Settings = context.obj["settings"]
    if as_json:
        typer.echo(json.dumps(_as_json(settings)))
        return
    shown = [(f"{value.setting.key} = {_as_toml(value.value)}", value) for value in settings.values]
    width = max(len(text) for text, _ in shown)
    for text, value in shown:
        typer.echo(f"{text:<{width}}  # {value.origin}" if show_origin else text)


def _as_json(settings: Settings) -> dict[str, Any]:
    import os

    return {
        "files": [
            {"path": str(path), "exists": path.is_file()}
            for path in (Path(PROJECT_FILE), user_file(os.environ))
        ],
        "settings": {value.setting.key: _entry(value) for value in settings.values},
    }


def _entry(value: Value) -> dict[str, Any]:
    plain = str(value.value) if isinstance(value.value, Path) else value.value
    return {
        "value": plain,
        "origin": value.origin,
        "set": value.origin != DEFAULT,
        "variable": value.setting.variable,
    }


def _as_toml(value: Any) -> str:
    """A value as a file would spell it; TOML has no word for none."""
    if value is None:
        return "(none)"
    # JSON's texts, numbers and booleans are TOML's, too.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
