"""``joyflash evaluate``: measure a profile on people and voices it was never trained on."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli.errors import UsageError


def evaluate(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="Model to measure: tiny.")],
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Use only identities and voices kept from training.")
    ] = False,
    horizon: Annotated[
        float | None,
        typer.Option("--horizon", min=1.0, metavar="S", help="Longest drift horizon in seconds."),
    ] = None,
    assets: Annotated[
        Path | None,
        typer.Option(
            "--assets", metavar="DIR", help="Another held-out pack than the recorded one."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", metavar="DIR", help="Weights to use instead of the profile's."
        ),
    ] = None,
    sheets: Annotated[
        Path | None,
        typer.Option("--sheets", metavar="DIR", help="Write picture sheets to look at."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Measure lips, stillness, identity, sharpness and drift on held-out data.

    \b
    Example:
      joyflash evaluate tiny --held-out --json
    """  # noqa: D301 - \b tells the help not to fold the example
    if profile != "tiny":
        raise UsageError(
            f"profile {profile!r} has no held-out data", hint="give tiny", code="E-PROFILE"
        )
    if not held_out:
        raise UsageError(
            "figures on training data say nothing about new people", hint="give --held-out"
        )
    from joyflash_cli.evaluation.report import evaluate_tiny

    options: dict[str, Any] = {} if horizon is None else {"horizon_s": horizon}
    report = evaluate_tiny(
        checkpoint=checkpoint,
        assets_dir=assets,
        sheets_dir=sheets,
        progress=None if quiet else _show_progress,
        **options,
    )
    typer.echo(json.dumps(report) if as_json else _as_lines(report))


def _show_progress(stage: str, num_done: int, num_steps: int) -> None:
    typer.echo(f"evaluate: {stage} {num_done}/{num_steps}", err=True)


def _as_lines(report: dict[str, Any], prefix: str = "") -> str:
    """One ``name: value`` per line; nested tables as ``outer.inner``."""
    lines = []
    for name, value in report.items():
        if isinstance(value, dict):
            lines.append(_as_lines(value, f"{prefix}{name}."))
        else:
            shown = f"{value:.4g}" if isinstance(value, float) else value
            lines.append(f"{prefix}{name}: {shown}")
    return "\n".join(lines)
