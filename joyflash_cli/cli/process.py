"""The process as the program may rely on it: its standard streams, and signals that stop a run."""

import codecs
import contextlib
import io
import os
import signal
import sys
from types import FrameType
from typing import Any, TextIO, cast

from joyflash_cli.errors import OutputError

_FOUND_BLOCKING: dict[int, bool] = {}
"""Whether standard output and error waited for their readers when the program began."""


class _Stream:
    """A text stream with its own answer to text that cannot be written.

    Args:
        stream: Where text goes as long as it can.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes what can be written."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Passes on what was written, if it can be."""
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _fail(self, error: OSError) -> None:
        raise error

    def drop(self) -> None:
        """Nothing more is tried; Python itself would complain about the rest at its end."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class ForgivingStream(_Stream):
    """Standard error that never ends the program: what nobody can read is dropped.

    A log whose reader has gone, or whose disk is full, is no reason to lose an hour of video.
    """

    def _fail(self, error: OSError) -> None:
        self.drop()


class CheckedStream(_Stream):
    """Standard output: what cannot be written is an error of the output, and no bug."""

    def _fail(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise error
        raise OutputError(
            f"standard output cannot be written: {error.strerror}",
            hint="free some space or choose another place",
            code="E-OUTPUT-WRITE",
        ) from error


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes of a name that are no UTF-8 as they are; what an encoding lacks, escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeEncodeError:
        return codecs.lookup_error("backslashreplace")(error)


def prepare_standard_streams() -> None:
    """Takes the places of standard streams that the caller has closed, and watches the others.

    Otherwise the next file that is opened, such as the video, gets the number of a closed stream,
    and whatever a library prints goes into it. A name of a file that is printed is the name that
    was given, whatever its bytes are.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for number in (1, 2):
        # Text for a pipe that does not block would be lost when it is full.
        with contextlib.suppress(OSError):
            _FOUND_BLOCKING.setdefault(number, os.get_blocking(number))
            os.set_blocking(number, True)
    stream = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the end
    sys.stderr = cast("TextIO", ForgivingStream(stream))
    if sys.stdout is not None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            codecs.register_error("joyflash", _as_bytes)
            sys.stdout.reconfigure(errors="joyflash")
        sys.stdout = cast("TextIO", CheckedStream(sys.stdout))


def settle_standard_streams() -> None:
    """Called at the end: what could not be written is given up, and was told already."""
    try:
        flush_stdout()
    except (OSError, OutputError):
        if isinstance(sys.stdout, CheckedStream):
            sys.stdout.drop()
    for number, blocking in _FOUND_BLOCKING.items():
        with contextlib.suppress(OSError):  # whoever shares it finds it as it was
            os.set_blocking(number, blocking)


def flush_stdout() -> None:
    """Passes on what was printed, where there is somebody to read it."""
    if sys.stdout is not None:
        sys.stdout.flush()


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
