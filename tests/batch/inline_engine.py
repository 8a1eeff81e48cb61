"""An engine without processes: jobs run where they are submitted."""

import time

from joyflash_cli.batch.jobs import WORKER_DIED, Failure, Job, Outcome, run_job


class InlineEngine:
    """One worker in this process; ``lose`` names rows whose worker is said to have died."""

    max_workers = 1

    def __init__(self, load, *, lose=(), on_submit=None) -> None:
        self._load = load
        self._lose = list(lose)
        self._on_submit = on_submit
        self._renderer = None
        self._ready: list[Outcome] = []
        self.num_workers = 0
        self.num_starts = 0

    @property
    def num_idle(self) -> int:
        return int(self._renderer is not None and not self._ready)

    def start(self, num_workers: int) -> None:
        self.num_workers, self.num_starts = 1, self.num_starts + 1
        self._renderer = self._load("cpu")

    def submit(self, job: Job) -> None:
        if self._on_submit is not None:
            self._on_submit(job)
        if job.row.id in self._lose:
            self._lose.remove(job.row.id)
            failure = Failure(WORKER_DIED, "the worker died", 5)
            self._ready.append(Outcome(job, failure=failure))
        else:
            self._ready.append(run_job(self._renderer, job))

    def wait(self, timeout_s: float) -> list[Outcome]:
        ready, self._ready = self._ready, []
        if not ready:
            time.sleep(min(timeout_s, 0.01))
        return ready

    def stop(self) -> None:
        self._renderer, self.num_workers = None, 0

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
