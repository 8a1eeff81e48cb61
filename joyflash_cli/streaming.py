"""Stages that run side by side: a thread each, bounded queues between them, one way to stop all.

    sampler thread --queue--> decoding thread --queue--> the caller's own loop

A stage is an iterator. ``RunAhead`` runs it in a thread of its own, at most ``capacity`` items
ahead of whoever reads it: a slow reader pauses the stage, and with it the stage in front of that.
An error in a stage reaches the reader after the items that came before it. This is the only place
with threads and queues.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")

QUEUE_CAPACITY = 2
"""Items that may lie between two stages: one being read, one ready."""

WAKE_EVERY_S = 0.25
"""How often a waiting reader looks up: for signals, heartbeats and a request to stop."""

CLOSE_WAIT_S = 5.0
"""How long ``close`` waits for a thread that is in the middle of something."""

_THREAD_PREFIX = "joyflash-"


class Cancelled(Exception):
    """A stage was told to stop; nobody wants what it makes any more."""


class StopRequested(Exception):
    """The user asked to stop, and there is nothing to keep."""


class QueueEnded(Exception):
    """The writer of a queue has ended and everything it wrote was read."""


class Cancellation:
    """Tells all stages of a chain to stop; wakes those that wait."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._lock = threading.Lock()
        self._wakers: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        """Whether the chain is to stop."""
        return self._requested.is_set()

    def request(self) -> None:
        """Stops the chain; calling it again does nothing more."""
        self._requested.set()
        with self._lock:
            wakers = list(self._wakers)
        for waker in wakers:
            waker()

    def check(self) -> None:
        """For stages that wait for something else than a queue.

        Raises:
            Cancelled: If the chain is to stop.
        """
        if self.requested:
            raise Cancelled

    def on_request(self, waker: Callable[[], None]) -> None:
        """Calls ``waker`` when the chain is stopped."""
        with self._lock:
            self._wakers.append(waker)


class BoundedQueue(Generic[T]):
    """Items from one writer to one reader, at most ``capacity`` at a time, then an end.

    Args:
        capacity: Items that may wait.
        cancellation: Wakes both sides.
    """

    def __init__(self, capacity: int, cancellation: Cancellation) -> None:
        if capacity < 1:
            raise ValueError(f"a queue of {capacity} items passes nothing on")
        self._capacity = capacity
        self._cancellation = cancellation
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        cancellation.on_request(self._wake)

    def put(self, item: T) -> None:
        """Adds an item, waiting while the queue is full.

        Raises:
            Cancelled: If the chain is stopped.
        """
        with self._changed:
            while len(self._items) >= self._capacity and not self._cancellation.requested:
                self._changed.wait()
            self._cancellation.check()
            self._items.append(item)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Says that nothing more comes, because of ``error`` or because it is complete."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def get(self, on_wait: Callable[[float], None] | None = None) -> T:
        """The next item, waiting while the queue is empty.

        Args:
            on_wait: Called about four times a second while waiting, with the seconds waited so
                far; what it raises ends the waiting.

        Raises:
            QueueEnded: After the last item.
            Cancelled: If the chain is stopped.
            BaseException: What ended the writer, after the items it had written.
        """
        started = time.monotonic()
        while True:
            with self._changed:
                if not self._items and not self._ended and not self._cancellation.requested:
                    self._changed.wait(WAKE_EVERY_S)
                if self._items:
                    item = self._items.popleft()
                    self._changed.notify_all()
                    return item
                if self._ended:
                    raise self._error or QueueEnded
                self._cancellation.check()
            if on_wait is not None:
                on_wait(time.monotonic() - started)

    def poll(self, timeout_s: float) -> T | None:
        """The next item, or ``None`` when there is none within this time; raises as ``get``."""
        with self._changed:
            if not self._items and not self._ended and not self._cancellation.requested:
                self._changed.wait(max(timeout_s, 0.0))
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._ended:
                raise self._error or QueueEnded
            self._cancellation.check()
            return None

    def failed_with(self, error: BaseException) -> bool:
        """Whether it was this error that ended the writer."""
        return self._error is error

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class RunAhead(Generic[T]):
    """An iterator whose items a thread of its own makes ahead of time.

    Used in a ``with`` statement, which starts the thread and, left early, stops the whole chain.

    Args:
        items: The stage. It is iterated and, if it is a generator, closed in its thread.
        name: Of the thread.
        cancellation: Shared by all stages of a chain.
        capacity: Items that may be ready before the reader asks.
        on_wait: See ``BoundedQueue.get``; called in the reader's thread.
    """

    def __init__(
        self,
        items: Iterable[T],
        *,
        name: str,
        cancellation: Cancellation,
        capacity: int = QUEUE_CAPACITY,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self._source = items
        self._cancellation = cancellation
        self._queue: BoundedQueue[T] = BoundedQueue(capacity, cancellation)
        self._on_wait = on_wait
        self._ended = False
        # A daemon: a stage in the middle of a long computation must not keep the program alive.
        self._thread = threading.Thread(
            target=self._run, name=f"{_THREAD_PREFIX}{name}", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """The next item; an error of the stage is raised here."""
        if self._ended:
            raise StopIteration
        try:
            return self._queue.get(self._on_wait)
        except QueueEnded:
            self._ended = True
            raise StopIteration from None
        except BaseException as error:
            # A stage that failed has ended: later stages must still pass on what it had made.
            self._ended = self._queue.failed_with(error)
            raise

    def poll(self, timeout_s: float) -> T | None:
        """The next item, or ``None`` when there is none within this time.

        Raises:
            StopIteration: After the last one.
            BaseException: What ended the stage.
        """
        if self._ended:
            raise StopIteration
        try:
            return self._queue.poll(timeout_s)
        except QueueEnded:
            self._ended = True
            raise StopIteration from None
        except BaseException as error:
            self._ended = self._queue.failed_with(error)
            raise

    def close(self) -> None:
        """Ends the stage: at once if it is complete, else by stopping the chain."""
        if not self._ended:
            self._cancellation.request()
        if self._thread.is_alive():
            self._thread.join(CLOSE_WAIT_S)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._source:
                self._queue.put(item)
        except Cancelled:
            pass
        except BaseException as raised:  # noqa: BLE001 - whatever it is, the reader must hear it
            error = raised
        try:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
        except BaseException as raised:  # noqa: BLE001 - as above
            error = error or raised
        self._queue.end(error)


def in_background(work: Callable[[], None], name: str) -> threading.Thread:
    """A thread that does something nobody waits for; the program may end while it is at work."""
    thread = threading.Thread(target=work, name=f"{_THREAD_PREFIX}{name}", daemon=True)
    thread.start()
    return thread


def stages_running() -> bool:
    """Whether a stage's thread is still at work, after a program has stopped listening to it."""
    return any(thread.name.startswith(_THREAD_PREFIX) for thread in threading.enumerate())
