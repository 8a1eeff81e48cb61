"""Workers as actors of a Ray cluster: one GPU each where the cluster has GPUs, else one core."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from joyflash_cli.batch.engines.engine import Engine, WorkerGoneError
from joyflash_cli.batch.jobs import Failure, Job, Outcome, RendererFactory, RowRenderer, run_job
from joyflash_cli.errors import DeviceError, UsageError

MAX_LOADING_DEATHS = 4

THIS_MACHINE = "local"
"""Address that starts a small cluster on this machine and ends it afterwards."""


class RayActor:
    """What runs in the cluster: loads once, renders what it is given."""

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


class RayWorker:
    """An actor and what it was last asked.

    Ray does not restart it: a lost job comes back to the runner, which decides about it, and a new
    actor takes the place of the old one wherever the cluster has room.

    Args:
        ray: The module.
        load: Makes its renderer.
        device: Handed to ``load``.
        num_gpus: GPUs that it needs.
    """

    def __init__(self, ray: Any, load: RendererFactory, device: str, num_gpus: int) -> None:
        self.has_gpu = num_gpus > 0
        self._ray = ray
        make = ray.remote(num_cpus=1, num_gpus=num_gpus, max_restarts=0, max_task_retries=0)
        self._actor = make(RayActor).remote(load, device)
        self._job: Job | None = None
        self.pending: Any = self._actor.load.remote()

    def send(self, job: Job) -> None:
        """Hands it a job; see ``Worker``."""
        self._job, self.pending = job, self._actor.render.remote(job)

    def receive(self) -> Outcome | Failure | None:
        """Its answer; see ``Worker``."""
        asked, self.pending = self.pending, None
        try:
            answer: Outcome | Failure | None = self._ray.get(asked)
        except self._ray.exceptions.RayTaskError as error:
            # The actor lives; its own code has a bug that `run_job` could not catch.
            failure = Failure.of(error)
            return failure if self._job is None else Outcome(self._job, failure=failure)
        except self._ray.exceptions.RayError as error:
            raise WorkerGoneError(f"the worker died: {type(error).__name__}") from error
        return answer

    def kill(self) -> None:
        """Ends it; see ``Worker``."""
        with contextlib.suppress(self._ray.exceptions.RayError, RuntimeError):
            self._ray.kill(self._actor)

    def join(self) -> None:
        """Its end is the cluster's business; see ``Worker``."""


def ray_engine(
    load: RendererFactory,
    *,
    address: str = THIS_MACHINE,
    device: str = "auto",
    num_workers: int | None = None,
    gpus_per_worker: int = 1,
) -> Engine:
    """An engine of actors of a Ray cluster.

    Inputs and the output folder must be reachable under the same paths on every node.

    Args:
        load: Makes the renderer of a worker; must be importable on every node.
        address: ``local``, ``auto``, ``host:port`` or ``ray://host:port``.
        device: ``auto`` takes a GPU where the cluster has one.
        num_workers: Actors; by default as many as the cluster has GPUs, or cores, for.
        gpus_per_worker: GPUs of an actor, which lie in one node.

    Raises:
        UsageError: If Ray is not installed.
        DeviceError: If there is no cluster at the address.
    """
    ray = _import_ray()
    starts_ray = not ray.is_initialized()
    if starts_ray:
        _connect(ray, address)
    resources = ray.cluster_resources()
    uses_gpus = device not in ("cpu", "mps") and resources.get("GPU", 0) >= 1
    num_gpus = gpus_per_worker if uses_gpus else 0
    room = int(resources.get("GPU" if num_gpus else "CPU", 1)) // gpus_per_worker

    def ready(workers: Sequence[RayWorker], timeout_s: float) -> list[RayWorker]:
        pending = {worker.pending: worker for worker in workers if worker.pending is not None}
        if not pending:
            time.sleep(timeout_s)
            return []
        found, _ = ray.wait(list(pending), num_returns=1, timeout=timeout_s)
        if found:
            found, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        return [pending[reference] for reference in found]

    return Engine(
        lambda _index: RayWorker(ray, load, device, num_gpus),
        ready,
        max_workers=num_workers or max(1, room),
        max_loading_deaths=MAX_LOADING_DEATHS,
        cannot_load=lambda death: DeviceError(
            f"no worker could load the model ({type(death.__cause__).__name__})",
            hint="check memory, and that joyflash is installed on every node",
            code="E-DEVICE-WORKER",
        ),
        close=ray.shutdown if starts_ray else lambda: None,
    )


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(
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
