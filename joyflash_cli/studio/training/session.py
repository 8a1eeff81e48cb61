"""What surrounds a training loop: processes, saving, stopping, and who is told."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from joyflash_cli.studio.training.processes import Processes
from joyflash_cli.studio.training.sharding import release


class TrainingStopped(Exception):
    """A loop that was asked to stop has saved its state and ended.

    Args:
        step: Steps that were done and saved.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped at step {step}; the state is saved")
        self.step = step


def _never() -> bool:
    return False


def _ignore(line: dict) -> None:
    pass


@dataclass(frozen=True)
class Session:
    """How a stage runs; nothing here changes a number of the result.

    Attributes:
        processes: Of the run.
        should_stop: Asked after every step; true ends the loop after its state is saved.
        on_log: Given every line of the log, in the first process only.
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
    should_stop: Callable[[], bool] = _never
    on_log: Callable[[dict], None] = _ignore
    save_every_s: float = 300.0
    save_every_steps: int = 0
    tensorboard: bool = False
    progress: bool = False
    validation: Callable[[nn.Module, Path, int], dict[str, float]] | None = None
    validate_every: int = 0


class Trainable(Protocol):
    """A training that a loop can carry on."""

    @property
    def step(self) -> int:
        """Steps so far."""
        ...

    @property
    def directory(self) -> Path:
        """Of the run."""
        ...

    @property
    def averaged(self) -> nn.Module:
        """The network whose average is the result."""
        ...

    def take_step(self) -> None:
        """One step; ``step`` grows by one."""
        ...

    def save(self) -> None:
        """Write the resumable state."""
        ...

    def log(self, **figures: float | str) -> dict:
        """Write the mean figures since the last call and return them."""
        ...


def run_loop(
    training: Trainable,
    *,
    steps: int,
    log_every: int,
    session: Session,
) -> None:
    """Take steps until ``steps`` are done, saving, logging and validating on the way.

    Args:
        training: What is trained, at its first step or resumed.
        steps: In all.
        log_every: Steps between two lines of the log; the last step always has one.
        session: Processes, saving, stopping, validation.

    Raises:
        TrainingStopped: When the session asked to stop; the state is saved.
    """
    saved_at = time.monotonic()
    with _progress_bar(session, training.step, steps) as advance:
        while training.step < steps:
            training.take_step()
            step = training.step
            advance()
            is_last = step == steps
            figures = _validate(training, session, is_last=is_last)
            if figures or is_last or step % log_every == 0:
                line = training.log(**figures)
                if session.processes.is_first:
                    session.on_log(line)
            due = time.monotonic() - saved_at >= session.save_every_s
            if session.save_every_steps:
                due = due or step % session.save_every_steps == 0
            stops, saves = session.processes.any(session.should_stop(), due)
            if stops or saves or is_last:
                training.save()
                saved_at = time.monotonic()
            if stops and not is_last:
                raise TrainingStopped(step)


def _validate(training: Trainable, session: Session, *, is_last: bool) -> dict[str, float]:
    if session.validation is None or not session.validate_every:
        return {}
    if not is_last and training.step % session.validate_every:
        return {}
    figures = session.validation(training.averaged, training.directory, training.step)
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
