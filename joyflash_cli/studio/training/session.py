"""What surrounds a training: its processes, saving, stopping, and what it tells to whom.

A run has one process, or as many as ``torchrun`` starts. Everything that has to be the same
everywhere (when to save, when to stop, what is logged) is agreed upon here. Which samples of a
batch a process computes follows from its rank alone.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from joyflash_cli.errors import ConfigError, UsageError
from joyflash_cli.files import write_whole

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True)
class Processes:
    """This process among those of the run; the defaults are a run of one process.

    Attributes:
        rank: Index of this process.
        world_size: Number of processes.
        device: Where this process computes.
        mesh: What parameters are sharded over; ``None`` in a run of one process.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mesh: "DeviceMesh | None" = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def own(self, batch: int) -> tuple[int, ...]:
        """Indices of the samples of a batch that this process computes.

        Raises:
            ConfigError: If the batch cannot be shared out evenly.
        """
        share, rest = divmod(batch, self.world_size)
        if rest or not share:
            raise ConfigError(
                f"A batch of {batch} cannot be shared by {self.world_size} processes",
                hint="give a batch that is a multiple of the number of processes",
            )
        return tuple(range(self.rank * share, (self.rank + 1) * share))

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Per flag, whether it is true in any process; all processes get the same."""
        if self.world_size == 1:
            return flags
        values = torch.tensor([float(flag) for flag in flags], device=self.device)
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return tuple(bool(value) for value in values)

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Each figure averaged over the processes; all must have the same names."""
        if self.world_size == 1 or not figures:
            return dict(figures)
        values = torch.tensor(list(figures.values()), dtype=torch.float64)
        values = values.to(self.device) / self.world_size
        dist.all_reduce(values)
        return dict(zip(figures, values.tolist(), strict=True))

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.world_size > 1:
            dist.barrier()


ONE_PROCESS = Processes()


def split_streams(streams: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """The samples of a process in equal parts, one after the other: gradient accumulation.

    Raises:
        ConfigError: If they cannot be divided so.
    """
    size, rest = divmod(len(streams), parts)
    if rest or not size:
        raise ConfigError(
            f"{len(streams)} samples a process cannot be accumulated in {parts} parts",
            hint="give an accumulate that divides the batch of a process",
        )
    return [tuple(streams[i : i + size]) for i in range(0, len(streams), size)]


@contextlib.contextmanager
def join_processes(device: str = "auto") -> Iterator[Processes]:
    """This process's place; under ``torchrun`` the process group lives as long as the context.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``. With several processes each takes the GPU of its
            rank on its machine.

    Raises:
        DeviceError: If the device does not exist.
        UsageError: If ``torchrun`` names processes that never meet.
    """
    from joyflash_cli.render import choose_device

    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield Processes(device=choose_device(device))
        return
    from torch.distributed.device_mesh import init_device_mesh

    on_cuda = device != "cpu" and torch.cuda.is_available()
    name = f"cuda:{dist.get_node_local_rank(fallback_rank=0)}" if on_cuda else "cpu"
    chosen = choose_device(name)
    if on_cuda:
        torch.cuda.set_device(chosen)
    try:
        dist.init_process_group("nccl" if on_cuda else "gloo")
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"The processes of torchrun cannot meet: {error}",
            hint="check --nnodes, --nproc-per-node and the rendezvous address",
        ) from error
    try:
        world_size = dist.get_world_size()
        mesh = init_device_mesh(chosen.type, (world_size,)) if world_size > 1 else None
        yield Processes(dist.get_rank(), world_size, chosen, mesh)
    finally:
        dist.destroy_process_group()


class TrainingStopped(Exception):
    """A loop that was asked to stop has saved its state and ended."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped at step {step}; the state is saved")
        self.step = step


@dataclass(frozen=True)
class Session:
    """How a stage runs; nothing here changes a number of the result.

    Attributes:
        processes: Of the run.
        should_stop: Asked after every step; true ends the loop after its state is saved.
        on_log: Given every line of the log, in the first process only.
        resumes: Whether to go on from the saved state, where there is one.
        save_every_s: Seconds between two saved states: a kill loses at most this much.
        save_every_steps: Steps between two saved states; 0 leaves it to the clock.
        tensorboard: Whether figures and sheets also go to TensorBoard files in ``tensorboard/``.
        progress: Whether a bar is drawn on stderr.
        validation: Given the averaged network, the run's folder and the step; writes picture
            sheets and returns figures for the log. All processes call it, as sharded networks
            need.
        validate_every: Steps between two validations, and one at the end; 0 for none.
    """

    processes: Processes = field(default_factory=Processes)
    should_stop: Callable[[], bool] = lambda: False
    on_log: Callable[[dict], None] = lambda line: None
    resumes: bool = False
    save_every_s: float = 300.0
    save_every_steps: int = 0
    tensorboard: bool = False
    progress: bool = False
    validation: Callable[[nn.Module, Path, int], dict[str, float]] | None = None
    validate_every: int = 0

    def shards(self, name: str) -> Callable[[int, int], None]:
        """Tells how many shards of a name are done."""
        return lambda done, total: self.on_log({name: done, "of": total})


ALONE = Session()
"""One process that nobody stops or listens to."""


class MetricsFile:
    """``metrics.jsonl`` of a run, and TensorBoard beside it where the session wants it."""

    def __init__(self, directory: Path, session: Session) -> None:
        self.directory = directory
        self.session = session
        self._path = directory / "metrics.jsonl"
        self._started = time.monotonic()
        self._board: Any = None

    def write(self, figures: dict) -> dict:
        """Append a line with the seconds since the start, and return it.

        Raises:
            ConfigError: If TensorBoard is wanted and not installed.
        """
        elapsed = round(time.monotonic() - self._started, 1)
        line = {"step": figures["step"], "elapsed_s": elapsed, **figures}
        if self.session.processes.is_first:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if self.session.tensorboard:
                self._write_board(line)
        return line

    def forget_after(self, step: int) -> None:
        """Drop lines of steps that were lost with a killed process and will be taken again."""
        if not (self.session.processes.is_first and self._path.exists()):
            return
        text = self._path.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()  # a kill may leave half of the last one
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        write_whole(self._path, "".join(f"{line}\n" for line in kept))

    def _write_board(self, line: dict) -> None:
        if self._board is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ConfigError(
                    "tensorboard = true, and TensorBoard is not installed",
                    hint="pip install 'joyflash[train]', or leave it out",
                ) from error
            self._board = SummaryWriter(str(self.directory / "tensorboard"))
        for name, value in line.items():
            if isinstance(value, int | float) and name != "step":
                self._board.add_scalar(name, value, line["step"])
        self._board.flush()
