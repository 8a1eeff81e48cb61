"""How downloads and conversions go: bars for files on a terminal, else lines."""

import sys
from typing import TYPE_CHECKING, Self, TextIO

from joyflash_cli.cli.progress import Display, Lines, is_live, rich_progress

if TYPE_CHECKING:
    from joyflash_cli.weights.download import FetchProgress
    from joyflash_cli.weights.fetch_plan import FetchPlan


def open_fetch_progress(
    plan: "FetchPlan", *, quiet: bool, stream: TextIO | None = None
) -> "FetchBars | FetchLines":
    """The progress that suits the stream: none, live bars, or plain lines."""
    stream = stream or sys.stderr
    if quiet or all(planned.state == "ready" for planned in plan.files):
        return FetchLines(plan, Display())
    return FetchBars(plan) if is_live(stream) else FetchLines(plan, Lines("fetch", stream))


class FetchLines:
    """A line for every finished file, and one every ten seconds."""

    def __init__(self, plan: "FetchPlan", display: Display) -> None:
        self._plan = plan
        self._display = display
        self._received = [0] * len(plan.files)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, progress: "FetchProgress") -> None:
        """Something happened to one file; called from several threads."""
        if progress.stage == "download":
            self._received[progress.index] += progress.num_bytes
        elif progress.stage in ("done", "failed"):
            file = self._plan.files[progress.index].file
            self._display.say(f"fetch: {file.name} {progress.stage}")
        done = sum(self._received)
        self._display.show(f"{done / 1e6:.1f} of {self._plan.download_bytes / 1e6:.1f} MB")


class FetchBars:
    """A live bar for each file under way, and one for all of them."""

    def __init__(self, plan: "FetchPlan") -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bars = rich_progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
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

    def __enter__(self) -> Self:
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
    """One line for each step of a conversion."""

    def __init__(self, profile: str, *, quiet: bool) -> None:
        self._display = Display() if quiet else Lines(f"convert {profile}", sys.stderr)
        self._last = ""

    def update(self, step: str) -> None:
        """A step has begun, or goes on."""
        if step != self._last:
            self._last = step
            self._display.show(step, due=True)
