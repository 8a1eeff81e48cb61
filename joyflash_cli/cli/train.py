"""``joyflash train``: one stage of training, from a configuration file."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli.errors import ConfigError


def train(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="Which part to train.")],
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="Settings of the stage (TOML).")
    ],
    assets: Annotated[
        Path | None,
        typer.Option(
            "--assets", metavar="DIR", help="Folder with the source packs, instead of the file's."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last saved state.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Run one stage of training; needs the extra joyflash[train].

    \b
    Example:
      joyflash train codec --config runs/tiny.toml
    """  # noqa: D301 - \b tells the help not to fold the example
    if not config.is_file():
        raise ConfigError(f"{config} does not exist", hint="give --config FILE")
    from joyflash_cli.training.stages import run_stage

    run_stage(stage, config, assets_dir=assets, resume=resume, report=_show)


def _show(figures: Any) -> None:
    """One JSON line on stdout, so that a training log is data."""
    typer.echo(figures if isinstance(figures, str) else json.dumps(figures))
