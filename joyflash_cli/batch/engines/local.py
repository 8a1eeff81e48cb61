"""Worker processes of this machine, one per device."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

from joyflash_cli.batch.engines.worker_process import serve
from joyflash_cli.batch.jobs import WORKER_DIED, Failure, Job, Outcome, RendererFactory
from joyflash_cli.errors import DeviceError

MAX_LOADING_DEATHS = 2
"""A worker that dies this often in a row before its model is loaded is given up."""


class _Slot:
    """A device and the process that works on it now.

    Args:
        device: Handed to the process.
        log: Its log, or ``None``.
    """

    def __init__(self, device: str, log: Path | None) -> None:
        self.device = device
        self.log = log
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None
        self.job: Job | None = None
        self.loaded = False
        self.loading_deaths = 0

    def clear(self) -> None:
        """Forgets the process."""
        if self.pipe is not None:
            self.pipe.close()
        self.process, self.pipe, self.job, self.loaded = None, None, None, False


class LocalEngine:
    """Runs jobs in processes of this machine; see ``Engine``.

    Processes are spawned, not forked: a forked process could not use CUDA, and would inherit
    whatever the parent had half done.

    Args:
        load: Makes the renderer of a worker; must be importable.
        devices: One for each worker.
        logs: Folder for what libraries print; ``None`` throws it away.
        name: Begins the names of the logs.
    """

    def __init__(
        self,
        load: RendererFactory,
        *,
        devices: Sequence[str],
        logs: Path | None = None,
        name: str = "worker",
    ) -> None:
        self._load = load
        self._context = multiprocessing.get_context("spawn")
        self._slots = [
            _Slot(device, None if logs is None else logs / f"{name}-{index}.log")
            for index, device in enumerate(devices)
        ]
        self._active: list[_Slot] = []

    @property
    def num_idle(self) -> int:
        """Loaded workers without a job."""
        return sum(slot.loaded and slot.job is None for slot in self._active)

    @property
    def num_workers(self) -> int:
        """Workers that were asked for."""
        return len(self._active)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process numbers of the workers that run."""
        return tuple(s.process.pid for s in self._active if s.process and s.process.pid)

    def start(self, num_workers: int) -> None:
        """Starts processes on the first devices; see ``Engine.start``."""
        self._active = self._slots[: max(1, num_workers)]
        for slot in self._active:
            if slot.process is None:
                self._start(slot)

    def submit(self, job: Job) -> None:
        """Hands a job to an idle worker; see ``Engine.submit``."""
        slot = next(slot for slot in self._active if slot.loaded and slot.job is None)
        slot.job = job
        with contextlib.suppress(OSError):  # it has just died, which `wait` will notice
            _pipe_of(slot).send(job)

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcomes of jobs; see ``Engine.wait``."""
        slots = {_pipe_of(slot): slot for slot in self._active if slot.pipe is not None}
        if not slots:
            raise DeviceError(
                "no worker could load the model: each process was killed",
                hint="free some memory or give a smaller --workers",
                code="E-DEVICE-WORKER",
            )
        outcomes: list[Outcome] = []
        for pipe in wait(list(slots), timeout_s):
            self._hear(slots[pipe], outcomes)  # type: ignore[index]
        return outcomes

    def stop(self) -> None:
        """Kills the processes; see ``Engine.stop``."""
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
        for slot in self._slots:
            if slot.process is not None:
                slot.process.join()
            slot.clear()
            if slot.log is not None and slot.log.is_file() and slot.log.stat().st_size == 0:
                slot.log.unlink()
        self._active = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, slot: _Slot) -> None:
        ours, theirs = self._context.Pipe()
        slot.process = self._context.Process(
            target=serve,
            args=(theirs, self._load, slot.device),
            kwargs={"log": slot.log, "parent": os.getpid()},
            daemon=True,
        )
        slot.process.start()
        theirs.close()  # so that its death ends the pipe
        slot.pipe = ours

    def _hear(self, slot: _Slot, outcomes: list[Outcome]) -> None:
        """Takes in what a worker says, or that it is gone."""
        try:
            message = _pipe_of(slot).recv()
        except (EOFError, OSError):
            self._bury(slot, outcomes)
            return
        if isinstance(message, Outcome):
            slot.job = None
            outcomes.append(message)
            if message.may_spoil_gpu and slot.device.startswith("cuda") and slot.process:
                slot.process.kill()
                slot.process.join()
                slot.clear()
                self._start(slot)
        elif isinstance(message, Failure):
            raise message.to_error()
        else:
            slot.loaded, slot.loading_deaths = True, 0

    def _bury(self, slot: _Slot, outcomes: list[Outcome]) -> None:
        """Replaces a worker that died; its job is lost."""
        process, job, was_loaded = slot.process, slot.job, slot.loaded
        text = "the worker died"
        if process is not None:
            process.join()
            code = process.exitcode or 0
            text = f"the worker was killed by signal {-code}" if code < 0 else f"{text} ({code})"
        slot.clear()
        if job is not None:
            outcomes.append(Outcome(job, failure=Failure(WORKER_DIED, text, 5)))
        slot.loading_deaths += not was_loaded
        if slot.loading_deaths < MAX_LOADING_DEATHS:
            self._start(slot)


def _pipe_of(slot: _Slot) -> Connection:
    if slot.pipe is None:
        raise ValueError("the worker is not running")
    return slot.pipe
