"""A table of renders: CSV as spreadsheets write it, or JSON lines, read one row at a time."""

from __future__ import annotations

import csv
import difflib
import io
import json
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from joyflash_cli.batch.rows import COLUMNS, REQUIRED_COLUMNS, Problem, RawRow
from joyflash_cli.errors import UsageError

MAX_LINE_CHARS = 1 << 20
"""Longest line that is read; a file without line ends must not fill the memory."""

DELIMITERS = (",", ";", "\t")
JSON_SUFFIXES = (".jsonl", ".ndjson")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class ManifestError(UsageError):
    """A manifest that cannot be read as a table."""

    code = "E-MANIFEST"


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


def read_rows(file: BinaryIO, name: str) -> Iterator[RawRow | Problem]:
    """The rows of a manifest, and a problem for each row whose form is wrong.

    UTF-8 with or without a byte order mark; any line ends. CSV begins with the names of its
    columns, separated by comma, semicolon or tab (told from that line); JSON lines hold one object
    each and are known by the suffix ``.jsonl`` or a first character ``{``.

    Args:
        file: Open for reading; need not be seekable.
        name: For messages, and the suffix.

    Raises:
        ManifestError: When the file as a whole cannot be read: no UTF-8, no header, a column
            missing or unknown, a quote that is never closed.
    """
    buffered: Any = file if hasattr(file, "peek") else io.BufferedReader(file)  # type: ignore[type-var]
    if buffered.peek(2)[:2] in _UTF16_MARKS:
        raise ManifestError(f"{name} is UTF-16", hint="save it as CSV UTF-8")
    text = io.TextIOWrapper(buffered, encoding="utf-8-sig", newline="")
    try:
        yield from _rows(text, name)
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{name} is not UTF-8 (byte 0x{error.object[error.start]:02x})",
            hint="save it as CSV UTF-8",
        ) from error
    except OSError as error:
        raise ManifestError(f"{name} cannot be read: {error.strerror or error}") from error
    finally:
        if text.closed is False:
            text.detach()


def _rows(text: io.TextIOWrapper, name: str) -> Iterator[RawRow | Problem]:
    lines = _Lines(text, name)
    first = next(iter(lines), None)
    while first is not None and not first.strip():
        first = next(lines, None)
    if first is None:
        raise ManifestError(f"{name} is empty", hint=f"its columns are {', '.join(COLUMNS)}")
    if name.lower().endswith(JSON_SUFFIXES) or first.lstrip().startswith("{"):
        yield from _json_rows(first, lines)
    else:
        yield from _csv_rows(first, lines, name)


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


def _csv_rows(first: str, lines: _Lines, name: str) -> Iterator[RawRow | Problem]:
    if first.lower().startswith("sep=") and len(first.strip()) == 5:
        delimiter = first.strip()[-1]  # a spreadsheet's own way to name it
        first = next(lines, "")
    else:
        delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(_chain(first, lines), delimiter=delimiter, strict=True)
    first_line = lines.num_read
    number = 0
    try:
        columns = _columns(next(reader, []), delimiter, name)
        while True:
            line = first_line + reader.line_num
            cells = next(reader, None)
            if cells is None:
                return
            if not any(cell.strip() for cell in cells):
                continue
            number += 1
            yield _csv_row(number, line, columns, cells)
    except csv.Error as error:
        line = first_line - 1 + reader.line_num
        raise ManifestError(
            f"{name}: line {line} is not CSV: {error}",
            hint='close every quote, and write a quote inside a cell as ""',
        ) from error


def _chain(first: str, lines: _Lines) -> Iterator[str]:
    yield first
    yield from lines


def _columns(header: list[str], delimiter: str, name: str) -> Sequence[str]:
    """Names of the columns; trailing ones without a name are a spreadsheet's leftovers."""
    columns = [cell.strip().lower() for cell in header]
    while columns and not columns[-1]:
        columns.pop()
    shown = {"\t": "tab"}.get(delimiter, repr(delimiter))
    for column in columns:
        if column not in COLUMNS:
            near = difflib.get_close_matches(column, COLUMNS, n=1)
            raise ManifestError(
                f"{name} has an unknown column {column!r:.80} (delimiter {shown})",
                hint=f"did you mean {near[0]}?" if near else f"columns: {', '.join(COLUMNS)}",
            )
        if columns.count(column) > 1:
            raise ManifestError(f"{name} has the column {column} twice", hint="keep one of them")
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    if missing:
        raise ManifestError(
            f"{name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} "
            f"(delimiter {shown})",
            hint=f"its first line names the columns: {','.join(COLUMNS)}",
        )
    return columns


def _csv_row(number: int, line: int, columns: Sequence[str], cells: list[str]) -> RawRow | Problem:
    while len(cells) > len(columns) and not cells[-1]:
        cells.pop()
    if len(cells) != len(columns):
        text = f"has {len(cells)} cells; the header has {len(columns)}"
        return Problem(number, line, text)
    return RawRow(number, line, dict(zip(columns, cells, strict=True)))


def _json_rows(first: str, lines: _Lines) -> Iterator[RawRow | Problem]:
    number = 0
    line: str | None = first
    while line is not None:
        if line.strip():
            number += 1
            yield _json_row(number, lines.num_read, line)
        line = next(lines, None)


def _json_row(number: int, line: int, text: str) -> RawRow | Problem:
    try:
        values = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        return Problem(number, line, f"is not JSON: {error}")
    if not isinstance(values, dict):
        return Problem(number, line, "is not a JSON object")
    for key, value in values.items():
        if key not in COLUMNS:
            near = difflib.get_close_matches(key, COLUMNS, n=1)
            also = f"; did you mean {near[0]}?" if near else ""
            return Problem(number, line, f"has an unknown key {key!r:.80}{also}")
        allowed = (str, int) if key == "seed" else (str,)
        # bool is a subclass of int, but true is no seed.
        if value is not None and (isinstance(value, bool) or not isinstance(value, allowed)):
            kind = "an integer" if key == "seed" else "a text"
            return Problem(number, line, f"{key} is {_shown(value)}; {kind} is needed")
    return RawRow(number, line, {key: value for key, value in values.items() if value is not None})


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
