"""Progress of a batch on stderr: a Rich bar on a terminal, plain lines elsewhere, or nothing."""

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from joyflash_cli.cli.events import EventStream
from joyflash_cli.cli.progress import PLAIN_EVERY_S

if TYPE_CHECKING:
    from joyflash_cli.batch.runner import BatchStatus


class BatchProgress(Protocol):
    """Shows how a batch goes; a context manager whose end removes what is transient."""

    def __enter__(self) -> "BatchProgress": ...

    def __exit__(self, *_: object) -> None: ...

    def update(self, status: "BatchStatus") -> None:
        """Something changed, or half a second has passed."""
        ...


def open_batch_progress(
    *,
    quiet: bool,
    kind: str = "auto",
    stream: TextIO | None = None,
    events: EventStream | None = None,
) -> BatchProgress:
    """The progress that suits the stream: none, a live bar, or plain lines; events beside it.

    Args:
        quiet: Nothing is shown to people.
        kind: One of ``PROGRESS_KINDS``; ``json`` shows people nothing.
        stream: Standard error if ``None``.
        events: Told everything as well.
    """
    stream = stream or sys.stderr
    live = stream.isatty() and os.environ.get("TERM") != "dumb"
    shown: BatchProgress = BatchLines(stream)
    if quiet or kind in ("json", "none"):
        shown = NoBatchProgress()
    elif kind == "bar" or (kind == "auto" and live):
        shown = BatchBar()
    return shown if events is None else BatchEvents(events, shown)


def describe(status: "BatchStatus") -> str:
    """``41/100 done, 1 failed, 2 running, 1.8x realtime, 9 min left``."""
    parts = [f"{status.num_done}/{status.num_rows} done"]
    for number, word in (
        (status.num_failed, "failed"),
        (status.num_running, "running"),
        (status.num_elsewhere, "in another batch"),
    ):
        if number:
            parts.append(f"{number} {word}")
    if not status.num_running and not status.num_idle and status.num_open > status.num_elsewhere:
        parts.append("waiting for workers")
    if status.video_s > 0 and status.elapsed_s > 0:
        parts.append(f"{status.video_s / status.elapsed_s:.2f}x realtime")
    if status.num_rendered and status.num_open:
        left_s = status.elapsed_s / status.num_rendered * status.num_open
        parts.append(f"{left_s / 60:.0f} min left" if left_s >= 90 else f"{left_s:.0f} s left")
    return ", ".join(parts)


def failure_line(status: "BatchStatus") -> str:
    """One line for a row that has just failed, else nothing."""
    row_id, _output, failure = status.last or ("", "", None)
    if failure is None:
        return ""
    return f"batch: row {row_id!r} failed: {failure.code}: {failure.text}"


class NoBatchProgress:
    """Shows nothing."""

    def __enter__(self) -> "NoBatchProgress":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, status: "BatchStatus") -> None:
        """Shows nothing."""


class BatchEvents:
    """Tells programs what becomes of each row, and passes it on to what people see.

    ``start`` and, every ten seconds, ``rows`` count; ``saved`` and ``error`` name a row as ``job``.

    Args:
        events: Where the events go.
        shown: What people see.
    """

    def __init__(
        self,
        events: EventStream,
        shown: BatchProgress,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events = events
        self._shown = shown
        self._clock = clock
        self._next_s: float | None = None

    def __enter__(self) -> "BatchEvents":
        self._shown.__enter__()
        return self

    def __exit__(self, *arguments: object) -> None:
        self._shown.__exit__(*arguments)

    def update(self, status: "BatchStatus") -> None:
        """Writes what is new."""
        counts = {
            "rows": status.num_rows,
            "done": status.num_done,
            "failed": status.num_failed,
            "running": status.num_running,
            "open": status.num_open,
        }
        now = self._clock()
        if self._next_s is None or now >= self._next_s:
            self._events.emit("start" if self._next_s is None else "rows", **counts)
            self._next_s = now + PLAIN_EVERY_S
        if status.last is not None:
            row_id, output, failure = status.last
            if failure is None:
                self._events.emit("saved", job=row_id, output=output, **counts)
            else:
                found = {"code": failure.code, "text": failure.text}
                self._events.emit("error", job=row_id, **found, **counts)
        self._shown.update(status)


class BatchLines:
    """A plain line for each failed row, and one every ten seconds."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._next_s = clock() + PLAIN_EVERY_S

    def __enter__(self) -> "BatchLines":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, status: "BatchStatus") -> None:
        """Writes what is new."""
        failed = failure_line(status)
        if failed:
            self._write(failed)
        now = self._clock()
        if now >= self._next_s:
            self._next_s = now + PLAIN_EVERY_S
            self._write(f"batch: {describe(status)}")

    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


class BatchBar:
    """A live bar on a terminal, with a line above it for each failed row."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True)
        self._bar: Any = RichProgress(
            TextColumn("batch"),
            BarColumn(bar_width=None),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> "BatchBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, status: "BatchStatus") -> None:
        """Moves the bar."""
        failed = failure_line(status)
        if failed:
            self._console.print(failed, markup=False, highlight=False)
        self._bar.update(
            self._task,
            total=status.num_rows,
            completed=status.num_done + status.num_failed,
            description=describe(status),
        )
