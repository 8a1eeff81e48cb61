"""One row on its way through a worker: what goes in, what comes out, whatever the engine."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from joyflash_cli.batch.claims import Claim
from joyflash_cli.batch.rows import Row
from joyflash_cli.errors import JoyFlashError
from joyflash_cli.files import is_disk_full, room_hint, write_reason

WORKER_DIED = "E-WORKER-DIED"


@dataclass(frozen=True)
class Job:
    """A row for a worker; plain values only, since it may travel to another machine.

    Attributes:
        row: As checked; its number names the job.
        staged: Where the worker writes the video: a folder of this attempt alone.
        inputs: What the video is made of, see ``BatchPlan.inputs``.
        claim: The run's own, on the row.
        attempt: 1, or 2 after a worker died.
    """

    row: Row
    staged: Path
    inputs: Mapping[str, Any]
    claim: Claim
    attempt: int = 1


@dataclass(frozen=True)
class Failure:
    """An error that can travel between processes.

    Attributes:
        code: Stable identifier.
        text: One line, the next step included.
        exit_code: Of the program, if this ends it.
        trace: Traceback of a bug, empty for other errors.
    """

    code: str
    text: str
    exit_code: int = 1
    trace: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """What an exception says; a traceback only where it is no mistake of the user's."""
        if isinstance(error, JoyFlashError):
            return cls(error.code, " ".join(str(error).split()), error.exit_code)
        if is_disk_full(error):
            hint = f"{room_hint(error)} and run the same command again"
            return cls("E-OUTPUT-FULL", f"{write_reason(error)} (hint: {hint})", 6)
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        trace = "".join(traceback.format_exception(error))
        return cls("E-INTERNAL", " ".join(what.split()), 1, trace)

    def to_error(self) -> JoyFlashError:
        """The error to raise in another process."""
        error = JoyFlashError(self.text, code=self.code)
        error.exit_code = self.exit_code
        return error


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the video is staged, or there is a failure.

    Attributes:
        job: Which one.
        facts: Of a finished video: its SHA-256, size, length, times.
        failure: Why there is none.
    """

    job: Job
    facts: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the worker died under the job, which may succeed elsewhere."""
        return self.failure is not None and self.failure.code == WORKER_DIED

    @property
    def may_spoil_gpu(self) -> bool:
        """Whether a worker with a GPU should begin anew: after some errors nothing works there."""
        return self.failure is not None and self.failure.exit_code in (1, 5)


class RowRenderer(Protocol):
    """A loaded model that renders one job after the other."""

    def render(self, job: Job) -> dict[str, Any]:
        """Writes ``job.staged`` and the record beside it; facts for the ledger and the results.

        Raises:
            JoyFlashError: When this row cannot be rendered.
        """
        ...


RendererFactory = Callable[[str], RowRenderer]
"""Loads a model on a device; called once in each worker, so it must be importable there."""


def run_job(renderer: RowRenderer, job: Job) -> Outcome:
    """One job in a worker; every error of the row becomes its outcome."""
    try:
        facts = renderer.render(job)
    except Exception as error:  # noqa: BLE001 - one row's bug must not take the others with it
        return Outcome(job, failure=Failure.of(error))
    return Outcome(job, {**facts, "host": socket.gethostname(), "pid": os.getpid()})
