"""The loop of a batch: claim a row, hand it to a worker, publish what comes back, write it down."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from joyflash_cli.batch.claims import LEASE_S, Claim, Claims, owners_in
from joyflash_cli.batch.jobs import Engine, Failure, Job, Outcome
from joyflash_cli.batch.ledger import Ledger
from joyflash_cli.batch.places import real_place
from joyflash_cli.batch.plan import BatchPlan, RowInputs, judge, known_videos
from joyflash_cli.batch.publish import (
    discard,
    keep_partial,
    make_folder,
    publish,
    remove_partial,
)
from joyflash_cli.batch.results import write_results
from joyflash_cli.batch.rows import BatchRow
from joyflash_cli.errors import JoyFlashError, OutputError

MAX_ATTEMPTS = 2
"""How often a row may take its worker with it before it counts as failed."""

WAKE_S = 0.5
LOOK_ELSEWHERE_S = 1.0
"""How often rows of other runs are looked at once there is nothing else to do."""

# A full disk would fail every row after this one; what it stopped is not the row's fault.
_FATAL_CODES = ("E-OUTPUT-FULL", "E-OUTPUT-SHARED")


@dataclass(frozen=True)
class BatchStatus:
    """How far a batch is; rows of other shards are not counted.

    Attributes:
        num_rows: Rows of this run's shard.
        num_done: Done, in this run or earlier.
        num_failed: Failed, in this run or earlier.
        num_rendered: Done by this run.
        num_running: Being rendered now.
        num_elsewhere: Being rendered by other runs now.
        video_s: Seconds of video this run has made.
        elapsed_s: Seconds since it began.
        num_idle: Loaded workers without a row.
        last: What has just ended: ``(id, output, failure or None)``.
    """

    num_rows: int
    num_done: int
    num_failed: int
    num_rendered: int
    num_running: int
    num_elsewhere: int
    video_s: float
    elapsed_s: float
    num_idle: int
    last: tuple[str, str, Failure | None] | None = None

    @property
    def num_open(self) -> int:
        """Rows that are neither done nor failed."""
        return self.num_rows - self.num_done - self.num_failed


@dataclass
class _Running:
    """A row that a worker has."""

    row: BatchRow
    claim: Claim
    inputs: RowInputs
    job: Job


class BatchRunner:
    """Runs a prepared batch once.

    Args:
        plan: From ``prepare_batch``.
        engine: Not started yet.
        lease_s: Silence after which another run would take over our rows.
        report: Called whenever a row ends, and about twice a second.
        should_stop: Asked about twice a second; true ends the run, rows being rendered stay open.
    """

    def __init__(
        self,
        plan: BatchPlan,
        engine: Engine,
        *,
        lease_s: float = LEASE_S,
        report: Callable[[BatchStatus], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self._plan = plan
        self._table = plan.table
        self._choices = plan.choices
        self._engine = engine
        self._claims = Claims(self._choices.state_dir, lease_s=lease_s)
        self._ledger = Ledger(plan.ledger.path, owner=self._claims.owner, host=self._claims.host)
        self._report = report or _nothing
        self._should_stop = should_stop or _never
        self._running: dict[int, _Running] = {}
        self._lost: deque[Job] = deque()
        self._after = 0
        self._looked_at = float("-inf")
        self._started = time.monotonic()
        self._num_rendered, self._video_s = 0, 0.0
        self._failed_now = plan.num_refused > 0
        self.stopped = False

    def run(self) -> BatchStatus:
        """Works until every row is done or failed, or it is told to stop.

        Raises:
            JoyFlashError: When nothing more can be done: workers that cannot load, a full disk.
        """
        plan = self._plan
        make_folder(self._choices.state_dir / "logs")
        self._claims.open()
        plan.digests.on_piece = self._claims.renew
        self._clean_up_after_others()
        for row in self._table.unconfirmed():
            settled = self._table.settled(row.output)
            if settled is not None:
                kept = ("key", "settings", "image", "audio", "facts", "attempt", "replaces")
                self._write(row, "done", {k: v for k, v in settled.record.items() if k in kept})
        try:
            self._loop()
        finally:
            self._close()
        write_results(self._table, self._choices.out_dir, mark=self._claims.owner)
        return self.status()

    def status(self, last: tuple[str, str, Failure | None] | None = None) -> BatchStatus:
        """How far it is."""
        return BatchStatus(
            num_rows=self._table.count(),
            num_done=self._table.count("done"),
            num_failed=self._table.count("failed"),
            num_rendered=self._num_rendered,
            num_running=len(self._running),
            num_elsewhere=self._table.count("elsewhere"),
            video_s=self._video_s,
            elapsed_s=time.monotonic() - self._started,
            num_idle=self._engine.num_idle,
            last=last,
        )

    def _loop(self) -> None:
        while not self.stopped:
            self._claims.renew()
            if self._should_stop():
                self.stopped = True
                return
            self._look_elsewhere()
            num_open = 0 if self._no_more() else self._table.count("open")
            if not self._running and not self._lost and not num_open:
                if self._no_more() or not self._table.count("elsewhere"):
                    return
                self._engine.stop()  # others have the last rows; their GPUs are theirs to keep
                time.sleep(WAKE_S)
            else:
                self._work(num_open)
            self._report(self.status())

    def _work(self, num_open: int) -> None:
        """Hands rows out and takes in what has ended."""
        if self._engine.num_workers == 0:
            self._engine.start(num_open + len(self._lost))
        while self._engine.num_idle:
            job = self._next_job()
            if job is None:
                break
            self._engine.submit(job)
        for outcome in self._engine.wait(WAKE_S):
            self._take_in(outcome)

    def _no_more(self) -> bool:
        """Whether no further row is to be begun."""
        return self._choices.fail_fast and self._failed_now

    def _next_job(self) -> Job | None:
        """A row for an idle worker: one whose worker died, or the next open one."""
        if self._lost:
            return self._lost.popleft()
        while not self._no_more():
            row = self._table.next_open(self._after)
            if row is None and self._after:
                self._after = 0  # rows that became open again stand further up
                row = self._table.next_open(0)
            if row is None:
                return None
            self._after = row.number
            job = self._claim(row)
            if job is not None:
                return job
        return None

    def _claim(self, row: BatchRow) -> Job | None:
        """The row as a job, or ``None`` if somebody else has it, had it, or it cannot be read."""
        claim = self._claims.take(_claim_name(row.output))
        if claim is None:
            self._table.set_state(row.number, "elsewhere")
            return None
        self._read_ledger()
        try:
            state, code, error = judge(self._plan, row)
            if state != "open":
                self._table.set_state(row.number, state, error_code=code, error=error)
                self._claims.release(claim)
                self._report(self.status())
                return None
            inputs = self._plan.inputs(row, self._table.settled(row.output))
        except OSError as error_:
            text = f"{error_.filename}: {error_.strerror or error_}"
            self._fail(row, claim, {"attempt": 1}, Failure("E-INPUT", text, 3))
            return None
        job = self._stage(row, inputs)
        self._running[row.number] = _Running(row, claim, inputs, job)
        self._table.set_state(row.number, "running")
        self._write(row, "started", {"key": inputs.key, "attempt": job.attempt})
        return job

    def _stage(self, row: BatchRow, inputs: RowInputs, attempt: int = 1) -> Job:
        """The job, with a folder of its own for what it writes."""
        folder = self._work_dir / f"{row.number}-{attempt}"
        discard(folder)
        make_folder(folder)
        return Job(
            number=row.number,
            id=row.id,
            image=row.image,
            audio=row.audio,
            staged=str(folder / Path(row.output).name),
            prompt=row.prompt,
            seed=row.seed,
            image_sha256=inputs.image.sha256,
            audio_sha256=inputs.audio.sha256,
            attempt=attempt,
        )

    def _take_in(self, outcome: Outcome) -> None:
        running = self._running[outcome.job.number]
        row, claim = running.row, running.claim
        if not self._claims.holds(claim):
            # This machine slept for longer than the lease, and somebody took the row over.
            self._forget(row)
            self._claims.release(claim)
            self._table.set_state(row.number, "elsewhere")
            return
        if outcome.kind == "done":
            self._finish(running, outcome)
            return
        failure = outcome.failure or Failure("E-INTERNAL", "no reason given")
        if failure.code in _FATAL_CODES:
            raise failure.to_error()
        if outcome.kind == "lost" and outcome.job.attempt < MAX_ATTEMPTS:
            self._write(row, "lost", {"attempt": outcome.job.attempt, "error": failure.text})
            discard(Path(outcome.job.staged).parent)
            running.job = self._stage(row, running.inputs, outcome.job.attempt + 1)
            self._lost.append(running.job)
            return
        if outcome.kind == "lost":
            failure = replace(failure, text=f"{failure.text}, {MAX_ATTEMPTS} times")
        self._fail_running(running, failure)

    def _finish(self, running: _Running, outcome: Outcome) -> None:
        """Publishes a finished video."""
        row, staged = running.row, Path(outcome.job.staged)
        record = {
            **running.inputs.to_record(), "facts": outcome.facts, "attempt": outcome.job.attempt
        }  # fmt: skip
        earlier = self._table.settled(row.output)
        record["replaces"] = self._known_videos(row)
        overwrite = self._plan.may_replace(row)
        self._write(row, "publishing", record)
        try:
            target = real_place(self._choices.out_dir, row.output)
            make_folder(target.parent)
            publish(staged, target, overwrite=overwrite)
            if earlier is not None and earlier.record.get("partial"):
                remove_partial(target)
        except JoyFlashError as error:
            if error.code in _FATAL_CODES:
                raise
            self._fail_running(running, Failure.of(error))
            return
        self._write(row, "done", record)
        self._num_rendered += 1
        self._video_s += float(outcome.facts.get("video_s") or 0.0)
        self._table.set_state(row.number, "done")
        self._end(row, running.claim, None)

    def _fail_running(self, running: _Running, failure: Failure) -> None:
        staged = Path(running.job.staged)
        target = self._choices.out_dir / running.row.output
        record = {**running.inputs.to_record(), "attempt": running.job.attempt, "partial": False}
        with contextlib.suppress(OutputError):  # the failure itself is what must be told
            place = real_place(self._choices.out_dir, running.row.output)
            record["partial"] = keep_partial(staged, place)
        text = failure.text.replace(str(staged.parent), str(target.parent))
        self._fail(running.row, running.claim, record, replace(failure, text=text))

    def _fail(self, row: BatchRow, claim: Claim, record: dict[str, Any], failure: Failure) -> None:
        record = {**record, "replaces": self._known_videos(row)}
        self._write(row, "failed", {**record, "code": failure.code, "error": failure.text})
        self._table.set_state(row.number, "failed", error_code=failure.code, error=failure.text)
        if failure.trace:
            log = self._choices.state_dir / "logs" / "bugs.log"
            with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as file:
                file.write(f"row {row.number}, id {row.id}\n{failure.trace}\n")
        self._failed_now = True
        self._end(row, claim, failure)

    def _known_videos(self, row: BatchRow) -> list[list[str]]:
        """What earlier runs made in the row's place."""
        settled = self._table.settled(row.output)
        return [] if settled is None else known_videos(settled.record)

    def _end(self, row: BatchRow, claim: Claim, failure: Failure | None) -> None:
        """Clears up behind a row whose end is in the ledger."""
        self._forget(row)
        self._claims.release(claim)
        self._read_ledger()
        self._report(self.status((row.id, row.output, failure)))

    def _forget(self, row: BatchRow) -> None:
        running = self._running.pop(row.number, None)
        if running is not None:
            discard(Path(running.job.staged).parent)

    def _look_elsewhere(self) -> None:
        """Takes back rows whose other run has ended or died, and settles those it has finished."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_ELSEWHERE_S or not self._table.count("elsewhere"):
            return
        self._looked_at = now
        self._read_ledger()
        for found in self._table.rows("elsewhere", mine=True):
            if not self._claims.is_free(_claim_name(found.row.output)):
                continue
            self._table.set_state(found.row.number, "open")

    def _read_ledger(self) -> None:
        self._table.settle(self._plan.ledger.read_new())

    def _write(self, row: BatchRow, state: str, record: dict[str, Any]) -> None:
        head = {"state": state, "row": row.number, "id": row.id, "output": row.output}
        self._ledger.append({**head, **record})

    @property
    def _work_dir(self) -> Path:
        return self._choices.state_dir / "work" / self._claims.owner

    def _clean_up_after_others(self) -> None:
        """Removes what runs that are gone have left."""
        for folder in owners_in(self._choices.state_dir / "work"):
            if self._claims.is_dead(folder.name, folder):
                discard(folder)
        with contextlib.suppress(OSError):
            self._claims.clean()

    def _close(self) -> None:
        """Leaves a folder in which the next run can go on; errors on the way change nothing."""
        self._engine.stop()
        for running in self._running.values():
            with contextlib.suppress(JoyFlashError):
                self._write(running.row, "released", {"attempt": running.job.attempt})
            self._table.set_state(running.row.number, "open")
        self._running.clear()
        discard(self._work_dir)
        with contextlib.suppress(OSError):
            self._claims.close()


def _claim_name(output: str) -> str:
    return hashlib.sha256(output.encode()).hexdigest()[:32]


def _nothing(_status: BatchStatus) -> None:
    pass


def _never() -> bool:
    return False
