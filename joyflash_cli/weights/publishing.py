"""A checkpoint directory while it is being made: another name first, its own when it is whole."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from joyflash_cli.errors import OutputError
from joyflash_cli.weights.integrity import write_checksums


@contextlib.contextmanager
def published_directory(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A directory to fill, which gets the target's name when the block ends without an error.

    The hashes of its files are recorded in it. What an earlier process left behind under such a
    name is removed. Two processes that make the same checkpoint do not meet: the later one replaces
    the earlier one's, whole for whole.

    Args:
        target: The directory to be.
        overwrite: Whether one that is there may be replaced.

    Raises:
        OutputError: ``E-OUTPUT-EXISTS`` something is there, ``E-OUTPUT-FOLDER`` nothing can be
            made beside it, ``E-OUTPUT-DISK`` it cannot be written.
    """
    target = target.absolute()
    if not overwrite:
        _refuse_existing(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        staging = target.with_name(f".{target.name}.part-{os.getpid()}")
        staging.mkdir()
    except OSError as error:
        raise OutputError(
            f"{target} cannot be made: {error.strerror or error}",
            hint="choose another place with --output",
            code="E-OUTPUT-FOLDER",
        ) from error
    try:
        yield staging
        write_checksums(staging)
        if not overwrite:
            _refuse_existing(target)
        _move(staging, target)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {error.strerror or error}",
            hint="make room, or choose another place with --output",
            code="E-OUTPUT-DISK",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _refuse_existing(target: Path) -> None:
    if target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise OutputError(
            f"{target} exists already",
            hint="use --overwrite or another --output",
            code="E-OUTPUT-EXISTS",
        )


def _move(staging: Path, target: Path) -> None:
    """Gives the new directory its name; an earlier one goes only then."""
    earlier = staging.with_name(f"{staging.name}-earlier")
    if target.exists():
        os.replace(target, earlier)
    try:
        os.replace(staging, target)
    except OSError:
        if earlier.exists():
            os.replace(earlier, target)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def _remove_abandoned(target: Path) -> None:
    """Removes what processes that are gone left behind."""
    for path in target.parent.glob(f".{target.name}.part-*"):
        number = path.name.rpartition("part-")[2].partition("-")[0]
        if number.isdigit() and not _is_running(int(number)):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
