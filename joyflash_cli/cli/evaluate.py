"""``joyflash evaluate``: measure a profile on people and voices it was never trained on.

And the rendered heads that it was trained on, which should look as people do.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli.cli.ablation import AblationRequest, run_ablation
from joyflash_cli.cli.options import Checkpoint, Debug, Json, Quiet, option
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
        bool, option("--held-out", "Use only identities and voices kept from training.")
    ] = False,
    horizon: Annotated[
        float | None, option("--horizon", "Longest drift horizon in seconds.", "S", min=1.0)
    ] = None,
    assets: Annotated[
        Path | None,
        option(
            "--assets",
            "Another held-out pack than the recorded one; heads: folder of the head packs.",
            "DIR",
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    sheets: Annotated[
        Path | None, option("--sheets", "Write picture sheets to look at.", "DIR")
    ] = None,
    table: Annotated[
        int | None, option("--table", "ablation: the paper's table to measure.", "2|3|4")
    ] = None,
    config: Annotated[
        Path | None, option("--config", "ablation: run whose clips are trained on.", "FILE")
    ] = None,
    steps: Annotated[
        int, option("--steps", "ablation: distillation steps of every variant.", min=1)
    ] = 400,
    start_steps: Annotated[
        int | None,
        option(
            "--start-steps",
            "ablation: steps of what all variants share; the run's own by default.",
            min=1,
        ),
    ] = None,
    seeds: Annotated[int, option("--seeds", "ablation: trainings of every variant.", min=1)] = 3,
    clips: Annotated[
        int | None, option("--clips", "Measure only the first clips; heads: of each kind.", min=2)
    ] = None,
    output: Annotated[Path, option("--output", "ablation: folder of the table.", "DIR")] = Path(
        "runs"
    ),
    real: Annotated[
        list[Path] | None,
        option(
            "--real",
            "Films of real people, in place of --held-out; may be repeated. "
            "points: people with recorded points; slope and r say how read openings follow "
            "recorded ones, a slope below 1 that open lips or lids are read half shut.",
            "DIR",
        ),
    ] = None,
    faceless: Annotated[
        Path | None, option("--faceless", "points: pictures that show no face.", "DIR")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
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
