"""Events of a run for programs that read along: one JSON object a line.

They go to standard error with ``--progress json``, or with ``--progress-fd N`` to a descriptor of
their own, which leaves standard error to people.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO, cast

from joyflash_cli.errors import JoyFlashError, UsageError
from joyflash_cli.media.outputs.whole_writes import write_all

JSON_VERSION = 1
"""Of the lines; changes when a key changes its meaning."""

FIRST_FREE_DESCRIPTOR = 3

PROGRESS_KINDS = ("auto", "bar", "plain", "json", "none")

_TOLD = "_told_as_an_event"


class EventStream:
    """Writes events as they happen; a reader that has gone does not stop the run.

    Args:
        stream: Where the lines go: standard error, bytes of a descriptor of their own, or nowhere.
    """

    def __init__(self, stream: TextIO | BinaryIO | None = None) -> None:
        self._stream = stream
        self.is_stderr = stream is sys.stderr

    def emit(self, name: str, /, **values: Any) -> None:
        """Writes one event.

        Args:
            name: ``start``, ``load``, ``block``, ``wait``, ``warn``, ``saved``, ...
            values: Of the event; plain JSON values.
        """
        if self._stream is None:
            return
        line = json.dumps({"v": JSON_VERSION, "event": name, **values}) + "\n"
        try:
            if isinstance(self._stream, io.RawIOBase):
                write_all(self._stream, line.encode())
            else:
                print(line, end="", file=cast("TextIO", self._stream), flush=True)
        except OSError:
            # Nobody reads along any more; the video is what counts.
            self._stream = None

    def fail(self, error: Exception) -> None:
        """``error``: why the run ends; on standard error it takes the place of the usual line."""
        code, text, exit_code = "E-INTERNAL", f"{type(error).__name__}: {error}", 1
        if isinstance(error, JoyFlashError):
            code, text, exit_code = error.code, " ".join(str(error).split()), error.exit_code
        self.emit("error", code=code, text=text, exit_code=exit_code)
        if self.is_stderr:
            setattr(error, _TOLD, True)


def was_told(error: BaseException) -> bool:
    """Whether an error stands on standard error already, as an event."""
    return getattr(error, _TOLD, False)


@contextlib.contextmanager
def open_events(kind: str, descriptor: int | None) -> Iterator[EventStream]:
    """The event stream that was asked for; what ends the ``with`` block becomes its last event.

    Raises:
        UsageError: For a kind that does not exist; ``E-PROGRESS-FD`` for a descriptor that cannot
            be written.
    """
    if kind not in PROGRESS_KINDS:
        raise UsageError(
            f"--progress {kind} does not exist", hint=f"one of {', '.join(PROGRESS_KINDS)}"
        )
    with contextlib.ExitStack() as own:
        if descriptor is None:
            opened = EventStream(sys.stderr if kind == "json" else None)
        else:
            stream = own.enter_context(open_descriptor(descriptor, "--progress-fd"))
            opened = EventStream(stream)
        try:
            yield opened
        except Exception as error:
            opened.fail(error)
            raise


def open_descriptor(number: int, option: str) -> BinaryIO:
    """A descriptor that the caller has opened for writing.

    Raises:
        UsageError: ``E-PROGRESS-FD``, or the like of another option, if it cannot be written.
    """
    import fcntl

    code = f"E{option.upper().replace('--', '-')}"
    problem, hint = "", f"open it, as in {number}>events.jsonl"
    if number < FIRST_FREE_DESCRIPTOR:
        problem = "is standard input, output or error"
        hint = f"open another one, as in {option} 3 3>events.jsonl"
        if option == "--progress-fd":
            hint += "; for standard error give --progress json"
    else:
        try:
            mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        except (OSError, OverflowError):
            problem = "is not open"
        else:
            if mode == os.O_RDONLY:
                problem = "can only be read"
                hint = f"open it for writing, as in {number}>events.jsonl"
    if problem:
        raise UsageError(f"{option} {number} {problem}", hint=hint, code=code)
    # A copy of its own: closing it must not close what the caller still uses.
    return cast("BinaryIO", os.fdopen(os.dup(number), "wb", buffering=0))
