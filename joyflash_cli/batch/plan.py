"""What a batch comes to, before any weights are loaded: rows checked, and what is done already."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from joyflash_cli.batch.checks import RowRules, check_row
from joyflash_cli.batch.digests import KEY_FORMAT, FileDigests, key_of
from joyflash_cli.batch.ledger import Ledger
from joyflash_cli.batch.manifest import read_rows
from joyflash_cli.batch.places import InputFiles, shared_places, target_problem
from joyflash_cli.batch.results import RESULT_FILES
from joyflash_cli.batch.rows import (
    STATE_FOLDER,
    Problem,
    Row,
    Rows,
    Shard,
    State,
    printable,
    same_everywhere,
)
from joyflash_cli.errors import OutputError, UsageError

LEDGER_FILE = "ledger.jsonl"
MAX_TOLD = 1000
"""Problems told in one message; all of them are counted."""

MAX_TOLD_ROWS = 20
"""Rows of one value that are told."""


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


@dataclass
class BatchPlan:
    """A checked batch.

    Attributes:
        choices: As given.
        rows: Every row with its state.
        ledger: Read to ``start``.
        start: Byte at which the ledger ended when the plan was made.
        digests: Remembers what was hashed.
        num_changed: Rows whose inputs have changed since this folder's batch made their videos.
        refused: Rows of this run's shard that cannot be begun; they have failed.
        notes: What of the manifest is left out.
    """

    choices: BatchChoices
    rows: Rows
    ledger: Ledger
    start: int = 0
    digests: FileDigests = field(default_factory=FileDigests)
    num_changed: int = 0
    refused: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()

    def inputs(self, row: Row) -> dict[str, Any]:
        """What a row's video is made of, as it stands in the ledger.

        Files that are as the ledger knows them are not read again.

        Returns:
            ``key`` of everything that decides the video, ``settings`` of what all rows have in
            common, and ``image`` and ``audio``, each a ``FileDigest``.

        Raises:
            OSError: If a file cannot be read.
        """
        known = self.ledger.last(row.output) or {}
        image = self.digests.digest(row.image_path, known.get("image"))
        audio = self.digests.digest(row.audio_path, known.get("audio"))
        values = {
            "format": KEY_FORMAT,
            "image": image.sha256,
            "audio": audio.sha256,
            "seed": row.seed,
            "prompt": row.prompt,
            "suffix": Path(row.output).suffix.lower(),
            "settings": self.settings,
        }
        return {"key": key_of(values), "settings": self.settings, "image": image, "audio": audio}

    @property
    def settings(self) -> str:
        """SHA-256 of weights and parameters."""
        return key_of({"weights": self.choices.weights_sha256, **self.choices.parameters})

    def known_videos(self, row: Row) -> list[list[str]]:
        """Videos that earlier runs made at the row's place, each ``[settings, sha256]``.

        A line about a video that was to replace another knows both: a run may have died in
        between, or the new one may have failed.
        """
        record = self.ledger.last(row.output) or {}
        sha256 = (record.get("facts") or {}).get("sha256")
        own = [[record.get("settings", ""), sha256]] if sha256 else []
        return [*own, *(record.get("replaces") or [])][:2]

    def may_replace(self, row: Row) -> bool:
        """Whether what lies at the row's place may go when the new video is there.

        A batch brings its own videos up to date: a video that it made there, with these weights and
        parameters, and that nobody has changed since. Anything else stays unless the user says
        otherwise.
        """
        known = self.known_videos(row)
        if self.choices.overwrite or not known:
            return self.choices.overwrite
        try:
            digest = self.digests.digest(self.choices.out_dir / row.output)
        except OSError:
            return False
        return [self.settings, digest.sha256] in known

    def judge(self, row: Row) -> tuple[State, str, str]:
        """Where a row stands by the ledger: its state, and the code and text of a failure.

        Raises:
            OSError: If one of its files cannot be read.
        """
        record = self.ledger.last(row.output)
        if record is None or self.inputs(row)["key"] != record.get("key"):
            return "open", "", ""
        if record["state"] == "failed":
            # A failure of this very run, seen by another, is not one to try again.
            is_old = self.ledger.last_position(row.output) < self.start
            if self.choices.retry_failed and is_old:
                return "open", "", ""
            return "failed", str(record.get("code", "")), str(record.get("error", ""))
        return ("done" if self._is_published(row, record) else "open"), "", ""

    def _is_published(self, row: Row, record: Mapping[str, Any]) -> bool:
        """Whether the video that the ledger speaks of has its name."""
        target = self.choices.out_dir / row.output
        facts = record.get("facts") or {}
        try:
            if not target.is_file() or target.stat().st_size != facts.get("bytes"):
                return False
            # A run that died while publishing may have left an older video of the same size.
            known = record["state"] == "done"
            return known or self.digests.digest(target).sha256 == facts.get("sha256")
        except OSError:
            return False


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

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems[:MAX_TOLD])
        self.count = len(problems)
        codes = {problem.code for problem in problems}
        told = "; ".join(str(problem) for problem in self.problems)
        num_more = self.count - len(self.problems)
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
    notes: list[str] = []
    rows = Rows(_checked(manifest, name, choices.shard, rules, notes))
    plan = BatchPlan(
        choices,
        rows,
        Ledger(choices.state_dir / LEDGER_FILE),
        refused=tuple(rows.mine("failed")),
        notes=tuple(notes),
    )
    plan.ledger.read_new()
    plan.start = plan.ledger.position
    problems = [*_repeated_values(rows), *shared_places(rows, choices.out_dir)]
    if choices.out_dir.is_dir():
        problems += compare_with_folder(plan, InputFiles(rows, manifest))
        plan.num_changed = sum((choices.out_dir / row.output).exists() for row in rows.mine("open"))
    if problems:
        raise BatchProblems(name, sorted(problems, key=lambda problem: problem.number))
    if not len(rows):
        raise UsageError(
            f"{name} has no rows", hint="add one line for each video", code="E-MANIFEST"
        )
    return plan


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
    manifest: BinaryIO, name: str, shard: Shard, rules: RowRules, notes: list[str]
) -> Iterator[Row]:
    for raw in read_rows(manifest, name, note=notes.append):
        row = check_row(raw, rules)
        row.mine = shard.has(row.number)
        yield row


def _repeated_values(rows: Rows) -> Iterator[Problem]:
    for group in rows.repeated(lambda row: row.id):
        yield _repeated("id", group[0].id, group)
    for group in rows.repeated(lambda row: same_everywhere(row.output)):
        # Rows of one id share the default output; telling it once is enough.
        if len({row.id for row in group}) > 1:
            outputs = list(dict.fromkeys(row.output for row in group))
            also = f", one file with {outputs[1]!r} on some systems," if outputs[1:] else ""
            yield _repeated("output", outputs[0], group, also)


def _repeated(column: str, value: str, group: list[Row], also: str = "") -> Problem:
    told = group[:MAX_TOLD_ROWS]
    numbers = ", ".join(str(row.number) for row in told)
    lines = ", ".join(str(row.line) for row in told)
    text = f"{column} {value!r}{also} stands in rows {numbers} (lines {lines})"
    return Problem(group[0].number, group[0].line, printable(text))


def compare_with_folder(plan: BatchPlan, inputs: InputFiles) -> Iterator[Problem]:
    """Gives every row its state by the ledger; targets that are something else are problems."""
    choices = plan.choices
    foreign = not choices.state_dir.is_dir() and not choices.overwrite
    for path in (choices.out_dir / name for name in RESULT_FILES):
        if path in inputs:
            text = f"{path} is read by this batch, which would write a file of that name"
            yield Problem(0, 0, printable(text), "E-OUTPUT-INPUT")
        elif foreign and os.path.lexists(path):
            text = f"{path} exists already, and no batch wrote it"
            yield Problem(0, 0, printable(text), "E-OUTPUT-EXISTS")
    for row in plan.rows:
        if row.state != "open":
            continue
        text, code = settle_row(plan, row, inputs)
        if text and plan.ledger.read_new():
            # Another batch may have published it since the ledger was read.
            text, code = settle_row(plan, row, inputs)
        if text:
            yield Problem(row.number, row.line, printable(text), code)


def settle_row(plan: BatchPlan, row: Row, inputs: InputFiles) -> tuple[str, str]:
    """Gives one row its state; why its video may not be written, and a code, or nothing."""
    try:
        state, code, error = plan.judge(row)
    except OSError:
        return "", ""  # it stays open, and fails alone when its turn comes
    if state != "open":
        plan.rows.set_state(row, state, error_code=code, error=error)
    if state == "done":
        return "", ""
    is_ours = plan.ledger.last(row.output) is not None
    return target_problem(
        row, plan.choices.out_dir, inputs, is_ours=is_ours, may_replace=plan.may_replace
    )
