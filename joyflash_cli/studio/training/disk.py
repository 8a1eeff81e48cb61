"""What a stage can meet outside of itself, told in one line: it is no bug."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from joyflash_cli.errors import (
    ConfigError,
    DataError,
    OutputError,
)
from joyflash_cli.files import is_disk_full, room_hint, write_reason
from joyflash_cli.weights.tensors import as_os_error


@contextlib.contextmanager
def surroundings_told(folder: Path) -> Iterator[None]:
    """Within it, a stage runs.

    Args:
        folder: Of the run; made if it is not there, and named where the system does not say which
            file it was.

    Raises:
        OutputError: ``E-OUTPUT-FULL`` for a full disk, else for what cannot be written.
        DataError: For a file of an earlier stage that is not there.
        ConfigError: For a package that is not installed.
    """
    from safetensors import SafetensorError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename or str(error)} is missing",
            hint="run the stages before this one first",
        ) from error
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The package {error.name} is not installed", hint="pip install 'joyflash[train]'"
        ) from error
    except (OSError, SafetensorError) as error:
        known = error if isinstance(error, OSError) else as_os_error(error)
        if is_disk_full(known):
            raise OutputError(
                f"{known.filename or folder} cannot be written: {write_reason(known)}",
                hint=f"{room_hint(known)}, then run the same command again; --resume goes on from "
                "the last state",
                code="E-OUTPUT-FULL",
            ) from error
        if known is None or known.filename is None:
            raise
        raise OutputError(
            f"{known.filename}: {known.strerror}", hint=f"work_dir is {folder}"
        ) from error
