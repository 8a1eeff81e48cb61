"""A process that another one started and that serves it alone."""

import ctypes
import os
import signal
import sys
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def serve_parent(log: Path | None = None) -> None:
    """Called first in such a process: it ends with its parent, and says nothing to a terminal.

    Ctrl-C reaches every process of a terminal; only the parent decides what it means. However the
    parent ends, this process does at once. Standard output of the parent may carry a video.

    Args:
        log: Takes whatever libraries print; ``None`` throws it away.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with_parent()
    _redirect_streams(log)


def _end_with_parent() -> None:
    """Has this process end when its parent does, however that ends.

    Linux kills it with whoever forked it, even where Python itself hangs; that may be a server of
    the parent, so a thread looks out for the parent, too.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_await_end_of_parent, name="parent", daemon=True).start()


def _await_end_of_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _redirect_streams(log: Path | None) -> None:
    try:
        target = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:
        target = os.open(os.devnull, os.O_WRONLY)  # a log is not worth the process
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
