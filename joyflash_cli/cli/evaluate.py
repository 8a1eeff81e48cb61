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
        typer.Option("--assets", metavar="DIR", help="Asset packs of the held-out data."),
    ] = None,
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

    options: dict[str, Any] = {}
    if horizon is not None:
        options["horizon_s"] = horizon
    if assets is not None:
        options["assets_dir"] = assets
    report = evaluate_tiny(**options)
    typer.echo(json.dumps(report) if as_json else _as_lines(report))


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
