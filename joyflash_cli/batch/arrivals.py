"""Rows that come one by one, through a pipe that others still write: begun as they come."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import BinaryIO

from joyflash_cli.batch.checks import RowRules, check_row
from joyflash_cli.batch.ledger import Ledger
from joyflash_cli.batch.manifest import read_rows
from joyflash_cli.batch.places import InputFiles, real_place
from joyflash_cli.batch.plan import (
    LEDGER_FILE,
    BatchChoices,
    BatchPlan,
    BatchProblems,
    check_out_dir,
    compare_with_folder,
    settle_row,
)
from joyflash_cli.batch.rows import Row, Rows, printable, same_everywhere
from joyflash_cli.errors import OutputError, UsageError
from joyflash_cli.media.outputs.names import partial_path
from joyflash_cli.streaming import Cancellation, RunAhead

MAX_WAITING = 1000
"""Rows that are read ahead of the workers."""


class Arrivals:
    """The rows of a pipe; what is wrong with one is told of it alone, and the others go on.

    Args:
        manifest: Read in a thread of its own, to its end.
        name: Of the manifest, for messages.
        choices: What decides the batch besides its rows.
        rules: What rows are checked against.
        note: Told which columns or keys are left out.

    Raises:
        BatchProblems: Files in the way.
        OutputError: If the output folder cannot be written.
    """

    def __init__(
        self,
        manifest: BinaryIO,
        name: str,
        *,
        choices: BatchChoices,
        rules: RowRules,
        note: Callable[[str], None],
    ) -> None:
        check_out_dir(choices.out_dir)
        self.plan = BatchPlan(choices, Rows(()), Ledger(choices.state_dir / LEDGER_FILE))
        self.plan.ledger.read_new()
        self.plan.start = self.plan.ledger.position
        self._inputs = InputFiles(self.plan.rows, manifest)
        if choices.out_dir.is_dir():
            problems = list(compare_with_folder(self.plan, self._inputs))
            if problems:
                raise BatchProblems(name, problems)
        self._name = name
        self._ids: dict[str, int] = {}
        self._places: dict[str, int] = {}
        self.ended = False
        self._cancellation = Cancellation()

        def checked() -> Iterator[Row]:
            for raw in read_rows(manifest, name, note=note):
                row = check_row(raw, rules)
                row.mine = choices.shard.has(row.number)
                yield row

        self._rows = RunAhead(
            checked(), name="manifest", cancellation=self._cancellation, capacity=MAX_WAITING
        )
        self._rows.__enter__()

    def take(self) -> list[Row]:
        """Rows that have come since, each with its state.

        Raises:
            ManifestError: When the table cannot be read on.
            UsageError: ``E-MANIFEST`` when it has ended without a row.
        """
        taken: list[Row] = []
        while not self.ended and len(taken) < MAX_WAITING:
            try:
                row = self._rows.poll(0.0)
            except StopIteration:
                self.ended = True
                if not len(self.plan.rows):
                    raise UsageError(
                        f"{self._name} has no rows",
                        hint="add one line for each video",
                        code="E-MANIFEST",
                    ) from None
                break
            if row is None:
                break
            self._admit(row)
            taken.append(row)
        return [row for row in taken if row.mine]

    def close(self) -> None:
        """Nothing more is read."""
        self._cancellation.request()

    def _admit(self, row: Row) -> None:
        """Gives a row its place among the others, and its state."""
        if row.state == "open":
            code, problem = self._problem(row)
            if problem:
                row.state, row.error_code, row.error = "failed", code, printable(problem)
        self.plan.rows.add(row)
        self._inputs.add(row)
        if row.state == "open":
            problem, code = settle_row(self.plan, row, self._inputs)
            if problem:
                self.plan.rows.set_state(row, "failed", error_code=code, error=problem)

    def _problem(self, row: Row) -> tuple[str, str]:
        """A code and what a row has in common with an earlier one, or nothing."""
        try:
            place = str(real_place(self.plan.choices.out_dir, row.output))
        except OutputError as error:
            return error.code, error.message
        stem, suffix = posixpath.splitext(place)
        names = [place, str(partial_path(real_place(self.plan.choices.out_dir, row.output)))]
        if stem.endswith(".partial"):
            names.append(f"{stem.removesuffix('.partial')}{suffix}")
        for known, value, what in (
            (self._ids, row.id, f"id {row.id!r}"),
            *((self._places, same_everywhere(name), f"output {row.output!r}") for name in names),
        ):
            earlier = known.setdefault(value, row.number)
            if earlier != row.number:
                return "E-MANIFEST-ROW", f"{what} stands in row {earlier} already"
        return "", ""
