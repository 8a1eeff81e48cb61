"""What every engine does alike: jobs handed to idle workers, workers that died replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from joyflash_cli.batch.jobs import WORKER_DIED, Failure, Job, Outcome
from joyflash_cli.errors import DeviceError


class WorkerGoneError(Exception):
    """A worker has died; the text says how."""


class Worker(Protocol):
    """A worker that was started. It answers once when it has loaded, and once to each job."""

    has_gpu: bool
    """Whether some errors spoil its device for all that follows."""

    def send(self, job: Job) -> None:
        """Hands it a job; whether it still lives is found out by ``receive``."""
        ...

    def receive(self) -> Outcome | Failure | None:
        """Its answer: ``None`` or a ``Failure`` to load, then the outcome of its job.

        Raises:
            WorkerGoneError: If it has died.
        """
        ...

    def kill(self) -> None:
        """Ends it whatever it does, without waiting for that."""
        ...

    def join(self) -> None:
        """Returns when it is gone."""
        ...


@dataclass
class _Place:
    """A worker's place, whoever fills it now; ``None`` when it was given up."""

    index: int
    worker: Worker | None = None
    job: Job | None = None
    is_loaded: bool = False
    loading_deaths: int = 0

    @property
    def is_idle(self) -> bool:
        return self.worker is not None and self.is_loaded and self.job is None


class Engine:
    """Runs jobs in workers; knows nothing of manifests, claims or retries.

    Used in a ``with`` statement. Workers load first: only a loaded one counts as idle. A worker
    that dies is replaced, and its job comes back as lost.

    Args:
        start: Begins to start the worker of a place, from 0.
        ready: Waits until some of the workers answer or die, and says which; none of them after
            that many seconds.
        max_workers: As many can be had.
        max_loading_deaths: A place whose worker dies so often in a row before it has loaded is
            given up.
        cannot_load: The error when all places are, made of the last death.
        close: Lets go of what outlives the workers.
    """

    def __init__(
        self,
        start: Callable[[int], Worker],
        ready: Callable[[Sequence[Any], float], Sequence[Worker]],
        *,
        max_workers: int,
        max_loading_deaths: int,
        cannot_load: Callable[[WorkerGoneError], DeviceError],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.max_workers = max_workers
        self._start, self._ready, self._close = start, ready, close
        self._max_loading_deaths, self._cannot_load = max_loading_deaths, cannot_load
        self._places: list[_Place] = []
        self._last_death = WorkerGoneError("")

    @property
    def num_idle(self) -> int:
        """Loaded workers without a job."""
        return sum(place.is_idle for place in self._places)

    @property
    def num_workers(self) -> int:
        """Workers that were asked for."""
        return len(self._places)

    def start(self, num_workers: int) -> None:
        """Begins to start workers; returns before they are loaded."""
        self._places = [_Place(n) for n in range(max(1, min(num_workers, self.max_workers)))]
        for place in self._places:
            self._fill(place)

    def submit(self, job: Job) -> None:
        """Gives a job to an idle worker."""
        place = next(place for place in self._places if place.is_idle)
        place.job = job
        _worker_of(place).send(job)

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Jobs that ended; returns at once when there are some, else after ``timeout_s``.

        Raises:
            JoyFlashError: When workers cannot load: more jobs would not help.
        """
        places = {id(place.worker): place for place in self._places if place.worker is not None}
        if not places:
            raise self._cannot_load(self._last_death) from self._last_death
        workers = [_worker_of(place) for place in places.values()]
        heard = [self._hear(places[id(w)]) for w in self._ready(workers, timeout_s)]
        return [outcome for outcome in heard if outcome is not None]

    def stop(self) -> None:
        """Ends all workers at once, whatever they do; ``start`` may follow."""
        workers = [place.worker for place in self._places if place.worker is not None]
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join()
        self._places = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._close()

    def _fill(self, place: _Place) -> None:
        """Puts a new worker into the place of the old one."""
        if place.worker is not None:
            place.worker.kill()
            place.worker.join()
        place.job, place.is_loaded = None, False
        place.worker = self._start(place.index)

    def _hear(self, place: _Place) -> Outcome | None:
        """Takes in what a worker says, or that it is gone; what has become of its job."""
        worker = _worker_of(place)
        try:
            answer = worker.receive()
        except WorkerGoneError as death:
            return self._bury(place, death)
        if isinstance(answer, Failure):
            raise answer.to_error()
        if answer is None:
            place.is_loaded, place.loading_deaths = True, 0
            return None
        place.job = None
        if answer.may_spoil_gpu and worker.has_gpu:
            self._fill(place)
        return answer

    def _bury(self, place: _Place, death: WorkerGoneError) -> Outcome | None:
        """Replaces a worker that died; its job is lost."""
        job, self._last_death = place.job, death
        place.loading_deaths += not place.is_loaded
        if place.loading_deaths < self._max_loading_deaths:
            self._fill(place)
        else:
            _worker_of(place).join()
            place.worker = None
        return None if job is None else Outcome(job, failure=Failure(WORKER_DIED, str(death), 5))


def _worker_of(place: _Place) -> Worker:
    if place.worker is None:
        raise ValueError("this place was given up")
    return place.worker
