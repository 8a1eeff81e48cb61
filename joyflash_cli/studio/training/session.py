"""What surrounds a training: processes, saving, stopping, and who is told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from joyflash_cli.studio.training.processes import Processes


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


ALONE = Session()
"""One process that nobody stops or listens to."""
