"""What ``joyflash evaluate videos`` found of a folder, as the page shows it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyflash_cli.measures.metrics import all_measures
from joyflash_cli.measures.video_table import NOTES, absent, tables
from joyflash_cli.measures.videos import RESULTS_FILE, RESULTS_FOLDER


@dataclass(frozen=True)
class Judged:
    """Tables and texts of one judging.

    Attributes:
        tables: Title and cells; the first row and the first column are heads.
        texts: What failed, what is missing and why, and how to read it; or that it is damaged.
        summary: All of it, for programs.
    """

    tables: list[tuple[str, list[list[str]]]]
    texts: list[str]
    summary: Mapping[str, Any]


def read_judged(folder: Path) -> Judged | None:
    """The last judging of a folder of videos, or of the folder of its results itself."""
    places = (folder / RESULTS_FOLDER / RESULTS_FILE, folder / RESULTS_FILE)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    measures = all_measures()
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        failed = [f"failed: {entry['video']}: {entry['reason']}" for entry in summary["failed"]]
        texts = [*failed, *absent(summary["rows"], measures), *NOTES]
        return Judged(tables(summary, measures), texts, summary)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        hint = "joyflash evaluate videos writes it again"
        return Judged([], [f"{path.name} cannot be read; {hint}"], {})
