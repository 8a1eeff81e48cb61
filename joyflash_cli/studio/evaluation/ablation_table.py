"""The ablation tables as files: JSON with every number, Markdown to read."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from joyflash_cli.measures.table import Measure
from joyflash_cli.measures.words import NOT_MEASURED
from joyflash_cli.studio.evaluation.ablation import (
    FULL,
    NEGLIGIBLE,
    PAPER_COLUMNS,
    AblationRow,
    compare,
    mean_and_spread,
    shown_figures,
    verdict_sentence,
)

Figures = Mapping[str, float | None]
Measured = Mapping[str, Mapping[str, Sequence[Figures]]]
"""By place of the reference and by name of the row: figures of every seed."""

PLACES = {
    "every-frame": "reference beside every frame",
    "first-frame": "reference in block 1 only",
}


def table_report(
    table: int, rows: Sequence[AblationRow], measured: Measured, *, budget: Mapping
) -> dict:
    """Everything that was measured, with means, spreads and verdicts, as JSON."""
    known = shown_figures()
    places = {}
    for place, found in measured.items():
        entries = {}
        for row in rows:
            runs = list(found[row.name])
            summary = {
                name: mean_and_spread([run.get(name) for run in runs]) or (None, None)
                for name in known
            }
            entries[row.name] = {
                "paper": dict(zip(PAPER_COLUMNS, row.paper, strict=True)),
                "seeds": [dict(run) for run in runs],
                "mean": {name: mean for name, (mean, _) in summary.items()},
                "spread": {
                    name: None if spread is None or math.isnan(spread) else spread
                    for name, (_, spread) in summary.items()
                },
            }
        places[place] = {"rows": entries, "verdicts": verdicts(rows, found, place)}
    return {"table": table, "budget": dict(budget), "references": places}


def verdicts(
    rows: Sequence[AblationRow], found: Mapping[str, Sequence[Figures]], place: str
) -> list[str]:
    """One sentence per row but the last."""
    full = found[FULL]
    return [
        verdict_sentence(row, compare(found[row.name], full), PLACES.get(place, place))
        for row in rows
        if row.name != FULL
    ]


def as_markdown(report: Mapping) -> str:
    """The report as Markdown: one table per place of the reference, then the sentences."""
    budget = ", ".join(f"{name} {value}" for name, value in report["budget"].items())
    known = shown_figures()
    lines = [
        f"# Ablation, table {report['table']} of the paper at small scale",
        "",
        f"Equal budget for all rows: {budget}. Mean ± sample standard deviation over seeds. The "
        "paper's columns are its own models, data and measures, and cannot be compared with ours; "
        "only the order of the rows can. A row differs from the full method where the mean "
        "difference over pairs of one seed is larger than its standard deviation and than "
        f"{NEGLIGIBLE:.0%} of the full method's mean. Columns 'film' are means of joyflash "
        "evaluate videos over the clips, and decide nothing.",
    ]
    for place, part in report["references"].items():
        lines += ["", f"## {PLACES.get(place, place).capitalize()}", ""]
        shown = [name for name in known if any(
            row["mean"].get(name) is not None for row in part["rows"].values()
        )]  # fmt: skip
        header = [
            "",
            *(f"paper {name}" for name in PAPER_COLUMNS),
            *(known[name].head for name in shown),
        ]
        lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        for name, row in part["rows"].items():
            cells = [name, *(f"{row['paper'][column]:.2f}" for column in PAPER_COLUMNS)]
            cells += [
                _cell(known[name], row["mean"].get(name), row["spread"].get(name)) for name in shown
            ]
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", *(f"- {sentence}" for sentence in part["verdicts"])]
    return "\n".join(lines) + "\n"


def _cell(measure: Measure, mean: float | None, spread: float | None) -> str:
    if mean is None:
        return NOT_MEASURED
    return " ± ".join(measure.show(value) for value in (mean, spread) if value is not None)


def write_table(report: Mapping, folder: Path) -> tuple[Path, Path]:
    """Write ``ablation-table-N.json`` and ``.md`` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"ablation-table-{report['table']}"
    json_path, markdown_path = stem.with_suffix(".json"), stem.with_suffix(".md")
    json_path.write_text(json.dumps(report, indent=1) + "\n")
    markdown_path.write_text(as_markdown(report))
    return json_path, markdown_path
