"""A table of renders: CSV as spreadsheets write it, or JSON lines, read one row at a time."""

from __future__ import annotations

import difflib
import io
import json
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from joyflash_cli.batch.csv_cells import ManifestError, read_cells
from joyflash_cli.batch.rows import COLUMNS, REQUIRED_COLUMNS, RawRow

MAX_LINE_CHARS = 1 << 20
"""Longest line that is read; a file without line ends must not fill the memory."""

MAX_NOTES = 20
"""Columns and keys that are noted as left out; a hostile table could have any number."""

MISSPELT = 0.8
"""How much a name must look like a column's to be taken for a slip of the pen."""

DELIMITERS = (",", ";", "\t")
JSON_SUFFIXES = (".jsonl", ".ndjson")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def open_manifest(path: Path) -> BinaryIO:
    """The file, opened; a pipe such as ``/dev/fd/63`` is welcome, too.

    Raises:
        ManifestError: If it is missing, a folder or not readable.
    """
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise ManifestError(f"{path} is a folder", hint="give a CSV or JSON lines file")
        return path.open("rb")
    except OSError as error:
        raise ManifestError(
            f"{path}: {(error.strerror or str(error)).lower()}",
            hint="give the path of a CSV or JSON lines file",
        ) from error


def read_rows(
    file: BinaryIO, name: str, *, note: Callable[[str], None] | None = None
) -> Iterator[RawRow]:
    """The rows of a manifest, also those whose form is wrong.

    UTF-8 with or without a byte order mark, or UTF-16 (the "Unicode text" of spreadsheets); any
    line ends. CSV begins with the names of its columns, separated by comma, semicolon or tab (told
    from that line); spaces around cells and outside of quotes do not count. JSON lines hold one
    object each and are known by the suffix ``.jsonl`` or a first character ``{``. Columns and keys
    that mean nothing here are left out.

    Args:
        file: Open for reading; need not be seekable.
        name: For messages, and the suffix.
        note: Told, once each, which columns or keys are left out.

    Raises:
        ManifestError: When the file as a whole cannot be read: no Unicode, no header, a column
            missing or misspelt, a quote that is never closed.
    """
    buffered: Any = file if hasattr(file, "peek") else io.BufferedReader(file)  # type: ignore[type-var]
    encoding = _encoding(buffered.peek(2)[:2])
    text = io.TextIOWrapper(buffered, encoding=encoding, newline="")
    try:
        yield from _rows(text, name, _Extras(name, note or _nothing))
    except UnicodeError as error:
        byte = ""
        if isinstance(error, UnicodeDecodeError):
            byte = f" (byte 0x{error.object[error.start]:02x})"
        raise ManifestError(
            f"{name} is not {encoding.removesuffix('-sig').upper()}{byte}",
            hint="save it as CSV UTF-8",
        ) from error
    except OSError as error:
        raise ManifestError(f"{name} cannot be read: {error.strerror or error}") from error
    finally:
        if text.closed is False:
            text.detach()


def _encoding(start: bytes) -> str:
    """The encoding that a file's first two bytes speak of; a table begins with an ASCII letter."""
    if start in _UTF16_MARKS:
        return "utf-16"
    if len(start) == 2 and 0 in start and any(start):
        return "utf-16-le" if start[1] == 0 else "utf-16-be"
    return "utf-8-sig"


class _Extras:
    """Columns and keys that mean nothing here: noted once each, misspelt ones refused."""

    def __init__(self, name: str, note: Callable[[str], None]) -> None:
        self._name = name
        self._note = note
        self._noted: set[str] = set()

    def meant(self, column: str, known: Collection[str]) -> str | None:
        """The column that a name is a misspelling of, unless that one is there as well."""
        near = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=MISSPELT)
        return near[0] if near and near[0] not in known else None

    def leave_out(self, column: str) -> None:
        """Notes it."""
        if column not in self._noted and len(self._noted) < MAX_NOTES:
            self._noted.add(column)
            self._note(f"{self._name}: {column!r:.80} is no column of a batch and is left out")


def _rows(text: io.TextIOWrapper, name: str, extras: _Extras) -> Iterator[RawRow]:
    lines = _Lines(text, name)
    first = next(iter(lines), None)
    while first is not None and not first.strip():
        first = next(lines, None)
    if first is None:
        raise ManifestError(f"{name} is empty", hint=f"its columns are {', '.join(COLUMNS)}")
    if name.lower().endswith(JSON_SUFFIXES) or first.lstrip().startswith("{"):
        yield from _json_rows(first, lines, extras)
    else:
        yield from _csv_rows(first, lines, name, extras)


class _Lines:
    """Lines of a text, each of bounded length, counted."""

    def __init__(self, text: io.TextIOWrapper, name: str) -> None:
        self._text = text
        self._name = name
        self.num_read = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_LINE_CHARS + 1)
        if not line:
            raise StopIteration
        self.num_read += 1
        if len(line) > MAX_LINE_CHARS:
            raise ManifestError(
                f"{self._name}: line {self.num_read} is longer than {MAX_LINE_CHARS} characters",
                hint="check that this is a manifest",
            )
        return line


def _csv_rows(first: str, lines: _Lines, name: str, extras: _Extras) -> Iterator[RawRow]:
    if first.lower().startswith("sep=") and len(first.strip()) == 5:
        delimiter = first.strip()[-1]  # a spreadsheet's own way to name it
        first = next(lines, "")
    else:
        delimiter = max(DELIMITERS, key=first.count)
    columns = _columns(read_cells(first, lines, delimiter, name), delimiter, name, extras)
    number = 0
    for text in lines:
        line = lines.num_read
        cells = read_cells(text, lines, delimiter, name)
        if not any(cells):
            continue
        number += 1
        yield _csv_row(number, line, columns, cells)


def _columns(header: list[str], delimiter: str, name: str, extras: _Extras) -> Sequence[str | None]:
    """Names of the columns, ``None`` for those left out.

    Trailing ones without a name are a spreadsheet's leftovers.
    """
    names = [cell.lower() for cell in header]
    while names and not names[-1]:
        names.pop()
    shown = {"\t": "tab"}.get(delimiter, repr(delimiter))
    for column in names:
        if column in COLUMNS and names.count(column) > 1:
            raise ManifestError(f"{name} has the column {column} twice", hint="keep one of them")
        if column not in COLUMNS and (meant := extras.meant(column, names)):
            raise ManifestError(
                f"{name} has an unknown column {column!r:.80} (delimiter {shown})",
                hint=f"did you mean {meant}?",
            )
    missing = [column for column in REQUIRED_COLUMNS if column not in names]
    if missing:
        raise ManifestError(
            f"{name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} "
            f"(delimiter {shown})",
            hint=f"its first line names the columns: {','.join(COLUMNS)}",
        )
    for column in names:
        if column not in COLUMNS:
            extras.leave_out(column)
    return [column if column in COLUMNS else None for column in names]


def _csv_row(number: int, line: int, columns: Sequence[str | None], cells: list[str]) -> RawRow:
    while len(cells) > len(columns) and not cells[-1]:
        cells.pop()
    if len(cells) != len(columns):
        text = f"has {len(cells)} cells; the header has {len(columns)}"
        return RawRow(number, line, {}, text)
    named = zip(columns, cells, strict=True)
    return RawRow(number, line, {column: cell for column, cell in named if column is not None})


def _json_rows(first: str, lines: _Lines, extras: _Extras) -> Iterator[RawRow]:
    number = 0
    line: str | None = first
    while line is not None:
        if line.strip():
            number += 1
            yield _json_row(number, lines.num_read, line, extras)
        line = next(lines, None)


def _json_row(number: int, line: int, text: str, extras: _Extras) -> RawRow:
    try:
        values = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        return RawRow(number, line, {}, f"is not JSON: {error}")
    if not isinstance(values, dict):
        return RawRow(number, line, {}, "is not a JSON object")
    for key, value in values.items():
        if key not in COLUMNS:
            if meant := extras.meant(key, values):
                also = f"; did you mean {meant}?"
                return RawRow(number, line, {}, f"has an unknown key {key!r:.80}{also}")
            extras.leave_out(key)
            continue
        allowed = (str, int) if key == "seed" else (str,)
        # bool is a subclass of int, but true is no seed.
        if value is not None and (isinstance(value, bool) or not isinstance(value, allowed)):
            kind = "an integer" if key == "seed" else "a text"
            return RawRow(number, line, {}, f"{key} is {_shown(value)}; {kind} is needed")
    given = {key: values[key] for key in COLUMNS if values.get(key) is not None}
    return RawRow(number, line, given)


def _shown(value: Any) -> str:
    """The beginning of a value; of one that is nested for ever, only its kind."""
    try:
        return json.dumps(value)[:80]
    except RecursionError:
        return f"a {type(value).__name__}"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values


def _nothing(_text: str) -> None:
    pass
