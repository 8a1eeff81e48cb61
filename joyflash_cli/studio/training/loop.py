"""The loop of every training: steps, saving, resuming, logging, stopping, validation."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from joyflash_cli.studio.training.session import (
    MetricsFile,
    Session,
    TrainingStopped,
    split_streams,
)
from joyflash_cli.studio.training.sharding import release
from joyflash_cli.studio.training.state import load_state, save_state
from joyflash_cli.studio.training.trainer import NetworkStage, TrainingRun

M = TypeVar("M", bound=nn.Module)

StepLoss = Callable[[M, int, Sequence[int]], Tensor | tuple[Tensor, dict[str, float]]]
"""From network, step and samples of the batch to a loss, perhaps with figures for the log. The mean
over equal parts of the batch must be the loss of the whole, so that it does not matter who computes
which part."""


class Trainable(Protocol):
    """What the loop asks of a training: of one ``TrainingRun``, or of several that go together."""

    metrics: MetricsFile

    @property
    def step(self) -> int:
        """Steps so far."""
        ...

    @property
    def averaged(self) -> nn.Module:
        """The network whose average is the result."""
        ...

    def state(self) -> dict:
        """Everything that ``load_state`` needs to go on bit for bit."""
        ...

    def load_state(self, state: dict) -> None:
        """Put back what ``state`` gave."""
        ...

    def log(self, **figures: float | str) -> dict:
        """Write the mean figures since the last call and return them."""
        ...


def save(training: Trainable) -> None:
    """Write the resumable state, all networks in one, so that a kill cannot part them."""
    metrics = training.metrics
    processes = metrics.session.processes
    save_state(metrics.directory, training.state(), step=training.step, processes=processes)


def resume(training: Trainable) -> bool:
    """Go on from the saved state; false when there is none.

    Raises:
        CheckpointError: If the state is damaged or belongs to another training.
    """
    metrics = training.metrics
    state = load_state(metrics.directory, metrics.session.processes)
    if state is None:
        return False
    training.load_state(state)
    metrics.forget_after(training.step)
    return True


def run_loop(
    training: Trainable,
    take_step: Callable[[], None],
    *,
    steps: int,
    log_every: int,
    measure: Callable[[], dict[str, float]] = dict,
) -> None:
    """Take steps until ``steps`` are done, saving, logging and validating on the way.

    Args:
        training: What is trained, at its first step; its session says whether it goes on.
        take_step: After it ``training.step`` is one more.
        steps: In all.
        log_every: Steps between two lines of the log; the last step always has one.
        measure: Gives more figures for every line.

    Raises:
        TrainingStopped: When the session asked to stop; the state is saved.
    """
    session = training.metrics.session
    if session.resumes:
        resume(training)
    saved_at = time.monotonic()
    with _progress_bar(session, training.step, steps) as advance:
        while training.step < steps:
            take_step()
            step = training.step
            advance()
            is_last = step == steps
            figures = _validate(training, is_last=is_last)
            if figures or is_last or step % log_every == 0:
                line = training.log(**measure(), **figures)
                if session.processes.is_first:
                    session.on_log(line)
            due = time.monotonic() - saved_at >= session.save_every_s
            if session.save_every_steps:
                due = due or step % session.save_every_steps == 0
            stops, saves = session.processes.any(session.should_stop(), due)
            if stops or saves or is_last:
                save(training)
                saved_at = time.monotonic()
            if stops and not is_last:
                raise TrainingStopped(step)


def _validate(training: Trainable, *, is_last: bool) -> dict[str, float]:
    session = training.metrics.session
    if session.validation is None or not session.validate_every:
        return {}
    if not is_last and training.step % session.validate_every:
        return {}
    figures = session.validation(training.averaged, training.metrics.directory, training.step)
    release(training.averaged)
    return figures


@contextlib.contextmanager
def _progress_bar(session: Session, done: int, steps: int) -> Iterator[Callable[[], Any]]:
    """A function to call after every step; it moves the bar where there is one."""
    if not (session.progress and session.processes.is_first):
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True) as bar:
        yield bar.update


def train_network(
    run: TrainingRun[M],
    loss: StepLoss[M],
    config: NetworkStage,
    *,
    measure: Callable[[M], dict[str, float]] = lambda network: {},
) -> M:
    """Train one network to the end of its steps.

    Args:
        run: Of the network.
        loss: Of some samples at a step.
        config: Batch and precision.
        measure: Given the averaged network, figures for every line of the log.

    Returns:
        The averaged network.

    Raises:
        TrainingStopped: When the session asked to stop; the state is saved.
    """
    own = run.metrics.session.processes.own(config.batch)
    parts = split_streams(own, config.accumulate)

    def take_step() -> None:
        share, figures = 1 / len(parts), dict[str, float]()
        for streams in parts:
            with run.autocast(bf16=config.bf16):
                found = loss(run.module, run.step, streams)
            value, told = found if isinstance(found, tuple) else (found, {})
            run.backward(value, share=share)
            figures |= {k: figures.get(k, 0.0) + share * x for k, x in told.items()}
        run.apply(**figures)

    run_loop(
        run, take_step, steps=run.config.steps, log_every=config.log_every,
        measure=lambda: measure(run.averaged),
    )  # fmt: skip
    return run.averaged
