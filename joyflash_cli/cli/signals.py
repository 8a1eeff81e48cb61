"""Ctrl-C and SIGTERM: the first asks for a tidy end, the second ends at once."""

import signal
from types import FrameType
from typing import Any


class StopSignals:
    """Within the ``with`` block, tells whether the user asked to stop.

    Until ``be_graceful`` is called there is nothing worth saving and the first signal already ends
    the program, as a ``KeyboardInterrupt``.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self._graceful = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in self._SIGNALS:
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def be_graceful(self) -> None:
        """From here on the first signal only sets ``received``."""
        self._graceful = True

    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.received is not None

    def should_stop(self) -> bool:
        """The same, asked where there is something to save: from then on one signal only asks."""
        self.be_graceful()
        return self.requested()

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.received or signal.SIGINT)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        ends_now = self.requested() or not self._graceful
        self.received = self.received or number
        if ends_now:
            raise KeyboardInterrupt
