"""The step of a stage that trains one network: own samples, parts, loss, update."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from torch import Tensor, nn

from joyflash_cli.studio.training.processes import split_streams
from joyflash_cli.studio.training.session import Session, run_loop
from joyflash_cli.studio.training.trainer import OptimiserConfig, TrainingRun

M = TypeVar("M", bound=nn.Module)

StepLoss = Callable[[M, int, Sequence[int]], Tensor]
"""From network, step and samples of the batch to a loss. The mean over equal parts of the batch
must be the loss of the whole, so that it does not matter who computes which part."""


class NetworkTraining(Generic[M]):
    """A network, its run and its loss, as ``run_loop`` wants it.

    Args:
        run: Of the network.
        loss: Of some samples at a step.
        batch: Samples per step, over all processes.
        accumulate: Parts that a process splits its samples into.
        bf16: Whether the network runs in bfloat16.
        measure: Given the averaged network, figures for every line of the log.
    """

    def __init__(
        self,
        run: TrainingRun[M],
        loss: StepLoss[M],
        *,
        batch: int,
        accumulate: int = 1,
        bf16: bool = True,
        measure: Callable[[M], dict[str, float]] | None = None,
    ) -> None:
        self.run = run
        self.measure = measure
        self.loss = loss
        self.bf16 = bf16
        self.parts = split_streams(run.processes.own(batch), accumulate)

    @property
    def step(self) -> int:
        """Steps so far."""
        return self.run.step

    @property
    def averaged(self) -> M:
        """The network with averaged weights."""
        return self.run.averaged

    @property
    def directory(self) -> Path:
        """Of the run."""
        return self.run.directory

    def take_step(self) -> None:
        """One update of the network."""
        for streams in self.parts:
            with self.run.autocast(bf16=self.bf16):
                loss = self.loss(self.run.module, self.run.step, streams)
            self.run.backward(loss, share=1 / len(self.parts))
        self.run.apply()

    def save(self) -> None:
        """Write the resumable state."""
        self.run.save()

    def log(self, **figures: float | str) -> dict:
        """Write the mean figures since the last call and return them."""
        if self.measure is not None:
            figures |= self.measure(self.averaged)
        return self.run.log(**figures)


class NetworkStage(Protocol):
    """What the configurations of all stages with one network have."""

    @property
    def optimiser(self) -> OptimiserConfig:
        """Steps and rates."""
        ...

    @property
    def batch(self) -> int:
        """Samples per step, over all processes."""
        ...

    @property
    def accumulate(self) -> int:
        """Parts that a process splits its samples into."""
        ...

    @property
    def seed(self) -> int:
        """Of everything random."""
        ...

    @property
    def bf16(self) -> bool:
        """Whether the network runs in bfloat16."""
        ...

    @property
    def log_every(self) -> int:
        """Steps between two lines of the log."""
        ...


def train_network(
    network: M,
    loss: StepLoss[M],
    *,
    config: NetworkStage,
    out_dir: Path,
    session: Session | None = None,
    resume: bool = False,
) -> TrainingRun[M]:
    """Train to the end of the configured steps.

    Args:
        network: To be trained, on its device.
        loss: Of some samples at a step.
        config: Steps, batch and seed.
        out_dir: For state, metrics and sheets.
        session: Processes, saving, stopping.
        resume: Go on from the saved state.

    Returns:
        The run; its average is the result.

    Raises:
        TrainingStopped: When the session asked to stop; the state is saved.
    """
    session = session if session is not None else Session()
    run = TrainingRun(out_dir, network, config.optimiser, seed=config.seed, session=session)
    training = NetworkTraining(
        run, loss, batch=config.batch, accumulate=config.accumulate, bf16=config.bf16
    )
    if resume:
        run.resume()
    run_loop(training, steps=config.optimiser.steps, log_every=config.log_every, session=session)
    return run
