"""Progress of downloads and conversions on stderr: Rich bars, plain lines, or nothing."""

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from joyflash_cli.weights.download import FetchProgress
    from joyflash_cli.weights.fetch_plan import FetchPlan

PLAIN_EVERY_S = 10.0


class FetchReport(Protocol):
    """Shows how a fetch goes; its ``update`` may be called from several threads."""

    def __enter__(self) -> "FetchReport": ...

    def __exit__(self, *_: object) -> None: ...

    def update(self, progress: "FetchProgress") -> None:
        """Something happened to one file."""
        ...


def open_fetch_progress(
    plan: "FetchPlan", *, quiet: bool, stream: TextIO | None = None
) -> FetchReport:
    """The progress that suits the stream: none, live bars, or plain lines."""
    stream = stream or sys.stderr
    if quiet or all(planned.state == "ready" for planned in plan.files):
        return NoFetchProgress()
    if _is_live(stream):
        return BarFetchProgress(plan)
    return LineFetchProgress(plan, stream)


class NoFetchProgress:
    """Shows nothing."""

    def __enter__(self) -> "NoFetchProgress":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, progress: "FetchProgress") -> None:
        """Shows nothing."""


class LineFetchProgress:
    """A line for every finished file, and one every ten seconds, for logs and pipes."""

    def __init__(
        self,
        plan: "FetchPlan",
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._stream = stream
        self._clock = clock
        self._received = [0] * len(plan.files)
        self._next_s = clock() + PLAIN_EVERY_S

    def __enter__(self) -> "LineFetchProgress":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, progress: "FetchProgress") -> None:
        """Counts bytes; writes when a file is finished or ten seconds have passed."""
        planned = self._plan.files[progress.index]
        if progress.stage == "download":
            self._received[progress.index] += progress.num_bytes
        elif progress.stage in ("done", "failed"):
            self._write(f"fetch: {planned.file.name} {progress.stage}")
        now = self._clock()
        if now >= self._next_s:
            self._next_s = now + PLAIN_EVERY_S
            done = sum(self._received)
            self._write(f"fetch: {done / 1e6:.1f} of {self._plan.download_bytes / 1e6:.1f} MB")

    def _write(self, line: str) -> None:
        # One call per line: several threads may report at once.
        self._stream.write(f"{line}\n")
        self._stream.flush()


class BarFetchProgress:
    """A live bar for each file under way, and one for all of them."""

    def __init__(self, plan: "FetchPlan") -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bars: Any = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._stages: dict[int, str] = {}
        self._tasks = {
            index: self._bars.add_task(
                f"{planned.file.role} {planned.file.path}",
                total=planned.bytes or None,
                visible=False,
                start=False,
            )
            for index, planned in enumerate(plan.files)
            if planned.state != "ready"
        }
        all_bytes = plan.download_bytes
        self._total = self._bars.add_task("all downloads", total=all_bytes, visible=all_bytes > 0)
        self._plan = plan

    def __enter__(self) -> "BarFetchProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, progress: "FetchProgress") -> None:
        """Moves the bar of the file, and that of all files while it is downloaded."""
        task = self._tasks[progress.index]
        file = self._plan.files[progress.index].file
        if progress.stage in ("done", "failed"):
            self._bars.stop_task(task)
            self._bars.update(task, visible=False)
            self._bars.console.print(f"{progress.stage}  {file.role}  {file.name}", markup=False)
            return
        if self._stages.get(progress.index) != progress.stage:
            # Checking reads the file from its beginning again: a new bar in the same place.
            self._stages[progress.index] = progress.stage
            self._bars.reset(task, description=f"{progress.stage} {file.role}", visible=True)
        self._bars.advance(task, progress.num_bytes)
        if progress.stage == "download":
            self._bars.advance(self._total, progress.num_bytes)


class ConvertProgress:
    """One line of text on stderr for each step of a conversion, or nothing."""

    def __init__(self, profile: str, stream: TextIO | None) -> None:
        self._profile = profile
        self._stream = stream
        self._last = ""

    def __enter__(self) -> "ConvertProgress":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, step: str) -> None:
        """A new step has begun."""
        if self._stream is not None and step != self._last:
            self._last = step
            self._stream.write(f"convert {self._profile}: {step}\n")
            self._stream.flush()


def open_convert_progress(profile: str, *, quiet: bool) -> ConvertProgress:
    """The progress of a conversion: lines, or nothing when ``quiet``."""
    return ConvertProgress(profile, None if quiet else sys.stderr)


def _is_live(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"
