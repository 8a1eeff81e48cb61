"""``joyflash config``: every setting, its value and where that comes from."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli.cli.options import Debug, Json, option, print_json
from joyflash_cli.cli.settings import DEFAULT, PROJECT_FILE, Setting, user_file


def config(
    context: typer.Context,
    show_origin: Annotated[
        bool, option("--show-origin", "Also show where each value comes from.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
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
    settings: tuple[Setting, ...] = context.obj
    if as_json:
        print_json(_as_json(settings))
        return
    texts = [f"{setting.key} = {_as_toml(setting.value)}" for setting in settings]
    width = max(map(len, texts))
    for text, setting in zip(texts, settings, strict=True):
        typer.echo(f"{text:<{width}}  # {setting.origin}" if show_origin else text)


def _as_json(settings: Iterable[Setting]) -> dict[str, Any]:
    return {
        "files": [
            {"path": str(path), "exists": path.is_file()}
            for path in (Path(PROJECT_FILE), user_file(os.environ))
        ],
        "settings": {
            setting.key: {
                "value": str(setting.value) if isinstance(setting.value, Path) else setting.value,
                "origin": setting.origin,
                "set": setting.origin != DEFAULT,
                "variable": setting.variables[1],
            }
            for setting in settings
        },
    }


def _as_toml(value: Any) -> str:
    """A value as a file would spell it; TOML has no word for none."""
    if value is None:
        return "(none)"
    # JSON's texts, numbers and booleans are TOML's, too.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
