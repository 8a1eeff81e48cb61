"""What runs in a worker process: loads once, renders what the pipe brings, ends with its parent."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from joyflash_cli.batch.jobs import Failure, RendererFactory, run_job
from joyflash_cli.processes import serve_parent


def serve(pipe: Connection, load: RendererFactory, device: str, *, log: Path | None) -> None:
    """The life of a worker process.

    Sends ``None`` once the model is loaded, or a ``Failure`` if it cannot be; then an ``Outcome``
    for each ``Job`` received, until the end of the pipe.

    Args:
        pipe: To the parent.
        load: Makes the renderer.
        device: Handed to ``load``.
        log: Takes whatever libraries print; ``None`` throws it away.
    """
    serve_parent(log)
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
