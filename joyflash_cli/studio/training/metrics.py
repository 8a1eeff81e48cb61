"""What a run says of itself: ``metrics.jsonl``, and TensorBoard where it is wanted."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from joyflash_cli.errors import ConfigError
from joyflash_cli.files import write_whole
from joyflash_cli.studio.training.session import Session


class MetricsFile:
    """``metrics.jsonl`` of a run, and TensorBoard beside it where the session wants it."""

    def __init__(self, directory: Path, session: Session) -> None:
        self.directory = directory
        self.path = directory / "metrics.jsonl"
        self.session = session
        self._started = time.monotonic()
        self._board: Any = None

    def write(self, figures: dict) -> dict:
        """Append a line with the seconds since the start, and return it."""
        elapsed = round(time.monotonic() - self._started, 1)
        line = {"step": figures["step"], "elapsed_s": elapsed, **figures}
        if self.session.processes.is_first:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            self._write_board(line)
        return line

    def forget_after(self, step: int) -> None:
        """Drop lines of steps that were lost with a killed process and will be taken again."""
        if not (self.session.processes.is_first and self.path.exists()):
            return
        kept = [line for line in _whole_lines(self.path) if json.loads(line)["step"] <= step]
        write_whole(self.path, "".join(f"{line}\n" for line in kept))

    def _write_board(self, line: dict) -> None:
        if not self.session.tensorboard:
            return
        if self._board is None:
            self._board = open_board(self.directory)
        for name, value in line.items():
            if isinstance(value, int | float) and name != "step":
                self._board.add_scalar(name, value, line["step"])
        self._board.flush()


def open_board(directory: Path) -> Any:
    """A TensorBoard writer into ``tensorboard/`` of a run.

    Raises:
        ConfigError: If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard = true, and TensorBoard is not installed",
            hint="pip install 'joyflash[train]', or leave it out",
        ) from error
    return SummaryWriter(str(directory / "tensorboard"))


def _whole_lines(path: Path) -> Iterable[str]:
    """Lines that were written to their end; a kill may leave half of the last one."""
    text = path.read_text()
    return text[: text.rfind("\n") + 1].splitlines()
