"""What surrounds a training: processes, saving, stopping, and who is told."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from joyflash_cli.errors import ConfigError
from joyflash_cli.files import write_whole
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
