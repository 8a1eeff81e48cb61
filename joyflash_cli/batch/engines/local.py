"""Worker processes of this machine, one per device."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path

from joyflash_cli.batch.engines.engine import Engine, WorkerGoneError
from joyflash_cli.batch.engines.worker_process import serve
from joyflash_cli.batch.jobs import Failure, Job, Outcome, RendererFactory
from joyflash_cli.errors import DeviceError

MAX_LOADING_DEATHS = 2


class LocalWorker:
    """A process of this machine and the pipe to it.

    It is spawned, not forked: a forked process could not use CUDA, and would inherit whatever the
    parent had half done.

    Args:
        load: Makes its renderer.
        device: Handed to ``load``.
        log: Takes what libraries print; ``None`` throws it away.
    """

    def __init__(self, load: RendererFactory, device: str, log: Path | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.has_gpu = device.startswith("cuda")
        self._log = log
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=serve,
            args=(theirs, load, device),
            kwargs={"log": log},
        )  # no daemon: those may not begin the processes of several GPUs
        self._process.start()
        theirs.close()  # so that its death ends the pipe

    def send(self, job: Job) -> None:
        """Hands it a job; see ``Worker``."""
        with contextlib.suppress(OSError):  # it has just died, which `receive` will notice
            self.pipe.send(job)

    def receive(self) -> Outcome | Failure | None:
        """Its answer; see ``Worker``."""
        try:
            answer: Outcome | Failure | None = self.pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode or 0
            how = f"was killed by signal {-code}" if code < 0 else f"died ({code})"
            raise WorkerGoneError(f"the worker {how}") from error
        return answer

    def kill(self) -> None:
        """Ends it; see ``Worker``."""
        self._process.kill()

    def join(self) -> None:
        """Waits for its end; see ``Worker``. A log without content goes."""
        self._process.join()
        self.pipe.close()
        if self._log is not None and self._log.is_file() and self._log.stat().st_size == 0:
            self._log.unlink()


def local_engine(
    load: RendererFactory,
    *,
    devices: Sequence[str],
    logs: Path | None = None,
    name: str = "worker",
) -> Engine:
    """An engine of processes of this machine.

    Args:
        load: Makes the renderer of a worker; must be importable.
        devices: One for each worker.
        logs: Folder for what libraries print; ``None`` throws it away.
        name: Begins the names of the logs.
    """

    def start(index: int) -> LocalWorker:
        log = None if logs is None else logs / f"{name}-{index}.log"
        return LocalWorker(load, devices[index], log)

    def ready(workers: Sequence[LocalWorker], timeout_s: float) -> list[LocalWorker]:
        by_pipe: dict[object, LocalWorker] = {worker.pipe: worker for worker in workers}
        pipes = wait([worker.pipe for worker in workers], timeout_s)
        return [by_pipe[pipe] for pipe in pipes]

    return Engine(
        start,
        ready,
        max_workers=len(devices),
        max_loading_deaths=MAX_LOADING_DEATHS,
        cannot_load=lambda _: DeviceError(
            "no worker could load the model: each process was killed",
            hint="free some memory or give a smaller --workers",
            code="E-DEVICE-WORKER",
        ),
    )
