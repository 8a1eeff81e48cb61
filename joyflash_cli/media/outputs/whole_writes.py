"""Bytes into a stream, all of them or an error: a stream may take less than it is given."""

from __future__ import annotations

import errno
import os
import select
from typing import Any

MOST_REFUSALS = 1_000
"""How often in a row a stream may say that it can be written and then take nothing."""


def write_all(stream: Any, data: bytes) -> None:
    """Writes and flushes; waits where the stream is full and does not wait by itself.

    Args:
        stream: Binary, raw or buffered, perhaps a pipe that does not block.
        data: What to write.

    Raises:
        OSError: If it cannot be written, or takes nothing more and cannot be waited for.
    """
    view, refusals = memoryview(data), 0
    while view:
        try:
            written = stream.write(view) or 0
        except BlockingIOError as error:
            written = getattr(error, "characters_written", 0)
        view = view[written:]
        refusals = 0 if written else refusals + 1
        if not written:
            _wait(stream, refusals)
    refusals = 0
    while True:
        try:
            stream.flush()
        except BlockingIOError:
            refusals += 1
            _wait(stream, refusals)
        else:
            return


def _wait(stream: Any, refusals: int) -> None:
    """Until the stream can be written again."""
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):
        descriptor = -1
    if descriptor < 0 or refusals > MOST_REFUSALS:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
