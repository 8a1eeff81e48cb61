"""``joyflash train``: one stage of training, from a configuration file."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli.cli.options import Debug, option, say
from joyflash_cli.cli.process import StopSignals
from joyflash_cli.errors import ConfigError, UsageError


def train(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="Which part to train.")],
    config: Annotated[Path, option("--config", "Settings of the stage (TOML).", "FILE")],
    assets: Annotated[
        Path | None,
        option("--assets", "Folder with the source packs, instead of the file's.", "DIR"),
    ] = None,
    resume: Annotated[bool, option("--resume", "Continue from the last saved state.")] = False,
    dry_run: Annotated[
        bool, option("--dry-run", "Only state parameters, memory and operations of the stage dmd.")
    ] = False,
    quiet: Annotated[bool, option("--quiet -q", "No progress bar.")] = False,
    debug: Debug = False,
) -> int:
    """Run one stage of training; needs the extra joyflash[train].

    Start it with torchrun to use several GPUs. SIGTERM and Ctrl-C save the state first.

    \b
    Example:
      joyflash train codec --config runs/tiny.toml
    """  # noqa: D301 - \b tells the help not to fold the example
    if not config.is_file():
        raise ConfigError(f"{config} does not exist", hint="give --config FILE")
    with studio():
        if dry_run:
            return _show_costs(stage, config)
        from joyflash_cli.studio.training.session import TrainingStopped
        from joyflash_cli.studio.training.stages import run_stage

        with StopSignals() as signals:
            try:
                run_stage(
                    stage,
                    config,
                    assets_dir=assets,
                    resume=resume,
                    report=_show,
                    should_stop=signals.should_stop,
                    progress=not quiet and sys.stderr.isatty(),
                )
            except TrainingStopped as stopped:
                say(f"train: {stopped}; add --resume to go on")
                return signals.exit_code
    return 0


def _show_costs(stage: str, config: Path) -> int:
    if stage != "dmd":
        raise UsageError(f"--dry-run knows the stage dmd, not {stage}", hint="leave it out")
    from joyflash_cli.studio.training.dry_run import describe_costs, estimate_costs
    from joyflash_cli.studio.training.run_config import load_run_config

    typer.echo(describe_costs(estimate_costs(load_run_config(config))))
    return 0


def _show(figures: Any) -> None:
    """One JSON line on stdout, so that a training log is data."""
    typer.echo(figures if isinstance(figures, str) else json.dumps(figures))


@contextlib.contextmanager
def studio() -> Iterator[None]:
    """Within it the studio is imported and run.

    Raises:
        ConfigError: For a package of its extra that is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The package {error.name} is not installed", hint="pip install 'joyflash[train]'"
        ) from error
