"""What ``joyflash evaluate tiny --real`` says of films of real people."""

from typing import Any

from joyflash_cli.errors import BatchError
from joyflash_cli.measures.table import FILM_TEXT


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


def refuse_skipped(report: dict[str, Any]) -> None:
    """Ends with an error if films had to be skipped.

    Raises:
        BatchError: Saying how many.
    """
    if report["skipped"]:
        raise BatchError(
            f"{len(report['skipped'])} films were skipped; no figure holds them",
            hint="see skipped in the report",
        )
