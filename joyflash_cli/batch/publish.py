"""From a worker's own folder to the output folder: the record first, then the video, at once."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from joyflash_cli.errors import OutputError
from joyflash_cli.files import cannot_write, flush, is_disk_full, room_hint
from joyflash_cli.media.outputs.names import companions, partial_path


def publish(staged: Path, target: Path, *, overwrite: bool) -> None:
    """Gives a finished video and its record their names.

    Args:
        staged: The video where the worker wrote it, on the same file system.
        target: Its place.
        overwrite: Whether a file already there is replaced.

    Raises:
        OutputError: If that cannot be done; the staged file stays.
    """
    try:
        if not overwrite and os.path.lexists(target):
            raise _exists(target)
        if not staged.is_file():
            raise OutputError(
                f"{staged} is not there although a worker wrote it",
                hint="give an --out-dir that every machine reaches under the same path",
                code="E-OUTPUT-SHARED",
            )
        _bring_companions(staged, target)
        if overwrite:
            os.replace(staged, target)
        else:
            _move_without_replacing(staged, target)
        flush(target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error


def make_folder(folder: Path) -> None:
    """Makes a folder with its parents.

    Raises:
        OutputError: If that cannot be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def keep_partial(staged: Path, target: Path) -> bool:
    """Puts what a failed render kept beside its target, as ``<stem>.partial<suffix>``.

    Returns:
        Whether there was anything to keep.
    """
    partial = partial_path(staged)
    if not partial.is_file():
        return False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, partial_path(target))
        _bring_companions(partial, partial_path(target))
    except OSError:
        return False  # the failure itself is what must be told
    return True


def remove_partial(target: Path) -> None:
    """Removes what an earlier failure kept, now that the whole video is there."""
    with contextlib.suppress(OSError):
        for path in (partial_path(target), *companions(partial_path(target))):
            path.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Removes a folder and all in it, as far as possible."""
    shutil.rmtree(folder, ignore_errors=True)


def _bring_companions(staged: Path, target: Path) -> None:
    """Record and signed statement come along; those of an earlier video go."""
    for source, place in zip(companions(staged), companions(target), strict=True):
        try:
            os.replace(source, place)
        except FileNotFoundError:
            place.unlink(missing_ok=True)


def _move_without_replacing(staged: Path, target: Path) -> None:
    try:
        os.link(staged, target)
    except FileExistsError as error:
        raise _exists(target) from error
    except OSError:
        os.rename(staged, target)  # a file system without hard links; its absence was checked
        return
    staged.unlink()


def _exists(target: Path) -> OutputError:
    return OutputError(
        f"{target} appeared while the batch ran",
        hint="use --overwrite or another --out-dir",
        code="E-OUTPUT-EXISTS",
    )


def _cannot_write(path: Path, error: OSError) -> OutputError:
    hint = room_hint(error) if is_disk_full(error) else "choose another --out-dir"
    return cannot_write(path, error, hint=hint)
