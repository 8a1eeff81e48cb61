"""How a batch goes: what people see, and the events that name its rows."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from joyflash_cli.cli.events import EventStream
from joyflash_cli.cli.progress import PLAIN_EVERY_S, Display

if TYPE_CHECKING:
    from joyflash_cli.batch.runner import BatchStatus


_TOLD = ("video_s", "audio_s", "wall_s", "realtime_factor", "video_frames", "sha256")
"""Figures of a video that has just been made."""


class BatchProgress:
    """Tells people and programs what becomes of the rows; a context manager.

    The events ``start`` and, every ten seconds, ``rows`` count; ``saved`` and ``error`` name a row
    as ``job``.

    Args:
        display: What people see.
        events: What programs read.
        clock: Seconds that only grow.
    """

    def __init__(
        self, display: Display, events: EventStream, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._display = display
        self._events = events
        self._clock = clock
        self._next_s: float | None = None

    def __enter__(self) -> Self:
        self._display.__enter__()
        return self

    def __exit__(self, *arguments: object) -> None:
        self._display.__exit__(*arguments)

    def update(self, status: "BatchStatus") -> None:
        """Something changed, or half a second has passed."""
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
        row_id, output, failure = status.last or ("", "", None)
        if failure is not None:
            found = {"code": failure.code, "text": failure.text}
            self._events.emit("error", job=row_id, **found, **counts)
            self._display.say(f"batch: row {row_id!r} failed: {failure.code}: {failure.text}")
        elif status.last is not None:
            found = {name: status.facts[name] for name in _TOLD if name in status.facts}
            self._events.emit("saved", job=row_id, output=output, **found, **counts)
        settled = status.num_done + status.num_failed
        self._display.show(describe(status), done=settled, total=status.num_rows)


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
