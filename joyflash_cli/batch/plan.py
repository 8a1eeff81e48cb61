"""What a batch comes to, before any weights are loaded: rows checked, and what is done already."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from joyflash_cli.batch.checks import RowRules, check_row, unusable_row
from joyflash_cli.batch.digests import FileDigests, InputDigest, row_key, settings_key
from joyflash_cli.batch.ledger import Ledger
from joyflash_cli.batch.manifest import read_rows
from joyflash_cli.batch.places import shared_places, target_problem
from joyflash_cli.batch.results import RESULT_FILES
from joyflash_cli.batch.rows import STATE_FOLDER, BatchRow, Problem, RawRow, Shard
from joyflash_cli.batch.table import RowState, RowTable, Settled, State
from joyflash_cli.errors import OutputError, UsageError

LEDGER_FILE = "ledger.jsonl"
MAX_TOLD = 1000
"""Problems told in one message; all of them are counted."""


@dataclass(frozen=True)
class BatchChoices:
    """What decides a batch besides its rows.

    Attributes:
        out_dir: Output folder, absolute.
        weights_sha256: Of the checkpoint.
        parameters: Other choices that decide the pictures of every row.
        shard: The part of the rows that this run does.
        retry_failed: Whether rows that failed earlier are tried again.
        fail_fast: Whether the first failure ends the run.
        overwrite: Whether videos that are something else than the row asks for are replaced.
    """

    out_dir: Path
    weights_sha256: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    shard: Shard = field(default_factory=Shard)
    retry_failed: bool = False
    fail_fast: bool = False
    overwrite: bool = False

    @property
    def state_dir(self) -> Path:
        """Where ledger, claims and logs are."""
        return self.out_dir / STATE_FOLDER


@dataclass(frozen=True)
class RowInputs:
    """A row's key and what it was made of.

    Attributes:
        key: Of everything that decides the video.
        settings: Of what all rows have in common: weights and parameters.
        image: The picture.
        audio: The sound.
    """

    key: str
    settings: str
    image: InputDigest
    audio: InputDigest

    def to_record(self) -> dict[str, Any]:
        """As it stands in the ledger."""
        files = {"image": self.image.to_list(), "audio": self.audio.to_list()}
        return {"key": self.key, "settings": self.settings, **files}


@dataclass(frozen=True)
class BatchPlan:
    """A checked batch.

    Attributes:
        choices: As given.
        table: Every row with its state.
        ledger: Read to ``start``.
        start: Byte at which the ledger ended when the plan was made.
        digests: Remembers what was hashed.
        num_changed: Rows whose inputs have changed since this folder's batch made their videos.
        num_refused: Rows of this run's shard that cannot be begun; they have failed.
        refused: Those, the first ``MAX_TOLD`` of them.
        notes: What of the manifest is left out.
    """

    choices: BatchChoices
    table: RowTable
    ledger: Ledger
    start: int
    digests: FileDigests
    num_changed: int = 0
    num_refused: int = 0
    refused: tuple[RowState, ...] = ()
    notes: tuple[str, ...] = ()

    def inputs(self, row: BatchRow, known: Settled | None) -> RowInputs:
        """The row's key; files that are as the ledger knows them are not read again.

        Raises:
            OSError: If a file cannot be read.
        """
        record = known.record if known is not None else {}
        image = self.digests.digest(Path(row.image), InputDigest.from_list(record.get("image")))
        audio = self.digests.digest(Path(row.audio), InputDigest.from_list(record.get("audio")))
        parameters = {
            "seed": row.seed,
            "prompt": row.prompt,
            "suffix": Path(row.output).suffix.lower(),
            "settings": self.settings,
        }
        key = row_key(image.sha256, audio.sha256, parameters)
        return RowInputs(key, self.settings, image, audio)

    @property
    def settings(self) -> str:
        """SHA-256 of weights and parameters."""
        return settings_key(self.choices.weights_sha256, self.choices.parameters)

    def may_replace(self, row: BatchRow) -> bool:
        """Whether what lies at the row's place may go when the new video is there.

        A batch brings its own videos up to date: a video that it made there, with these weights and
        parameters, and that nobody has changed since. Anything else stays unless the user says
        otherwise.
        """
        if self.choices.overwrite:
            return True
        settled = self.table.settled(row.output)
        known = [] if settled is None else known_videos(settled.record)
        try:
            digest = self.digests.digest(self.choices.out_dir / row.output)
        except OSError:
            return False
        return [self.settings, digest.sha256] in known


_HINT = "nothing was rendered; put them right and run it again"
_HINTS = {
    "E-OUTPUT-EXISTS": "use --overwrite or another --out-dir",
    "E-OUTPUT-INPUT": "give another output or another --out-dir; no input is ever replaced",
}
"""Where all problems are of one kind."""


class BatchProblems(UsageError):
    """What of the table as a whole must be put right first, all of it.

    Args:
        name: Of the manifest.
        problems: In the order of the rows; those beyond ``MAX_TOLD`` are only counted.
    """

    code = "E-MANIFEST"

    def __init__(self, name: str, problems: Iterable[Problem]) -> None:
        remaining = iter(problems)
        self.problems = tuple(itertools.islice(remaining, MAX_TOLD))
        num_more, codes = 0, {problem.code for problem in self.problems}
        for problem in remaining:
            num_more += 1
            codes.add(problem.code)
        self.count = len(self.problems) + num_more
        told = "; ".join(str(problem) for problem in self.problems)
        also = f"; and {num_more} more" if num_more else ""
        plural = "s" * (self.count > 1)
        super().__init__(
            f"{name} has {self.count} problem{plural}: {told}{also}",
            hint=_HINTS.get("".join(codes), _HINT),
        )
        if all(code.startswith(OutputError.code) for code in codes):
            self.exit_code = OutputError.exit_code
            self.code = codes.pop() if len(codes) == 1 else OutputError.code

    @property
    def summary(self) -> str:
        """The message without the list."""
        return self.message.partition(": ")[0]


def prepare_batch(
    manifest: BinaryIO, name: str, *, choices: BatchChoices, rules: RowRules
) -> BatchPlan:
    """The rows of a manifest, checked and compared with what was done before; writes nothing.

    Args:
        manifest: Open for reading.
        name: Of the manifest, for messages.
        choices: What decides the batch besides its rows.
        rules: What rows are checked against.

    Raises:
        ManifestError: If it cannot be read as a table, or has no rows.
        BatchProblems: Rows that contradict each other, or files in the way.
        OutputError: If the output folder cannot be written.
    """
    check_out_dir(choices.out_dir)
    table = RowTable()
    notes: list[str] = []
    rows = read_rows(manifest, name, note=notes.append)
    table.add_rows(_checked(rows, choices, rules))
    table.add_input(manifest)
    num_refused = table.count("failed")
    refused = tuple(itertools.islice(table.rows("failed", mine=True), MAX_TOLD))
    _find_repeated(table)
    for problem in shared_places(table, choices.out_dir):
        table.add_problem(problem)
    ledger = Ledger(choices.state_dir / LEDGER_FILE)
    table.settle(ledger.read_new())
    plan = BatchPlan(
        choices, table, ledger, ledger.position, FileDigests(),
        num_refused=num_refused, refused=refused, notes=tuple(notes),
    )  # fmt: skip
    plan = replace(plan, num_changed=_compare_with_ledger(plan))
    problems = table.problems()
    first = next(problems, None)
    if first is not None:
        raise BatchProblems(name, itertools.chain([first], problems))
    if table.count(mine=False) == 0:
        raise UsageError(
            f"{name} has no rows", hint="add one line for each video", code="E-MANIFEST"
        )
    return plan


def judge(plan: BatchPlan, row: BatchRow) -> tuple[State, str, str]:
    """Where a row stands by the ledger: its state, and the code and text of a failure.

    Raises:
        OSError: If one of its files cannot be read.
    """
    settled = plan.table.settled(row.output)
    if settled is None:
        return "open", "", ""
    record = settled.record
    if plan.inputs(row, settled).key != record.get("key"):
        return "open", "", ""
    if record["state"] == "failed":
        # A failure of this very run, seen by another, is not one to try again.
        old = settled.position < plan.start
        if plan.choices.retry_failed and old:
            return "open", "", ""
        return "failed", str(record.get("code", "")), str(record.get("error", ""))
    return ("done" if _is_published(plan, row, record) else "open"), "", ""


def known_videos(record: Mapping[str, Any]) -> list[list[str]]:
    """Videos that a line of the ledger knows at its place, each ``[settings, sha256]``.

    A line about a video that was to replace another knows both: a run may have died in between, or
    the new one may have failed.
    """
    facts = record.get("facts") or {}
    own = [[record.get("settings", ""), facts["sha256"]]] if facts.get("sha256") else []
    return [*own, *(record.get("replaces") or [])][:2]


def check_out_dir(folder: Path) -> None:
    """Refuses an output folder that could not be made or written.

    Raises:
        OutputError: ``E-OUTPUT-FOLDER``.
    """
    existing = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not existing.is_dir():
        raise OutputError(f"{existing} is not a folder", hint="choose another --out-dir",
                          code="E-OUTPUT-FOLDER")  # fmt: skip
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{existing} is not writable", hint="choose another --out-dir",
                          code="E-OUTPUT-FOLDER")  # fmt: skip


def _checked(
    rows: Iterable[RawRow | Problem], choices: BatchChoices, rules: RowRules
) -> Iterator[tuple[BatchRow, bool, list[Problem]]]:
    """Rows as they are read, with whether they belong to the shard, and what is wrong."""
    for raw in rows:
        if isinstance(raw, Problem):
            row, problems = unusable_row(raw), [raw]
        else:
            row, problems = check_row(raw, rules)
        yield row, choices.shard.has(row.number), problems


def _find_repeated(table: RowTable) -> None:
    for value, rows in table.repeated("id"):
        table.add_problem(_repeated("id", value, rows))
    for _place, rows in table.repeated("place"):
        # Rows of one id share the default output; telling it once is enough.
        if len({row.id for row in rows}) > 1:
            outputs = list(dict.fromkeys(row.output for row in rows))
            also = f", one file with {outputs[1]!r} on some systems," if outputs[1:] else ""
            table.add_problem(_repeated("output", outputs[0], rows, also))


def _repeated(column: str, value: str, rows: list[BatchRow], also: str = "") -> Problem:
    numbers = ", ".join(str(row.number) for row in rows)
    lines = ", ".join(str(row.line) for row in rows)
    first = rows[0]
    text = f"{column} {value!r}{also} stands in rows {numbers} (lines {lines})"
    return Problem(first.number, first.line, text)


def _compare_with_ledger(plan: BatchPlan) -> int:
    """Gives every row its state; a target that is something else becomes a problem.

    Returns:
        Rows whose videos will be replaced because their inputs have changed.
    """
    table, choices, num_changed = plan.table, plan.choices, 0
    if not choices.out_dir.is_dir():
        return num_changed
    foreign = not choices.state_dir.is_dir() and not choices.overwrite
    for path in (choices.out_dir / name for name in RESULT_FILES):
        if table.is_input(path):
            text = f"{path} is read by this batch, which would write a file of that name"
            table.add_problem(Problem(0, 0, text, "E-OUTPUT-INPUT"))
        elif foreign and os.path.lexists(path):
            text = f"{path} exists already, and no batch wrote it"
            table.add_problem(Problem(0, 0, text, "E-OUTPUT-EXISTS"))
    for found in table.rows("open"):
        text, code = _settle_row(plan, found.row)
        if text and table.settle(plan.ledger.read_new()):
            # Another batch may have published it since the ledger was read.
            text, code = _settle_row(plan, found.row)
        if text:
            table.add_problem(Problem(found.row.number, found.row.line, text, code))
    for found in table.rows("open", mine=True):
        num_changed += (choices.out_dir / found.row.output).exists()
    return num_changed


def _settle_row(plan: BatchPlan, row: BatchRow) -> tuple[str, str]:
    """Gives one row its state; why its video may not be written, and a code, or nothing."""
    try:
        state, code, error = judge(plan, row)
    except OSError:
        return "", ""  # it stays open, and fails alone when its turn comes
    if state != "open":
        plan.table.set_state(row.number, state, error_code=code, error=error)
    if state == "done":
        return "", ""
    return target_problem(
        plan.table, row, plan.choices.out_dir,
        overwrite=plan.choices.overwrite, may_replace=plan.may_replace,
    )  # fmt: skip


def _is_published(plan: BatchPlan, row: BatchRow, record: Any) -> bool:
    """Whether the video that the ledger speaks of has its name."""
    target = plan.choices.out_dir / row.output
    facts = record.get("facts") or {}
    try:
        if not target.is_file() or target.stat().st_size != facts.get("bytes"):
            return False
        # A run that died while publishing may have left an older video of the same size.
        known = record["state"] == "done"
        return known or plan.digests.digest(target).sha256 == facts.get("sha256")
    except OSError:
        return False
