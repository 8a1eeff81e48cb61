"""A disk that is full while a stage writes: one line and what to do, not a bug."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from joyflash_cli.checkpoints.tensors import as_os_error
from joyflash_cli.errors import OutputError, is_disk_full, room_hint, write_reason


@contextlib.contextmanager
def full_disk_told(folder: str | Path) -> Iterator[None]:
    """Within it, a stage runs.

    Args:
        folder: Of the run, named where the system does not say which file it was.

    Raises:
        OutputError: ``E-OUTPUT-FULL``.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        known = error if isinstance(error, OSError) else as_os_error(error)
        if not is_disk_full(known):
            raise
        raise OutputError(
            f"{known.filename or folder} cannot be written: {write_reason(known)}",
            hint=f"{room_hint(known)}, then run the same command again; --resume goes on from the "
            "last state",
            code="E-OUTPUT-FULL",
        ) from error
