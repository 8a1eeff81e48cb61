"""Whether another process writes a file: who does holds a lock on it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def is_being_written(path: Path) -> bool:
    """Whether another process writes a file at this moment."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return is_locked(descriptor)
    finally:
        os.close(descriptor)


def is_locked(descriptor: int) -> bool:
    """Whether another process holds an open file; else this one does, until it closes it.

    Where the file system knows no locks, nobody is kept out.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
