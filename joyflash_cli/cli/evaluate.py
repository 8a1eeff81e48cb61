"""``joyflash evaluate``: measure a profile on people and voices it was never trained on.

And the rendered heads that it was trained on, which should look as people do.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli.cli.ablation import AblationRequest, run_ablation
from joyflash_cli.errors import UsageError


def evaluate(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE",
            help="What to measure: tiny; points; ablation, see --table; or heads, see --assets.",
        ),
    ],
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
            "--assets",
            metavar="DIR",
            help="Another held-out pack than the recorded one; heads: folder of the head packs.",
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
    table: Annotated[
        int | None,
        typer.Option("--table", metavar="2|3|4", help="ablation: the paper's table to measure."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="ablation: run whose clips are trained on."),
    ] = None,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="ablation: distillation steps of every variant.")
    ] = 400,
    start_steps: Annotated[
        int | None,
        typer.Option(
            "--start-steps",
            min=1,
            help="ablation: steps of what all variants share; the run's own by default.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="ablation: trainings of every variant.")
    ] = 3,
    clips: Annotated[
        int | None,
        typer.Option("--clips", min=2, help="Measure only the first clips; heads: of each kind."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="ablation: folder of the table.")
    ] = Path("runs"),
    real: Annotated[
        list[Path] | None,
        typer.Option(
            "--real",
            metavar="DIR",
            help="Films of real people, in place of --held-out; may be repeated. "
            "points: people with recorded points; slope and r say how read openings follow "
            "recorded ones, a slope below 1 that open lips or lids are read half shut.",
        ),
    ] = None,
    faceless: Annotated[
        Path | None,
        typer.Option("--faceless", metavar="DIR", help="points: pictures that show no face."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Measure lips, stillness, identity, sharpness and drift on held-out data.

    \b
    Example:
      joyflash evaluate tiny --held-out --json
      joyflash evaluate tiny --real films --json
    """  # noqa: D301 - \b tells the help not to fold the example
    if profile == "ablation":
        _evaluate_ablation(
            AblationRequest(
                table=table or 0,
                config=config or Path("runs/tiny.toml"),
                steps=steps,
                start_steps=start_steps,
                seeds=seeds,
                horizon_s=300.0 if horizon is None else horizon,
                clips=clips,
                checkpoint="tiny" if checkpoint is None else str(checkpoint),
                output=output,
            ),
            quiet=quiet,
        )
        return
    if profile == "heads":
        report = _evaluate_heads(assets, num_heads=clips, quiet=quiet)
        typer.echo(json.dumps(report) if as_json else _as_lines(report))
        return
    if profile == "points":
        _evaluate_points(real, faceless, quiet=quiet, as_json=as_json)
        return
    if profile != "tiny":
        raise UsageError(
            f"profile {profile!r} has no held-out data", hint="give tiny", code="E-PROFILE"
        )
    if real:
        refused = {"--held-out": held_out, "--horizon": horizon, "--assets": assets}
        for option, value in (refused | {"--sheets": sheets}).items():
            if value:
                raise UsageError(f"{option} does not go with --real", hint="leave one of them out")
        from joyflash_cli.cli.evaluate_real import evaluate_films

        evaluate_films(
            real,
            checkpoint=checkpoint,
            clips=clips,
            as_json=as_json,
            progress=None if quiet else _show_progress,
        )
        return
    if not held_out:
        raise UsageError(
            "figures on training data say nothing about new people",
            hint="give --held-out, or --real DIR",
        )
    from joyflash_cli.studio.evaluation.report import evaluate_tiny

    options: dict[str, Any] = {} if horizon is None else {"horizon_s": horizon}
    if clips is not None:
        options["num_clips"] = clips
    report = evaluate_tiny(
        checkpoint=checkpoint,
        assets_dir=assets,
        sheets_dir=sheets,
        progress=None if quiet else _show_progress,
        **options,
    )
    typer.echo(json.dumps(report) if as_json else _as_lines(report))


def _evaluate_heads(assets: Path | None, *, num_heads: int | None, quiet: bool) -> dict[str, Any]:
    if assets is None:
        raise UsageError("heads are rendered from their packs", hint="give --assets DIR")
    from joyflash_cli.studio.evaluation.mouths import measure_heads

    options: dict[str, Any] = {} if num_heads is None else {"num_heads": num_heads}
    return measure_heads(assets, progress=None if quiet else _show_progress, **options)


def _evaluate_points(
    real: list[Path] | None, faceless: Path | None, *, quiet: bool, as_json: bool
) -> None:
    if not real or len(real) > 1:
        raise UsageError("points are measured on real people", hint="give one --real DIR")
    from joyflash_cli.studio.evaluation.points import evaluate_points

    progress = None if quiet else _show_progress
    report = evaluate_points(real[0], faceless_dir=faceless, progress=progress)
    typer.echo(json.dumps(report) if as_json else _as_lines(report))


def _evaluate_ablation(request: AblationRequest, *, quiet: bool) -> None:
    def tell(text: str) -> None:
        if not quiet:
            typer.echo(f"ablation: {text}", err=True)

    written = run_ablation(request, tell)
    if isinstance(written, int):
        raise typer.Exit(written)
    for path in written:
        typer.echo(str(path))


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
