"""Workers as actors of a Ray cluster: one GPU each where the cluster has GPUs, else one core."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Self

from joyflash_cli.batch.jobs import (
    WORKER_DIED,
    Failure,
    Job,
    Outcome,
    RendererFactory,
    RowRenderer,
    run_job,
)
from joyflash_cli.errors import DeviceError, UsageError

MAX_LOADING_DEATHS = 4
"""Actors that may die in a row before any has ever loaded."""

THIS_MACHINE = "local"
"""Address that starts a small cluster on this machine and ends it afterwards."""


class RayWorker:
    """The actor: loads once, renders what it is given."""

    def __init__(self, load: RendererFactory, device: str) -> None:
        self._load, self._device = load, device
        self._renderer: RowRenderer | None = None

    def load(self) -> Failure | None:
        """Loads the model; the failure if it cannot be."""
        try:
            self._renderer = self._load(self._device)
        except Exception as error:  # noqa: BLE001 - the driver tells it and stops
            return Failure.of(error)
        return None

    def render(self, job: Job) -> Outcome:
        """One job."""
        if self._renderer is None:
            raise ValueError("the model is not loaded")
        return run_job(self._renderer, job)


class _Slot:
    """A place for an actor: the actor, what it was last asked, and its job."""

    def __init__(self) -> None:
        self.actor: Any = None
        self.pending: Any = None
        self.job: Job | None = None

    @property
    def idle(self) -> bool:
        return self.actor is not None and self.pending is None


class RayEngine:
    """Runs jobs in actors of a Ray cluster; see ``Engine``.

    Inputs and the output folder must be reachable under the same paths on every node. Actors are
    not restarted by Ray: a lost job comes back to the runner, which decides about it, and a new
    actor takes the place of the old one wherever the cluster has room.

    Args:
        load: Makes the renderer of a worker; must be importable on every node.
        address: ``local``, ``auto``, ``host:port`` or ``ray://host:port``.
        device: ``auto`` takes a GPU where the cluster has one.
        num_workers: Actors; by default one per GPU, or per core, of the cluster.

    Raises:
        UsageError: If Ray is not installed.
        DeviceError: If there is no cluster at the address.
    """

    def __init__(
        self,
        load: RendererFactory,
        *,
        address: str = THIS_MACHINE,
        device: str = "auto",
        num_workers: int | None = None,
    ) -> None:
        self._ray = _import_ray()
        self._load, self._device = load, device
        self._started_ray = not self._ray.is_initialized()
        if self._started_ray:
            self._connect(address)
        resources = self._ray.cluster_resources()
        wants_gpu = device not in ("cpu", "mps")
        self._gpus_each = 1 if wants_gpu and resources.get("GPU", 0) >= 1 else 0
        room = int(resources.get("GPU" if self._gpus_each else "CPU", 1))
        self.max_workers = num_workers or max(1, room)
        self._slots: list[_Slot] = []
        self._loading_deaths = 0
        self._has_loaded = False

    @property
    def num_idle(self) -> int:
        """Loaded actors without a job."""
        return sum(slot.idle for slot in self._slots)

    @property
    def num_workers(self) -> int:
        """Actors that were asked for."""
        return len(self._slots)

    def start(self, num_workers: int) -> None:
        """Asks the cluster for actors; see ``Engine.start``."""
        count = max(1, min(num_workers, self.max_workers))
        while len(self._slots) < count:
            self._slots.append(_Slot())
        for slot in self._slots:
            if slot.actor is None:
                self._start(slot)

    def submit(self, job: Job) -> None:
        """Hands a job to an idle actor; see ``Engine.submit``."""
        slot = next(slot for slot in self._slots if slot.idle)
        slot.job = job
        slot.pending = slot.actor.render.remote(job)

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcomes of jobs; see ``Engine.wait``."""
        pending = {slot.pending: slot for slot in self._slots if slot.pending is not None}
        outcomes: list[Outcome] = []
        if not pending:
            time.sleep(timeout_s)
            return outcomes
        ready, _ = self._ray.wait(list(pending), num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = self._ray.wait(list(pending), num_returns=len(pending), timeout=0)
        for reference in ready:
            self._hear(pending[reference], reference, outcomes)
        return outcomes

    def stop(self) -> None:
        """Kills the actors; see ``Engine.stop``."""
        for slot in self._slots:
            self._kill(slot)
        self._slots = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._started_ray:
            self._ray.shutdown()

    def _connect(self, address: str) -> None:
        try:
            self._ray.init(
                address=address,
                include_dashboard=False if address == THIS_MACHINE else None,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except Exception as error:  # noqa: BLE001 - Ray raises bare exceptions when it cannot start
            reason = " ".join(str(error).split())[:200]
            raise DeviceError(
                f"no Ray cluster at {address!r}: {reason}",
                hint="start one with `ray start --head`, or leave --ray-address out",
                code="E-DEVICE-RAY",
            ) from error

    def _start(self, slot: _Slot) -> None:
        make = self._ray.remote(
            num_cpus=1, num_gpus=self._gpus_each, max_restarts=0, max_task_retries=0
        )(RayWorker)
        slot.actor = make.remote(self._load, self._device)
        slot.pending = slot.actor.load.remote()

    def _kill(self, slot: _Slot) -> None:
        if slot.actor is not None:
            with contextlib.suppress(self._ray.exceptions.RayError, RuntimeError):
                self._ray.kill(slot.actor)
        slot.actor, slot.pending, slot.job = None, None, None

    def _hear(self, slot: _Slot, reference: Any, outcomes: list[Outcome]) -> None:
        """Takes in an actor's answer, or that it is gone."""
        job, slot.job, slot.pending = slot.job, None, None
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            # The actor lives; its own code has a bug that `run_job` could not catch.
            failure = Failure.of(error)
            if job is None:
                raise failure.to_error() from error
            outcomes.append(Outcome(job, failure=failure))
            return
        except self._ray.exceptions.RayError as error:
            self._bury(slot, job, error, outcomes)
            return
        if isinstance(answer, Outcome):
            outcomes.append(answer)
            if answer.may_spoil_gpu and self._gpus_each:
                self._kill(slot)
                self._start(slot)
        elif isinstance(answer, Failure):
            raise answer.to_error()
        else:
            self._has_loaded, self._loading_deaths = True, 0

    def _bury(
        self, slot: _Slot, job: Job | None, error: Exception, outcomes: list[Outcome]
    ) -> None:
        """Replaces an actor that died, alone or with its node; its job is lost."""
        self._kill(slot)
        text = f"the worker died: {type(error).__name__}"
        if job is not None:
            outcomes.append(Outcome(job, failure=Failure(WORKER_DIED, text, 5)))
        elif not self._has_loaded:
            self._loading_deaths += 1
            if self._loading_deaths >= MAX_LOADING_DEATHS:
                raise DeviceError(
                    f"no worker could load the model ({type(error).__name__})",
                    hint="check memory, and that joyflash is installed on every node",
                    code="E-DEVICE-WORKER",
                ) from error
        self._start(slot)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--engine ray needs Ray, which is not installed",
            hint="pip install 'joyflash[ray]'",
            code="E-RAY",
        ) from error
    return ray
