"""Tables 2, 3 and 4 of the paper at small scale: their rows, what is measured, and the result.

Who trains the variants is no concern of this module: it names what each row leaves out in training
and in sampling, and turns the reports of ``studio.evaluation.report`` into a table.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from joyflash_cli.errors import UsageError
from joyflash_cli.measures.table import Measure
from joyflash_cli.measures.words import NOT_MEASURED
from joyflash_cli.studio.evaluation.figure_tables import DRIFT, HELD_OUT

TABLES = (2, 3, 4)
FULL = "Our full"

DRIFT_HORIZONS_S = (60, 300)
_HELD_OUT = {measure.name: measure for measure in HELD_OUT}
FIGURES = {
    "lip_correlation": _HELD_OUT["lip_correlation"],
    "identity": _HELD_OUT["identity_similarity"],
    "sharpness": _HELD_OUT["sharpness"],
    "border_flicker": _HELD_OUT["border_flicker"],
    **{
        f"drift_{measure.name}_{horizon}": replace(measure, head=f"{measure.head} {horizon} s")
        for horizon in DRIFT_HORIZONS_S
        for measure in DRIFT
    },
}
"""What is measured on every variant and compared, by its name in the table's JSON."""

VIDEO = "video_"
"""Begins the names of means of ``joyflash evaluate videos``, which are shown and not compared."""

PAPER_COLUMNS = ("Sync-C", "Sync-D", "IDC", "Q_score", "Q_face")
Figures = Mapping[str, float | None]
Measured = Mapping[str, Mapping[str, Sequence[Figures]]]
"""By place of the reference and by name of the row: figures of every seed."""

PLACES = {
    "every-frame": "reference beside every frame",
    "first-frame": "reference in block 1 only",
}


@dataclass(frozen=True)
class AblationRow:
    """One row.

    Attributes:
        name: The paper's.
        paper: The paper's scores in the order of ``PAPER_COLUMNS``: large models, another test set,
            other measures.
        training: Switches of ``Ablation`` that the variant is trained with.
        sampling: Switches that it is sampled with.
        claims: Figures that the paper says get worse (§4.3, figures 6 to 8).
    """

    name: str
    paper: tuple[float, ...]
    training: Mapping[str, object] = field(default_factory=dict)
    sampling: Mapping[str, object] = field(default_factory=dict)
    claims: tuple[str, ...] = ()


_LATER_QUALITY = ("drift_sharpness_300", "drift_identity_300")
_OURS = AblationRow(FULL, (5.25, 8.30, 0.72, 0.84, 0.53))
_ROWS = {
    2: (
        AblationRow(
            "w/o main-branch",
            (4.09, 9.32, 0.76, 0.82, 0.52),
            training={"main_branch": False},
            claims=("lip_correlation", "sharpness", *_LATER_QUALITY),
        ),
        AblationRow(
            "w/o auxiliary-branch",
            (5.24, 8.35, 0.70, 0.80, 0.51),
            training={"auxiliary_branch": False},
            claims=("identity", "sharpness", "drift_colour_300"),
        ),
        AblationRow(
            "w/o sub-step",
            (5.24, 8.32, 0.71, 0.82, 0.51),
            training={"sub_steps": False},
            sampling={"sub_steps": False},
            claims=("sharpness", "identity"),
        ),
        _OURS,
    ),
    3: (
        AblationRow(
            "w/o MCI training",
            (5.19, 8.33, 0.71, 0.83, 0.52),
            training={"mci": False},
            sampling={"mci": False},
            claims=("lip_correlation", "border_flicker"),
        ),
        AblationRow(
            "w/o add-noise",
            (5.19, 8.33, 0.72, 0.82, 0.52),
            sampling={"mci_noise": False},
            claims=("lip_correlation", "sharpness", "drift_sharpness_300"),
        ),
        _OURS,
    ),
    4: (
        AblationRow(
            "w/o sink frames",
            (5.03, 8.43, 0.65, 0.58, 0.37),
            sampling={"sink": False},
            claims=("lip_correlation", "identity", "drift_colour_300", *_LATER_QUALITY),
        ),
        AblationRow(
            "w/o URC",
            (5.20, 8.32, 0.72, 0.83, 0.52),
            sampling={"relative_sink": False},
            claims=("lip_correlation", *_LATER_QUALITY),
        ),
        AblationRow(
            "N-thread=100",
            (5.24, 8.31, 0.72, 0.84, 0.53),
            sampling={"reset_threshold": 100},
        ),
        _OURS,
    ),
}


def ablation_rows(table: int) -> tuple[AblationRow, ...]:
    """Rows of a table of the paper, the full method last.

    Raises:
        UsageError: If there is no such table.
    """
    if table not in _ROWS:
        raise UsageError(
            f"There is no ablation table {table}", hint=f"one of {', '.join(map(str, TABLES))}"
        )
    return _ROWS[table]


def figures_of(report: Mapping) -> dict[str, float | None]:
    """The figures of ``studio.evaluation.report.evaluate``; ``None`` beyond its horizon."""
    figures: dict[str, float | None] = {
        "lip_correlation": report["lip_correlation"],
        "identity": report["identity_similarity"],
        "sharpness": report.get("sharpness"),
        "border_flicker": report["border_flicker"],
    }
    for horizon in DRIFT_HORIZONS_S:
        drift = report["drift"].get(str(horizon), {})
        for measure in DRIFT:
            figures[f"drift_{measure.name}_{horizon}"] = drift.get(measure.name)
    return figures | {f"{VIDEO}{name}": value for name, value in report.get("videos", {}).items()}


@cache
def video_measures() -> Mapping[str, Measure]:
    """The figures that are averaged, by name: those of which more, or less, is better."""
    from joyflash_cli.measures.metrics import METRICS

    return {
        measure.name: measure
        for metric in METRICS
        for measure in metric.measures
        if measure.better in ("high", "low") and metric.name != "speed"
    }


def shown_figures() -> dict[str, Measure]:
    """Everything that a table may show, by name, in order."""
    videos = {f"{VIDEO}{name}": measure for name, measure in video_measures().items()}
    return FIGURES | {name: replace(one, head=f"film: {one.head}") for name, one in videos.items()}


def mean_and_spread(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Mean and sample standard deviation over seeds; ``None`` where nothing was measured."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else math.nan


NEGLIGIBLE = 0.01
"""A difference below this share of the full method's mean is none, however steady it is: rounding
alone makes steady differences."""


def compare(
    row: Sequence[Mapping[str, float | None]], full: Sequence[Mapping[str, float | None]]
) -> dict[str, str]:
    """How every figure of a row differs from the full method; runs of one seed are pairs.

    ``worse``, ``better``, ``no difference`` (within the sample standard deviation over seeds, or
    negligible) or ``undecided`` (one seed).
    """
    verdicts = {}
    for figure, measure in FIGURES.items():
        pairs = [
            (ours, theirs)
            for run, reference in zip(row, full, strict=False)
            if (ours := run.get(figure)) is not None
            and (theirs := reference.get(figure)) is not None
        ]
        found = mean_and_spread([ours - theirs for ours, theirs in pairs])
        if found is None:
            continue
        difference, noise = found
        negligible = NEGLIGIBLE * abs(statistics.fmean(theirs for _, theirs in pairs))
        gain = difference if measure.better == "high" else -difference
        if abs(difference) <= negligible:
            verdict = "no difference"
        elif math.isnan(noise):
            verdict = "undecided"
        elif abs(difference) <= noise:
            verdict = "no difference"
        else:
            verdict = "better" if gain > 0 else "worse"
        verdicts[figure] = verdict
    return verdicts


def verdict_sentence(row: AblationRow, found: Mapping[str, str], place: str) -> str:
    """Whether the paper's ordering holds here, in one sentence."""
    # What a shorter study saw of a claim about five minutes is what it saw after one.
    claimed = [name if name in found else name.replace("_300", "_60") for name in row.claims]
    measured = [name for name in claimed if name in found]
    told = ", ".join(f"{FIGURES[name].head} {found[name]}" for name in measured)
    where = f"{row.name} ({place})"
    if not row.claims:
        differing = {name: said for name, said in found.items() if said != "no difference"}
        named = ", ".join(f"{FIGURES[name].head} {said}" for name, said in differing.items())
        if "undecided" in differing.values():
            return f"{where}: the paper finds no difference; here one seed decides nothing."
        if differing:
            return f"{where}: the paper finds no difference; here {named}: it does not hold."
        return f"{where}: the paper finds no difference, and here there is none: it holds."
    if not measured:
        return f"{where}: what the paper claims was not measured at this horizon."
    if "undecided" in {found[name] for name in measured}:
        return f"{where}: the paper finds it worse; here {told}: one seed decides nothing."
    worse = sum(found[name] == "worse" for name in measured)
    outcome = "it holds" if worse == len(measured) else (
        "it holds in part" if worse else "it does not hold"
    )  # fmt: skip
    return f"{where}: the paper finds it worse; here {told}: {outcome}."


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
