"""``joyflash evaluate tiny --real``: measure a profile on films of real people."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from joyflash_cli.errors import BatchError
from joyflash_cli.measures.table import FILM_TEXT


def evaluate_films(
    folders: Sequence[Path],
    *,
    checkpoint: Path | None,
    clips: int | None,
    as_json: bool,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    """Print the report of films of real people.

    Raises:
        BatchError: After the report, if films had to be skipped.
    """
    from joyflash_cli.studio.evaluation.real import evaluate_real

    report = evaluate_real(folders, checkpoint=checkpoint, num_clips=clips, progress=progress)
    typer.echo(json.dumps(report) if as_json else report_text(report))
    if report["skipped"]:
        raise BatchError(
            f"{len(report['skipped'])} films were skipped; no figure holds them",
            hint="see skipped in the report",
        )


def report_text(report: dict[str, Any]) -> str:
    """The figures as a table: everybody, the true films, groups, people, films; then notes."""
    rows = [("everybody", report), ("true films", report["truth"])]
    rows += [(f"{name} ({part['num_people']})", part) for name, part in report["groups"].items()]
    rows += [("", {})]
    rows += list(report["people"].items())
    if len(report["films"]) > len(report["people"]):
        rows += [("", {}), *report["films"].items()]
    first = max(len(name) for name, _ in rows)
    lines = [_line("", [measure.head for measure in FILM_TEXT], first)]
    for name, figures in rows:
        cells = [measure.text(figures, missing="-") if figures else "" for measure in FILM_TEXT]
        lines.append(_line(name, cells, first))
    lines += [f"skipped: {entry['film']}: {entry['reason']}" for entry in report["skipped"]]
    summary = f"{report['num_films']} films of {report['num_people']} people"
    return "\n".join([summary, "", *lines, "", *report["notes"]])


def _line(name: str, cells: list[str], first: int) -> str:
    pairs = zip(FILM_TEXT, cells, strict=True)
    shown = [f"{cell:>{max(len(measure.head), 5)}}" for measure, cell in pairs]
    return "  ".join([f"{name:<{first}}", *shown]).rstrip()
