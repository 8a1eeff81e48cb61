"""What became of every row, for people and programs: ``results.csv`` and ``results.jsonl``."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from joyflash_cli.batch.ledger import Ledger
from joyflash_cli.batch.rows import Row, Rows
from joyflash_cli.files import cannot_write, room_hint, whole_file
from joyflash_cli.render.record import FIGURES

RESULTS_CSV = "results.csv"
RESULTS_JSONL = "results.jsonl"
RESULT_FILES = (RESULTS_CSV, RESULTS_JSONL)

_OF_ROW = (*FIGURES, "bytes", "sha256", "host")
RESULT_COLUMNS = (
    "row", "id", "state", "output", "error_code", "error", "attempt", "seed",
    *_OF_ROW, "image", "audio", "prompt", "finished",
)  # fmt: skip

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_results(rows: Rows, ledger: Ledger, folder: Path, *, mark: str) -> None:
    """Writes both files anew, each whole or not at all.

    Args:
        rows: All of the manifest, whichever shard they belong to.
        ledger: What it says last about each is told.
        folder: Where they go.
        mark: Makes the names of the temporary files this run's own.

    Raises:
        OutputError: If they cannot be written.
    """
    with _replacing(folder / RESULTS_CSV, mark) as file:
        writer = csv.DictWriter(file, RESULT_COLUMNS)
        writer.writeheader()
        for result in (_result(row, ledger) for row in rows):
            writer.writerow({name: as_cell(value) for name, value in result.items()})
    with _replacing(folder / RESULTS_JSONL, mark) as file:
        for result in (_result(row, ledger) for row in rows):
            file.write(json.dumps(result) + "\n")


def as_cell(value: Any) -> Any:
    """A value as a spreadsheet may open it: text that it would take for a formula is quoted."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value


def _result(row: Row, ledger: Ledger) -> dict[str, Any]:
    """One row's result with all ``RESULT_COLUMNS``; what does not apply is ``None``."""
    is_settled = row.state in ("done", "failed")
    record = (ledger.last(row.output) if is_settled else None) or {}
    facts = record.get("facts") or {}
    values = {
        "row": row.number,
        "id": row.id,
        "state": row.state if is_settled else "open",
        "output": row.output or None,
        "error_code": row.error_code or None,
        "error": row.error or None,
        "attempt": record.get("attempt"),
        "seed": row.seed,
        "image": row.image,
        "audio": row.audio,
        "prompt": row.prompt,
        "finished": record.get("time"),
        **{name: facts.get(name) for name in _OF_ROW},
    }
    return {name: values[name] for name in RESULT_COLUMNS}


@contextlib.contextmanager
def _replacing(path: Path, mark: str) -> Iterator[IO[str]]:
    try:
        with (
            whole_file(path, mark=mark, durable=True) as part,
            part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            yield file
    except OSError as error:
        raise cannot_write(
            path,
            error,
            hint=f"{room_hint(error)} and run the same command again; the ledger has every row",
        ) from error
