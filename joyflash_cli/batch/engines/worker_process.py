"""What runs in a worker process: loads once, renders what the pipe brings, ends with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from joyflash_cli.batch.jobs import Failure, RendererFactory, run_job

_PR_SET_PDEATHSIG = 1


def serve(
    pipe: Connection, load: RendererFactory, device: str, *, log: Path | None, parent: int
) -> None:
    """The life of a worker process.

    Sends ``None`` once the model is loaded, or a ``Failure`` if it cannot be; then an ``Outcome``
    for each ``Job`` received, until the end of the pipe.

    Args:
        pipe: To the parent.
        load: Makes the renderer.
        device: Handed to ``load``.
        log: Takes whatever libraries print; ``None`` throws it away.
        parent: Process number of the parent.
    """
    _die_with(parent)
    # Ctrl-C reaches every process of a terminal; only the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _redirect_streams(log)
    try:
        renderer = load(device)
    except Exception as error:  # noqa: BLE001 - the parent tells it and stops
        pipe.send(Failure.of(error))
        return
    pipe.send(None)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(run_job(renderer, job))


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, however that ends.

    Only Linux offers this. Elsewhere a worker notices when it next looks at its pipe: after the
    row it is rendering.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        os._exit(1)


def _redirect_streams(log: Path | None) -> None:
    """Keeps libraries off the parent's terminal and its standard output, which carries results."""
    try:
        target = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:
        target = os.open(os.devnull, os.O_WRONLY)  # a log is not worth a worker
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
