"""The loop of a batch: claim a row, hand it to a worker, publish what comes back, write it down."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from joyflash_cli.batch.arrivals import Arrivals
from joyflash_cli.batch.claims import LEASE_S, Claim, Claims
from joyflash_cli.batch.engines.engine import Engine
from joyflash_cli.batch.jobs import Failure, Job, Outcome
from joyflash_cli.batch.places import real_place
from joyflash_cli.batch.plan import BatchPlan
from joyflash_cli.batch.publish import (
    discard,
    keep_partial,
    make_folder,
    publish,
    remove_partial,
)
from joyflash_cli.batch.results import write_results
from joyflash_cli.batch.rows import Row
from joyflash_cli.errors import JoyFlashError, OutputError, UsageError

MAX_ATTEMPTS = 2
"""How often a row may take its worker with it before it counts as failed."""

WAKE_S = 0.5
SOON_S = 0.05
"""The same while rows come one by one."""

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
        facts: Of a video that has just been made.
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
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_open(self) -> int:
        """Rows that are neither done nor failed."""
        return self.num_rows - self.num_done - self.num_failed


class BatchRunner:
    """Runs a prepared batch once.

    Args:
        plan: From ``prepare_batch``.
        engine: Not started yet.
        arrivals: Rows that still come; workers are loaded and wait for them.
        lease_s: Silence after which another run would take over our rows.
        report: Called whenever a row ends, and about twice a second.
        should_stop: Asked about twice a second; true ends the run, rows being rendered stay open.
    """

    def __init__(
        self,
        plan: BatchPlan,
        engine: Engine,
        *,
        arrivals: Arrivals | None = None,
        lease_s: float = LEASE_S,
        report: Callable[[BatchStatus], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self._plan = plan
        self._rows = plan.rows
        self._choices = plan.choices
        self._engine = engine
        self._arrivals = arrivals
        self._claims = Claims(self._choices.state_dir, lease_s=lease_s)
        self._report = report or (lambda _: None)
        self._should_stop = should_stop or (lambda: False)
        self._open = deque(plan.rows.mine("open"))
        self._lost: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._looked_at = float("-inf")
        self._started = time.monotonic()
        self._num_rendered, self._video_s = 0, 0.0
        self._failed_now = bool(plan.refused)
        self.stopped = False

    def run(self) -> BatchStatus:
        """Works until every row is done or failed, or it is told to stop.

        Raises:
            JoyFlashError: When nothing more can be done: workers that cannot load, a full disk.
        """
        make_folder(self._choices.state_dir / "logs")
        self._claims.open()
        self._plan.digests.on_piece = self._claims.renew
        self._clean_up_after_others()
        self._confirm_published()
        try:
            self._loop()
        finally:
            self._close()
        write_results(self._rows, self._plan.ledger, self._choices.out_dir, mark=self._claims.owner)
        return self.status()

    def status(self, last: tuple[str, str, Failure | None] | None = None) -> BatchStatus:
        """How far it is."""
        return BatchStatus(
            num_rows=self._rows.count(),
            num_done=self._rows.count("done"),
            num_failed=self._rows.count("failed"),
            num_rendered=self._num_rendered,
            num_running=len(self._running),
            num_elsewhere=self._rows.count("elsewhere"),
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
            self._welcome()
            num_open = 0 if self._no_more() else len(self._open)
            if self._arrivals is not None and not self._arrivals.ended and not self._no_more():
                self._work(self._engine.max_workers)
            elif not self._running and not num_open:
                if self._no_more() or not self._rows.count("elsewhere"):
                    return
                self._engine.stop()  # others have the last rows; their GPUs are theirs to keep
                time.sleep(WAKE_S)
            else:
                self._work(num_open + len(self._lost))
            self._report(self.status())

    def _work(self, num_jobs: int) -> None:
        """Hands rows out and takes in what has ended."""
        if self._engine.num_workers == 0:
            self._engine.start(num_jobs)
        while self._engine.num_idle:
            job = self._next_job()
            if job is None:
                break
            self._engine.submit(job)
        for outcome in self._engine.wait(WAKE_S if self._arrivals is None else SOON_S):
            self._take_in(outcome)

    def _welcome(self) -> None:
        """Takes in rows that have come, and tells of those that need no worker."""
        for row in [] if self._arrivals is None else self._arrivals.take():
            if row.state == "open":
                self._open.append(row)
                continue
            failure = None
            if row.state == "failed":
                self._failed_now = True
                failure = Failure(row.error_code, row.error, UsageError.exit_code)
            self._report(self.status((row.id, row.output, failure)))

    def _no_more(self) -> bool:
        """Whether no further row is to be begun."""
        return self._choices.fail_fast and self._failed_now

    def _next_job(self) -> Job | None:
        """A row for an idle worker: one whose worker died, or the next open one."""
        if self._lost:
            return self._lost.popleft()
        while self._open and not self._no_more():
            job = self._claim(self._open.popleft())
            if job is not None:
                return job
        return None

    def _claim(self, row: Row) -> Job | None:
        """The row as a job, or ``None`` if somebody else has it, had it, or it cannot be read."""
        claim = self._claims.take(_claim_name(row.output))
        if claim is None:
            self._rows.set_state(row, "elsewhere")
            return None
        self._plan.ledger.read_new()
        try:
            state, code, error = self._plan.judge(row)
            if state != "open":
                self._rows.set_state(row, state, error_code=code, error=error)
                self._claims.release(claim)
                self._report(self.status())
                return None
            inputs = self._plan.inputs(row)
        except OSError as error_:
            text = f"{error_.filename}: {error_.strerror or error_}"
            self._fail(row, claim, {"attempt": 1}, Failure("E-INPUT", text, 3))
            return None
        job = self._stage(row, inputs, claim, attempt=1)
        self._rows.set_state(row, "running")
        self._write(row, "started", {"key": inputs["key"], "attempt": job.attempt})
        return job

    def _stage(self, row: Row, inputs: Mapping[str, Any], claim: Claim, *, attempt: int) -> Job:
        """The job, with a folder of its own for what it writes."""
        folder = self._work_dir / f"{row.number}-{attempt}"
        discard(folder)
        make_folder(folder)
        job = Job(row, folder / Path(row.output).name, inputs, claim, attempt)
        self._running[row.number] = job
        return job

    def _take_in(self, outcome: Outcome) -> None:
        job = self._running[outcome.job.row.number]
        row, failure = job.row, outcome.failure
        if not self._claims.holds(job.claim):
            # This machine slept for longer than the lease, and somebody took the row over.
            self._forget(row)
            self._claims.release(job.claim)
            self._rows.set_state(row, "elsewhere")
        elif failure is None:
            self._finish(job, outcome.facts)
        elif failure.code in _FATAL_CODES:
            raise failure.to_error()
        elif outcome.is_lost and job.attempt < MAX_ATTEMPTS:
            self._write(row, "lost", {"attempt": job.attempt, "error": failure.text})
            discard(job.staged.parent)
            again = self._stage(row, job.inputs, job.claim, attempt=job.attempt + 1)
            self._lost.append(again)
        else:
            if outcome.is_lost:
                failure = replace(failure, text=f"{failure.text}, {MAX_ATTEMPTS} times")
            self._fail_job(job, failure)

    def _finish(self, job: Job, facts: Mapping[str, Any]) -> None:
        """Publishes a finished video."""
        row = job.row
        earlier = self._plan.ledger.last(row.output) or {}
        record = {
            **job.inputs,
            "facts": facts,
            "attempt": job.attempt,
            "replaces": self._plan.known_videos(row),
        }
        overwrite = self._plan.may_replace(row)
        self._write(row, "publishing", record)
        try:
            target = real_place(self._choices.out_dir, row.output)
            make_folder(target.parent)
            publish(job.staged, target, overwrite=overwrite)
            if earlier.get("partial"):
                remove_partial(target)
        except JoyFlashError as error:
            if error.code in _FATAL_CODES:
                raise
            self._fail_job(job, Failure.of(error))
            return
        self._write(row, "done", record)
        self._num_rendered += 1
        self._video_s += float(facts.get("video_s") or 0.0)
        self._rows.set_state(row, "done")
        self._end(row, job.claim, None, facts)

    def _fail_job(self, job: Job, failure: Failure) -> None:
        target = self._choices.out_dir / job.row.output
        record = {**job.inputs, "attempt": job.attempt, "partial": False}
        with contextlib.suppress(OutputError):  # the failure itself is what must be told
            place = real_place(self._choices.out_dir, job.row.output)
            record["partial"] = keep_partial(job.staged, place)
        text = failure.text.replace(str(job.staged.parent), str(target.parent))
        self._fail(job.row, job.claim, record, replace(failure, text=text))

    def _fail(self, row: Row, claim: Claim, record: dict[str, Any], failure: Failure) -> None:
        text = failure.text  # paths as the manifest has them: results are passed on
        for path, given in ((row.image_path, row.image), (row.audio_path, row.audio)):
            text = text.replace(str(path), given)
        failure = replace(failure, text=text)
        record = {**record, "replaces": self._plan.known_videos(row)}
        self._write(row, "failed", {**record, "code": failure.code, "error": failure.text})
        self._rows.set_state(row, "failed", error_code=failure.code, error=failure.text)
        if failure.trace:
            log = self._choices.state_dir / "logs" / "bugs.log"
            with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as file:
                file.write(f"row {row.number}, id {row.id}\n{failure.trace}\n")
        self._failed_now = True
        self._end(row, claim, failure)

    def _end(
        self,
        row: Row,
        claim: Claim,
        failure: Failure | None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Clears up behind a row whose end is in the ledger."""
        self._forget(row)
        self._claims.release(claim)
        self._plan.ledger.read_new()
        self._report(replace(self.status((row.id, row.output, failure)), facts=facts or {}))

    def _forget(self, row: Row) -> None:
        job = self._running.pop(row.number, None)
        if job is not None:
            discard(job.staged.parent)

    def _look_elsewhere(self) -> None:
        """Takes back rows whose other run has ended or died, and settles those it has finished."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_ELSEWHERE_S or not self._rows.count("elsewhere"):
            return
        self._looked_at = now
        for row in self._rows.mine("elsewhere"):
            if self._claims.is_free(_claim_name(row.output)):
                self._rows.set_state(row, "open")
                self._open.append(row)

    def _confirm_published(self) -> None:
        """Says of videos that got their names in a run that died then that they are done."""
        kept = ("key", "settings", "image", "audio", "facts", "attempt", "replaces")
        for row in self._rows:
            if row.state == "done" and self._plan.ledger.last_state(row.output) == "publishing":
                record = self._plan.ledger.last(row.output) or {}
                self._write(row, "done", {k: v for k, v in record.items() if k in kept})

    def _write(self, row: Row, state: str, record: dict[str, Any]) -> None:
        head = {"state": state, "row": row.number, "id": row.id, "output": row.output}
        self._plan.ledger.append(
            {**head, **record}, owner=self._claims.owner, host=self._claims.host
        )

    @property
    def _work_dir(self) -> Path:
        return self._choices.state_dir / "work" / self._claims.owner

    def _clean_up_after_others(self) -> None:
        """Removes what runs that are gone have left."""
        for folder in (self._choices.state_dir / "work").glob("*/"):
            if self._claims.is_dead(folder.name, folder):
                discard(folder)
        with contextlib.suppress(OSError):
            self._claims.clean()

    def _close(self) -> None:
        """Leaves a folder in which the next run can go on; errors on the way change nothing."""
        self._engine.stop()
        if self._arrivals is not None:
            self._arrivals.close()
        for job in self._running.values():
            with contextlib.suppress(JoyFlashError):
                self._write(job.row, "released", {"attempt": job.attempt})
            self._rows.set_state(job.row, "open")
        self._running.clear()
        discard(self._work_dir)
        with contextlib.suppress(OSError):
            self._claims.close()


def _claim_name(output: str) -> str:
    return hashlib.sha256(output.encode()).hexdigest()[:32]
