"""Where the videos of a batch may go: inside the output folder, and in nobody's place."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from joyflash_cli.batch.rows import STATE_FOLDER, Problem, Row, Rows
from joyflash_cli.errors import OutputError
from joyflash_cli.media.outputs.names import companions, partial_path, sidecar_path


def real_place(out_dir: Path, output: str) -> Path:
    """Where a row's video really goes: links are followed, as long as they stay inside.

    Args:
        out_dir: Output folder.
        output: Of the row.

    Raises:
        OutputError: ``E-OUTPUT-FOLDER`` when that is not inside the output folder, or is in the
            folder that belongs to the batch.
    """
    home, place = os.path.realpath(out_dir), os.path.realpath(out_dir / output)
    if not place.startswith(f"{home.rstrip(os.sep)}{os.sep}") or os.path.islink(place):
        raise OutputError(
            f"output {output!r} leaves the output folder, through a link to {place}",
            hint="choose another output, or another --out-dir",
            code="E-OUTPUT-FOLDER",
        )
    if os.path.relpath(place, home).partition(os.sep)[0] == STATE_FOLDER:
        raise OutputError(
            f"output {output!r} lies in {STATE_FOLDER}, which belongs to the batch",
            hint="choose another output",
            code="E-OUTPUT-FOLDER",
        )
    return Path(place)


class InputFiles:
    """The files that a batch reads: none of them may ever be replaced.

    Args:
        rows: Their pictures and sounds are meant.
        manifest: The table itself, unless it is a pipe.
    """

    def __init__(self, rows: Rows, manifest: BinaryIO) -> None:
        self._rows = rows
        self._identities: set[tuple[int, int]] | None = None  # asked for few batches
        self._manifest: tuple[int, int] | None = None
        with contextlib.suppress(OSError, ValueError):
            self._manifest = _identity(os.fstat(manifest.fileno()))

    def add(self, row: Row) -> None:
        """One more row is read; those before it were meant when this was made."""
        if self._identities is not None:
            self._identities |= _identities_of((row.image_path, row.audio_path))

    def __contains__(self, path: Path) -> bool:
        try:
            wanted = _identity(path.stat())  # through whatever links
        except OSError:
            return False
        if self._identities is None:
            given = {name for row in self._rows for name in (row.image_path, row.audio_path)}
            self._identities = _identities_of(given)
        return wanted == self._manifest or wanted in self._identities


def target_problem(
    row: Row,
    out_dir: Path,
    inputs: InputFiles,
    *,
    is_ours: bool,
    may_replace: Callable[[Row], bool],
) -> tuple[str, str]:
    """Why a row's video, its record or a part of it may not be written, and a code; or nothing.

    Args:
        row: The row.
        out_dir: Folder of the batch.
        inputs: What the batch reads.
        is_ours: Whether the ledger knows of a video there.
        may_replace: Says whether what stands there may go.
    """
    try:
        place = real_place(out_dir, row.output)
    except OutputError as error:
        return error.message, error.code
    partial = partial_path(place)
    names = (place, *companions(place), partial, *companions(partial))
    taken = [path for path in names if os.path.lexists(path)]
    for path in taken:
        if path in inputs:
            return f"{_shown(path, place, row)} is a file that rows read", "E-OUTPUT-INPUT"
        if path.is_dir():
            return f"{_shown(path, place, row)} is a folder", "E-OUTPUT-EXISTS"
    if not taken or may_replace(row):
        return "", ""
    if place in taken:
        what = "with other settings, or was changed since" if is_ours else "by something else"
        text = f"output {row.output!r} exists already and was made {what}"
    elif is_ours:
        return "", ""
    else:
        text = f"{_shown(taken[0], place, row)} exists without its video"
    return text, "E-OUTPUT-EXISTS"


def shared_places(rows: Rows, out_dir: Path) -> Iterator[Problem]:
    """Rows whose video, or the part of it that would be kept, is another row's video."""
    folder_of = lru_cache(4096)(os.path.realpath)
    home = folder_of(out_dir)
    outputs = {row.output for row in rows}
    linked: dict[str, str] = {}
    for row in rows:
        output = row.output
        folder, name = posixpath.split(output)
        stem, suffix = posixpath.splitext(name)
        whole = f"{stem.removesuffix('.partial')}{suffix}"
        if whole != name and posixpath.join(folder, whole) in outputs:
            text = f"output {output!r} is what a part of output {whole!r} would be called"
            yield Problem(row.number, row.line, text)
        path = os.path.join(folder_of(os.path.join(out_dir, folder)), name)
        real = folder_of(path) if os.path.islink(path) else path
        if real == os.path.join(home, output):
            continue
        inside = os.path.relpath(real, home).replace(os.sep, "/")
        other = inside if inside in outputs else linked.setdefault(real, output)
        if other != output:
            text = f"output {output!r} is the same file as output {other!r}"
            yield Problem(row.number, row.line, text)


def _identities_of(names: Iterable[Path]) -> set[tuple[int, int]]:
    found = set()
    for name in names:
        with contextlib.suppress(OSError, ValueError):  # or no name of a file at all
            found.add(_identity(name.stat()))
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _shown(path: Path, place: Path, row: Row) -> str:
    if path == place:
        return f"output {row.output!r}"
    what = "a part that was kept"
    if path in companions(place):
        what = "the record" if path == sidecar_path(place) else "the signed statement"
    return f"{path.name!r}, {what} of output {row.output!r},"
