"""Means of judged videos by system and category, as JSON, as text and as Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from joyflash_cli.measures import published
from joyflash_cli.measures.table import Measure
from joyflash_cli.measures.words import NOT_MEASURED

NO_SYSTEM, NO_CATEGORY = "(no system)", "(no category)"
NOTES = (
    "Mean ± standard deviation over clips. A figure of fewer clips than its column has, because "
    "it failed or does not apply, has their number in parentheses.",
)

Group = dict[str, Any]
Cells = list[list[str]]


def summarise(rows: Sequence[Mapping[str, Any]], measures: Sequence[Measure]) -> dict[str, Any]:
    """All that is said of rows, as JSON.

    Args:
        rows: As ``measures.videos.measure_videos`` gives them.
        measures: Every figure that they may have.

    Returns:
        ``rows``; ``systems``, by system ``clips``, ``failed`` and for every key of a figure
        ``mean``, ``spread`` and ``clips`` it is the mean of; ``categories``, the same by system
        and category; ``failed``, what could not be measured and why.
    """
    systems: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        systems.setdefault(row["system"] or NO_SYSTEM, []).append(row)
    categories: dict[str, dict[str, Group]] = {}
    for system, own in systems.items():
        kinds = dict.fromkeys(row["category"] or NO_CATEGORY for row in own)
        if len(kinds) > 1 or NO_CATEGORY not in kinds:
            categories[system] = {
                kind: _group([r for r in own if (r["category"] or NO_CATEGORY) == kind], measures)
                for kind in kinds
            }
    return {
        "rows": list(rows),
        "systems": {system: _group(own, measures) for system, own in systems.items()},
        "categories": categories,
        "failed": [{"video": row["video"], "reason": row["error"]} for row in rows if row["error"]],
    }


def _group(rows: Sequence[Mapping[str, Any]], measures: Sequence[Measure]) -> Group:
    found: dict[str, Any] = {}
    for measure in measures:
        values = [row["metrics"][measure.name] for row in rows]
        values = [value for value in values if value is not None]
        found[measure.name] = {
            "mean": statistics.fmean(values) if values else None,
            "spread": statistics.stdev(values) if len(values) > 1 else None,
            "clips": len(values),
        }
    failed = sum(row["error"] is not None for row in rows)
    return {"clips": len(rows), "failed": failed, "metrics": found}


def as_text(summary: Mapping[str, Any], measures: Sequence[Measure], *, paper: bool) -> str:
    """Tables for a terminal."""
    parts = [_aligned(cells) for _, cells in tables(summary, measures)]
    if paper:
        parts.append(f"Beside {published.PAPER}\n\n" + _aligned(_beside(summary, measures)))
    return "\n\n".join([*parts, *_ending(summary, measures, paper=paper)])


def as_markdown(summary: Mapping[str, Any], measures: Sequence[Measure], *, paper: bool) -> str:
    """The same as a page."""
    parts = [f"## {title}\n\n{_piped(cells)}" for title, cells in tables(summary, measures)]
    if paper:
        parts.append(f"## Beside {published.PAPER}\n\n{_piped(_beside(summary, measures))}")
    return "\n\n".join([*parts, *_ending(summary, measures, paper=paper)]) + "\n"


def tables(summary: Mapping[str, Any], measures: Sequence[Measure]) -> list[tuple[str, Cells]]:
    """Title and cells of every table; the first row and column are heads."""
    kinds = summary["categories"].items()
    return [
        ("By system", _grid(summary["systems"], measures)),
        *((f"By category: {system}", _grid(groups, measures)) for system, groups in kinds),
    ]


def _grid(groups: Mapping[str, Group], measures: Sequence[Measure]) -> Cells:
    """A row a figure that any group has, a column a group."""
    heads = [["", *groups], ["clips"]]
    for group in groups.values():
        failed = f" ({group['failed']} failed)" if group["failed"] else ""
        heads[1].append(f"{group['clips']}{failed}")
    shown = [
        measure
        for measure in measures
        if any(group["metrics"][measure.name]["clips"] for group in groups.values())
    ]
    return heads + [
        [
            f"{measure.head} ({measure.unit})" if measure.unit else measure.head,
            *(_cell(measure, group) for group in groups.values()),
        ]
        for measure in shown
    ]


def _cell(measure: Measure, group: Group) -> str:
    found = group["metrics"][measure.name]
    if found["mean"] is None:
        return NOT_MEASURED
    text = measure.show(found["mean"])
    if found["spread"] is not None:
        text += f" ± {measure.show(found['spread']).lstrip('+')}"
    return text if found["clips"] == group["clips"] else f"{text} ({found['clips']})"


def _beside(summary: Mapping[str, Any], measures: Sequence[Measure]) -> Cells:
    """The shape of the paper's table: its rows, then those that were measured here."""
    known = {measure.name: measure for measure in measures}
    cells = [["", "", *published.HEADS]]
    cells += [[name, "published", *row] for name, row in published.ROWS.items()]
    for system, group in summary["systems"].items():
        own = [
            _cell(known[key], group) if key in known else NOT_MEASURED for key in published.COLUMNS
        ]
        cells.append([system, "measured here", *own])
    return cells


def _ending(summary: Mapping[str, Any], measures: Sequence[Measure], *, paper: bool) -> list[str]:
    failed = [f"failed: {entry['video']}: {entry['reason']}" for entry in summary["failed"]]
    notes = [*NOTES, *([published.NOTE] if paper else [])]
    return [
        part
        for part in (
            "\n\n".join(failed),
            "\n\n".join(absent(summary["rows"], measures)),
            "\n\n".join(notes),
        )
        if part
    ]


def absent(rows: Sequence[Mapping[str, Any]], measures: Sequence[Measure]) -> list[str]:
    """Why figures are missing of every clip, those with one reason together."""
    reasons: dict[str, list[str]] = {}
    for measure in measures:
        why = {row["reasons"].get(measure.name) for row in rows if not row["error"]}
        if len(why) == 1 and (reason := why.pop()) and not reason.startswith("not asked for"):
            reasons.setdefault(reason, []).append(measure.head)
    return [f"not measured: {', '.join(heads)}: {why}" for why, heads in reasons.items()]


def _aligned(cells: Cells) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *rest = (
            f"{cell:>{width}}" if index else f"{cell:<{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def _piped(cells: Cells) -> str:
    escaped = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in cells]
    head, *rows = ["| " + " | ".join(row) + " |" for row in escaped]
    return "\n".join([head, "|---" * len(cells[0]) + "|", *rows])
