"""The rows of a batch and what the ledger says of them, in a temporary database on disk.

A hundred thousand rows must not live in memory, so they are kept where they can be counted, sorted
and looked up: in SQLite's private temporary database, which spills to disk and vanishes with the
process. It is a copy for working with; the ledger stays the truth.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from joyflash_cli.batch.rows import BatchRow, Problem, same_everywhere

State = Literal["open", "running", "elsewhere", "done", "failed"]
"""``elsewhere``: another batch works on it at the moment."""

_FETCH_ROWS = 500
_SCHEMA = """
CREATE TABLE rows (
    number INTEGER PRIMARY KEY, line INTEGER NOT NULL, id TEXT NOT NULL, image TEXT NOT NULL,
    audio TEXT NOT NULL, output TEXT NOT NULL, prompt TEXT NOT NULL, seed INTEGER NOT NULL,
    mine INTEGER NOT NULL, place TEXT NOT NULL, state TEXT NOT NULL, error_code TEXT NOT NULL,
    error TEXT NOT NULL);
CREATE TABLE problems (
    number INTEGER NOT NULL, line INTEGER NOT NULL, text TEXT NOT NULL, code TEXT NOT NULL);
CREATE TABLE settled (
    output TEXT PRIMARY KEY, position INTEGER NOT NULL, state TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE inputs (file TEXT PRIMARY KEY);
"""
_COLUMNS = "number, line, id, image, audio, output, prompt, seed"


@dataclass(frozen=True)
class Settled:
    """What the ledger says last about an output: being published, done or failed.

    Attributes:
        position: Byte of the ledger at which the line begins.
        record: The line.
    """

    position: int
    record: Mapping[str, Any]


@dataclass(frozen=True)
class RowState:
    """A row with its state.

    Attributes:
        row: As checked.
        state: Where it stands.
        error_code: Stable code of its failure, or empty.
        error: Its failure in one line, or empty.
    """

    row: BatchRow
    state: State
    error_code: str = ""
    error: str = ""


class RowTable:
    """Rows, problems and settled outputs of one batch."""

    def __init__(self) -> None:
        # The empty name is SQLite's temporary database on disk.
        self._database = sqlite3.connect("", isolation_level=None)
        # Names of files may hold bytes that are no UTF-8.
        self._database.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_SCHEMA)
        self._counts: Counter[tuple[bool, str]] = Counter()
        self._knows_inputs = False

    def close(self) -> None:
        """Removes the database."""
        self._database.close()

    def add_rows(self, rows: Iterable[tuple[BatchRow, bool, Sequence[Problem]]]) -> None:
        """Takes rows in, each with whether it belongs to this run's shard and what is wrong.

        A row without problems is open, any other has failed.
        """
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT INTO rows VALUES"
            " (?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?, ?, ?, ?, ?, ?)",
            self._counted(rows),
        )
        self._database.execute("COMMIT")
        self._database.execute("CREATE INDEX by_state ON rows (mine, state, number)")

    def _counted(
        self, rows: Iterable[tuple[BatchRow, bool, Sequence[Problem]]]
    ) -> Iterator[tuple[Any, ...]]:
        for r, mine, problems in rows:
            state = "failed" if problems else "open"
            self._counts[mine, state] += 1
            code = problems[0].code if problems else ""
            error = _printable("; ".join(problem.text for problem in problems))
            image, audio = os.fsencode(r.image), os.fsencode(r.audio)
            place = same_everywhere(r.output)
            yield (r.number, r.line, r.id, image, audio, r.output, r.prompt, r.seed,
                   mine, place, state, code, error)  # fmt: skip

    def add_problem(self, problem: Problem) -> None:
        """Remembers something that stops the batch."""
        self._database.execute(
            "INSERT INTO problems VALUES (?, ?, ?, ?)",
            (problem.number, problem.line, _printable(problem.text), problem.code),
        )

    def problems(self) -> Iterator[Problem]:
        """Every problem, in the order of the rows."""
        cursor = self._database.execute(
            "SELECT number, line, text, code FROM problems ORDER BY number, rowid"
        )
        for number, line, text, code in cursor:
            yield Problem(number, line, text, code)

    def repeated(self, column: Literal["id", "place"]) -> Iterator[tuple[str, list[BatchRow]]]:
        """Values that several rows have, each with its rows (at most 20 of them).

        Args:
            column: ``place`` is where the video goes, on whatever system.
        """
        self._database.execute(f"CREATE INDEX IF NOT EXISTS by_{column} ON rows ({column})")
        cursor = self._database.execute(
            f"SELECT {column} FROM rows WHERE {column} != '' GROUP BY {column}"
            " HAVING count(*) > 1 ORDER BY min(number)"
        )
        for (value,) in cursor:
            found = self._database.execute(
                f"SELECT {_COLUMNS} FROM rows WHERE {column} = ? ORDER BY number LIMIT 20", (value,)
            )
            yield value, [_row(values) for values in found]

    def add_input(self, file: BinaryIO) -> None:
        """Remembers another file that is read, unless it is none."""
        with contextlib.suppress(OSError, ValueError):
            self._add_input(os.fstat(file.fileno()))

    def is_input(self, path: Path) -> bool:
        """Whether a file is the picture or the sound of any row, through whatever links."""
        try:
            status = os.stat(path)
        except OSError:
            return False
        if not self._knows_inputs:  # asked for few batches, so found out only then
            self._knows_inputs = True
            for (name,) in self._database.execute(
                "SELECT image FROM rows UNION SELECT audio FROM rows"
            ).fetchall():
                with contextlib.suppress(OSError, ValueError):  # or no name of a file at all
                    self._add_input(os.stat(name))
        found = self._database.execute("SELECT 1 FROM inputs WHERE file = ?", (_identity(status),))
        return found.fetchone() is not None

    def _add_input(self, status: os.stat_result) -> None:
        self._database.execute("INSERT OR IGNORE INTO inputs VALUES (?)", (_identity(status),))

    def has_output(self, output: str) -> bool:
        """Whether any row has this output."""
        found = self._database.execute("SELECT 1 FROM rows WHERE output = ? LIMIT 1", (output,))
        return found.fetchone() is not None

    def outputs(self) -> Iterator[tuple[int, int, str]]:
        """Number, line and output of every row; rows may not be changed while this is read."""
        yield from self._database.execute("SELECT number, line, output FROM rows ORDER BY number")

    def rows(self, *states: State, mine: bool | None = None) -> Iterator[RowState]:
        """Rows in the order of the manifest, those of some states, or all.

        The table may be changed while this is read: rows are fetched a few hundred at a time.
        """
        where = ["number > ?"]
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
        if mine is not None:
            where.append(f"mine = {int(mine)}")
        query = (
            f"SELECT {_COLUMNS}, state, error_code, error FROM rows WHERE {' AND '.join(where)}"
            f" ORDER BY number LIMIT {_FETCH_ROWS}"
        )
        last = 0
        while True:
            found = self._database.execute(query, (last, *states)).fetchall()
            for values in found:
                yield RowState(_row(values[:8]), *values[8:])
            if len(found) < _FETCH_ROWS:
                return
            last = found[-1][0]

    def next_open(self, after: int) -> BatchRow | None:
        """The first open row of this run's shard behind a row's number."""
        values = self._database.execute(
            f"SELECT {_COLUMNS} FROM rows WHERE number > ? AND state = 'open' AND mine = 1"
            " ORDER BY number LIMIT 1",
            (after,),
        ).fetchone()
        return None if values is None else _row(values)

    def set_state(
        self, number: int, state: State, *, error_code: str = "", error: str = ""
    ) -> None:
        """Changes where a row stands."""
        old, mine = self._database.execute(
            "SELECT state, mine FROM rows WHERE number = ?", (number,)
        ).fetchone()
        self._counts[bool(mine), old] -= 1
        self._counts[bool(mine), state] += 1
        self._database.execute(
            "UPDATE rows SET state = ?, error_code = ?, error = ? WHERE number = ?",
            (state, error_code, _printable(error), number),
        )

    def count(self, *states: State, mine: bool = True) -> int:
        """Rows in any of the states (in all, without), of this run's shard or of the manifest."""
        return sum(
            number
            for (is_mine, state), number in self._counts.items()
            if (is_mine or not mine) and (state in states or not states)
        )

    def settle(self, records: Iterable[tuple[int, Mapping[str, Any]]]) -> int:
        """Takes in lines of the ledger with their positions; how many there were."""
        num_lines = 0
        self._database.execute("BEGIN")
        for position, record in records:
            num_lines += 1
            self._database.execute(
                "INSERT OR REPLACE INTO settled VALUES (?, ?, ?, ?)",
                (record["output"], position, record["state"], json.dumps(record)),
            )
        self._database.execute("COMMIT")
        return num_lines

    def settled(self, output: str) -> Settled | None:
        """The ledger's last word about an output."""
        found = self._database.execute(
            "SELECT position, record FROM settled WHERE output = ?", (output,)
        ).fetchone()
        return None if found is None else Settled(found[0], json.loads(found[1]))

    def unconfirmed(self) -> Iterator[BatchRow]:
        """Rows that are done although the ledger only says that they were being published."""
        query = (
            f"SELECT {', '.join(f'rows.{name}' for name in _COLUMNS.split(', '))} FROM rows"
            " JOIN settled ON rows.output = settled.output"
            " WHERE rows.state = 'done' AND settled.state = 'publishing'"
        )
        for values in self._database.execute(query).fetchall():
            yield _row(values)


def _identity(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


def _printable(text: str) -> str:
    """Text that may name a file whose bytes are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _row(values: tuple[Any, ...]) -> BatchRow:
    return BatchRow(*values)
