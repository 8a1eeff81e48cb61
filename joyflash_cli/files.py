"""Files: written whole or not at all, hashed, locked, and why the system takes no more.

A file is written under a hidden name beside its own, ``.NAME.part``, and gets its own name only
when it is whole. Whoever reads the place sees the earlier file or the new one, never half of one.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from joyflash_cli.errors import OutputError

MAX_NAME_BYTES = 255
"""Of a file name on the usual file systems."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where there is no more room: on the disk, in a quota, or in one file."""

_PIECE_BYTES = 4 << 20


def part_path(path: Path, mark: str = "") -> Path:
    """What a file is called while it is written.

    Args:
        path: Its name when it is whole.
        mark: Tells writers apart that may write the same file at the same time.
    """
    hidden = path.with_name(f".{path.name}.{mark}.part" if mark else f".{path.name}.part")
    if name_bytes(hidden) <= MAX_NAME_BYTES:
        return hidden
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()
    return path.with_name(f".{digest[:32]}.part")


def name_bytes(path: Path) -> int:
    """Bytes of a file's name, which is what file systems limit."""
    return len(os.fsencode(path.name))


@contextlib.contextmanager
def whole_file(path: Path, *, mark: str = "", durable: bool = False) -> Iterator[Path]:
    """The place to write a file at; it gets its name when the block ends without an error.

    After an error nothing is left of it, and an earlier file under that name is untouched.

    Args:
        path: The file to be; its folder exists.
        mark: As for :func:`part_path`.
        durable: Whether its bytes are to be on the disk before it gets its name.

    Raises:
        OSError: If it cannot be written.
    """
    part = part_path(path, mark)
    part.unlink(missing_ok=True)  # never through a link
    try:
        yield part
        if durable:
            flush(part)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes, *, mark: str = "", durable: bool = False) -> None:
    """Writes a text, as UTF-8, or bytes; see :func:`whole_file`."""
    with whole_file(path, mark=mark, durable=durable) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def check_place(path: Path, *, hint: str) -> None:
    """Refuses a place where a file could not be written, before the work for it is done.

    Args:
        path: The file to be; its folder is made.
        hint: The next step of the error.

    Raises:
        OutputError: ``E-OUTPUT-FULL`` or ``E-OUTPUT-WRITE``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        probe = part_path(path, "probe")
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        raise cannot_write(path, error, hint=hint) from error


def free_disk_bytes(place: Path) -> int:
    """Room on the disk where something is, or will be once it is made."""
    existing = next(path for path in (place, *place.parents) if path.exists())
    return shutil.disk_usage(existing).free


def flush(path: Path) -> None:
    """Returns when what was written to a file, or what happened in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path, *, on_bytes: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file's bytes, lower-case hexadecimal.

    Args:
        path: The file.
        on_bytes: Hears the size of every piece that was read, 4 MiB at most.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            if on_bytes is not None:
                on_bytes(len(piece))
    return digest.hexdigest()


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


def is_disk_full(error: BaseException) -> bool:
    """Whether the system refused to write for want of room."""
    return isinstance(error, OSError) and error.errno in DISK_FULL


def write_reason(error: BaseException) -> str:
    """Why the system refused to write."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOSPC:
        return "the disk is full"
    if number == errno.EDQUOT:
        return "the disk quota is used up"
    if number == errno.EFBIG:
        return _file_size_limit() or "the file system takes no larger file"
    return getattr(error, "strerror", None) or str(error)


def room_hint(error: BaseException) -> str:
    """The next step where there is no more room."""
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        if _file_size_limit():
            return "raise the limit with ulimit -f unlimited"
        return "choose a place on another file system"
    return "free some space or choose another place"


def cannot_write(place: Path | str, error: BaseException, *, hint: str) -> OutputError:
    """The error for what could not be written: ``E-OUTPUT-FULL`` or ``E-OUTPUT-WRITE``.

    Args:
        place: What was written.
        error: What the system or a library said.
        hint: The next step.
    """
    return OutputError(
        f"{place} cannot be written: {write_reason(error)}",
        hint=hint,
        code="E-OUTPUT-FULL" if is_disk_full(error) else "E-OUTPUT-WRITE",
    )


def _file_size_limit() -> str:
    """The size that this process may give a file, in words; empty where there is no limit."""
    try:
        import resource
    except ImportError:  # a system without such limits
        return ""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return ""
    return f"no file may be larger than {limit} bytes (ulimit -f)"
