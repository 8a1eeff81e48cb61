"""Where the videos of a batch may go: inside the output folder, and in nobody's place."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from joyflash_cli.batch.rows import STATE_FOLDER, Problem
from joyflash_cli.errors import OutputError
from joyflash_cli.media.outputs.names import partial_path, sidecar_path

if TYPE_CHECKING:
    from joyflash_cli.batch.rows import BatchRow
    from joyflash_cli.batch.table import RowTable

Replaceable: TypeAlias = "Callable[[BatchRow], bool]"


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


def target_problem(
    table: RowTable, row: BatchRow, out_dir: Path, *, overwrite: bool, may_replace: Replaceable
) -> tuple[str, str]:
    """Why a row's video, its record or a part of it may not be written, and a code; or nothing.

    Args:
        table: All rows, with what they read and what was made of them.
        row: The row.
        out_dir: Folder of the batch.
        overwrite: Whether whatever stands there may be replaced.
        may_replace: Says whether the row's old video is this batch's own and as it was made.
    """
    try:
        place = real_place(out_dir, row.output)
    except OutputError as error:
        return error.message, error.code
    partial = partial_path(place)
    names = (place, sidecar_path(place), partial, sidecar_path(partial))
    taken = [path for path in names if os.path.lexists(path)]
    for path in taken:
        shown = _shown(path, place, row)
        if table.is_input(path):
            return f"{shown} is a file that rows read", "E-OUTPUT-INPUT"
        if path.is_dir():
            return f"{shown} is a folder", "E-OUTPUT-EXISTS"
    ours = table.settled(row.output) is not None
    if not taken or overwrite:
        return "", ""
    text = ""
    if place in taken:
        what = "with other settings, or was changed since" if ours else "by something else"
        if not may_replace(row):
            text = f"output {row.output!r} exists already and was made {what}"
    elif not ours:
        text = f"{_shown(taken[0], place, row)} exists without its video"
    return (text, "E-OUTPUT-EXISTS") if text else ("", "")


def shared_places(table: RowTable, out_dir: Path) -> Iterator[Problem]:
    """Rows whose video, or the part of it that would be kept, is another row's video."""
    folder_of = lru_cache(4096)(os.path.realpath)
    home = folder_of(out_dir)
    linked: dict[str, str] = {}
    for number, line, output in table.outputs():
        folder, name = posixpath.split(output)
        stem, suffix = posixpath.splitext(name)
        whole = f"{stem.removesuffix('.partial')}{suffix}"
        if whole != name and table.has_output(posixpath.join(folder, whole)):
            text = f"output {output!r} is what a part of output {whole!r} would be called"
            yield Problem(number, line, text)
        path = os.path.join(folder_of(os.path.join(out_dir, folder)), name)
        real = folder_of(path) if os.path.islink(path) else path
        if real == os.path.join(home, output):
            continue
        inside = os.path.relpath(real, home).replace(os.sep, "/")
        other = inside if table.has_output(inside) else linked.setdefault(real, output)
        if other != output:
            text = f"output {output!r} is the same file as output {other!r}"
            yield Problem(number, line, text)


def _shown(path: Path, place: Path, row: BatchRow) -> str:
    if path == place:
        return f"output {row.output!r}"
    what = "the record" if path == sidecar_path(place) else "a part that was kept"
    return f"{path.name!r}, {what} of output {row.output!r},"
