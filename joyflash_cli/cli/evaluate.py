"""``joyflash evaluate``: measure a profile on people and voices it was never trained on.

And the rendered heads that it was trained on, which should look as people do.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli.cli.evaluate_set import set_verbs
from joyflash_cli.cli.evaluate_videos import videos
from joyflash_cli.cli.help_text import GroupedCommand
from joyflash_cli.cli.options import Checkpoint, Debug, Json, Quiet, option, say, takes
from joyflash_cli.cli.process import StopSignals
from joyflash_cli.cli.train import studio
from joyflash_cli.errors import BatchError, UsageError

evaluate_parts = typer.Typer(rich_markup_mode=None)
"""What is measured beside the program's own profiles, each a verb below ``evaluate``."""
evaluate_parts.add_typer(set_verbs, name="set")
evaluate_parts.command(cls=GroupedCommand)(videos)


@evaluate_parts.callback()
def _parts() -> None:
    """Keeps the parts a group, however few they are."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """The command line of ``joyflash evaluate``."""

    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE",
            help="What to measure: tiny; points; ablation, see --table; or heads, see --assets.",
        ),
    ]
    held_out: Annotated[
        bool, option("--held-out", "Use only identities and voices kept from training.")
    ] = False
    horizon: Annotated[
        float | None, option("--horizon", "Longest drift horizon in seconds.", "S", min=1.0)
    ] = None
    assets: Annotated[
        Path | None,
        option(
            "--assets",
            "Another held-out pack than the recorded one; heads: folder of the head packs.",
            "DIR",
        ),
    ] = None
    checkpoint: Checkpoint = None
    sheets: Annotated[
        Path | None, option("--sheets", "Write picture sheets to look at.", "DIR")
    ] = None
    table: Annotated[
        int | None, option("--table", "ablation: the paper's table to measure.", "2|3|4")
    ] = None
    config: Annotated[
        Path | None, option("--config", "ablation: run whose clips are trained on.", "FILE")
    ] = None
    steps: Annotated[
        int, option("--steps", "ablation: distillation steps of every variant.", min=1)
    ] = 400
    start_steps: Annotated[
        int | None,
        option(
            "--start-steps",
            "ablation: steps of what all variants share; the run's own by default.",
            min=1,
        ),
    ] = None
    seeds: Annotated[int, option("--seeds", "ablation: trainings of every variant.", min=1)] = 3
    clips: Annotated[
        int | None, option("--clips", "Measure only the first clips; heads: of each kind.", min=2)
    ] = None
    output: Annotated[Path, option("--output", "ablation: folder of the table.", "DIR")] = Path(
        "runs"
    )
    real: Annotated[
        list[Path] | None,
        option(
            "--real",
            "Films of real people, in place of --held-out; may be repeated. "
            "points: people with recorded points; slope and r say how read openings follow "
            "recorded ones, a slope below 1 that open lips or lids are read half shut.",
            "DIR",
        ),
    ] = None
    faceless: Annotated[
        Path | None, option("--faceless", "points: pictures that show no face.", "DIR")
    ] = None
    quiet: Quiet = False
    as_json: Json = False
    debug: Debug = False

    @property
    def progress(self) -> Callable[[str, int, int], None] | None:
        """Told the stage, steps done and steps in all; ``None`` when quiet."""
        return None if self.quiet else _show_progress


@takes(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> None:
    """Measure lips, stillness, identity, sharpness and drift on held-out data.

    \b
    Example:
      joyflash evaluate tiny --held-out --json
      joyflash evaluate tiny --real films --json

    \b
    With a help of their own:
      joyflash evaluate set build    pictures and voices to render and judge
      joyflash evaluate videos       the videos of any system, judged alike
    """  # noqa: D301 - \b tells the help not to fold the example
    if options.profile not in ("tiny", *_OTHERS):
        raise UsageError(
            f"profile {options.profile!r} has no held-out data", hint="give tiny", code="E-PROFILE"
        )
    measure = _OTHERS.get(options.profile, _evaluate_films if options.real else _evaluate_tiny)
    with studio():
        measure(options)


def _evaluate_tiny(options: EvaluateOptions) -> None:
    if not options.held_out:
        raise UsageError(
            "figures on training data say nothing about new people",
            hint="give --held-out, or --real DIR",
        )
    from joyflash_cli.studio.evaluation.report import evaluate_tiny

    given: dict[str, Any] = {"horizon_s": options.horizon, "num_clips": options.clips}
    report = evaluate_tiny(
        checkpoint=options.checkpoint,
        assets_dir=options.assets,
        sheets_dir=options.sheets,
        progress=options.progress,
        **{name: value for name, value in given.items() if value is not None},
    )
    _print(options, report, _as_lines(report))


def _evaluate_films(options: EvaluateOptions) -> None:
    for option_name, value in (
        ("--held-out", options.held_out),
        ("--horizon", options.horizon),
        ("--assets", options.assets),
        ("--sheets", options.sheets),
    ):
        if value:
            raise UsageError(f"{option_name} does not go with --real", hint="leave one of them out")
    from joyflash_cli.studio.evaluation.real import evaluate_real

    report = evaluate_real(
        options.real or (),
        checkpoint=options.checkpoint,
        num_clips=options.clips,
        progress=options.progress,
    )
    _print(options, report, _film_text(report))
    if report["skipped"]:
        raise BatchError(
            f"{len(report['skipped'])} films were skipped; no figure holds them",
            hint="see skipped in the report",
        )


def _film_text(report: dict[str, Any]) -> str:
    """The figures as a table: everybody, the true films, groups, people, films; then notes."""
    from joyflash_cli.studio.evaluation.figure_tables import FILM_TEXT

    rows = [("everybody", report), ("true films", report["truth"])]
    rows += [(f"{name} ({part['num_people']})", part) for name, part in report["groups"].items()]
    rows += [("", {})]
    rows += list(report["people"].items())
    if len(report["films"]) > len(report["people"]):
        rows += [("", {}), *report["films"].items()]
    first = max(len(name) for name, _ in rows)
    lines = [_film_line("", [measure.head for measure in FILM_TEXT], first)]
    for name, figures in rows:
        cells = [measure.text(figures, missing="-") if figures else "" for measure in FILM_TEXT]
        lines.append(_film_line(name, cells, first))
    lines += [f"skipped: {entry['film']}: {entry['reason']}" for entry in report["skipped"]]
    summary = f"{report['num_films']} films of {report['num_people']} people"
    return "\n".join([summary, "", *lines, "", *report["notes"]])


def _film_line(name: str, cells: list[str], first: int) -> str:
    from joyflash_cli.studio.evaluation.figure_tables import FILM_TEXT

    pairs = zip(FILM_TEXT, cells, strict=True)
    shown = [f"{cell:>{max(len(measure.head), 5)}}" for measure, cell in pairs]
    return "  ".join([f"{name:<{first}}", *shown]).rstrip()


def _evaluate_heads(options: EvaluateOptions) -> None:
    if options.assets is None:
        raise UsageError("heads are rendered from their packs", hint="give --assets DIR")
    from joyflash_cli.studio.evaluation.mouths import measure_heads

    limit = {} if options.clips is None else {"num_heads": options.clips}
    report = measure_heads(options.assets, progress=options.progress, **limit)
    _print(options, report, _as_lines(report))


def _evaluate_points(options: EvaluateOptions) -> None:
    if not options.real or len(options.real) > 1:
        raise UsageError("points are measured on real people", hint="give one --real DIR")
    from joyflash_cli.studio.evaluation.points import evaluate_points

    report = evaluate_points(
        options.real[0], faceless_dir=options.faceless, progress=options.progress
    )
    _print(options, report, _as_lines(report))


def _evaluate_ablation(options: EvaluateOptions) -> None:
    from joyflash_cli.studio.ablation_run import AblationRequest, run_ablation

    request = AblationRequest(
        table=options.table or 0,
        config=options.config or Path("runs/tiny.toml"),
        steps=options.steps,
        start_steps=options.start_steps,
        seeds=options.seeds,
        horizon_s=300.0 if options.horizon is None else options.horizon,
        clips=options.clips,
        checkpoint="tiny" if options.checkpoint is None else str(options.checkpoint),
        output=options.output,
    )

    def tell(text: str) -> None:
        say(f"ablation: {text}", quiet=options.quiet)

    with StopSignals() as signals:
        written = run_ablation(request, tell, signals.should_stop)
        if written is None:
            raise typer.Exit(signals.exit_code)
    for path in written:
        typer.echo(str(path))


_OTHERS = {"ablation": _evaluate_ablation, "heads": _evaluate_heads, "points": _evaluate_points}
"""What is measured beside the profile ``tiny``."""


def _print(options: EvaluateOptions, report: dict[str, Any], text: str) -> None:
    typer.echo(json.dumps(report) if options.as_json else text)


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
