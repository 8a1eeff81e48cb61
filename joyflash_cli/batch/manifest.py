"""A table of renders: CSV as spreadsheets write it, or JSON lines, read one row at a time."""

from __future__ import annotations

import difflib
import io
import itertools
import json
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from joyflash_cli.batch.csv_cells import Lines, ManifestError, read_cells
from joyflash_cli.batch.rows import COLUMNS, REQUIRED_COLUMNS, RawRow

MAX_NOTES = 20
"""Columns and keys that are noted as left out; a hostile table could have any number."""

MISSPELT = 0.8
"""How much a name must look like a column's to be taken for a slip of the pen."""

DELIMITERS = (",", ";", "\t")
JSON_SUFFIXES = (".jsonl", ".ndjson")
Values: TypeAlias = dict[str, str | int]
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
        yield from _Table(Lines(text, name), note or (lambda _text: None)).rows()
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


class _Table:
    """A table while it is read.

    Args:
        lines: All of it.
        note: Told, once each, which columns or keys mean nothing here.
    """

    def __init__(self, lines: Lines, note: Callable[[str], None]) -> None:
        self._lines = lines
        self._name = lines.name
        self._note = note
        self._noted: set[str] = set()

    def rows(self) -> Iterator[RawRow]:
        """Its rows."""
        first = next((line for line in self._lines if line.strip()), None)
        if first is None:
            hint = f"its columns are {', '.join(COLUMNS)}"
            raise ManifestError(f"{self._name} is empty", hint=hint)
        is_json = self._name.lower().endswith(JSON_SUFFIXES) or first.lstrip().startswith("{")
        numbers = itertools.count(1)
        for line, values in self._json(first) if is_json else self._csv(first):
            wrong = values if isinstance(values, str) else ""
            yield RawRow(next(numbers), line, {} if isinstance(values, str) else values, wrong)

    def _csv(self, first: str) -> Iterator[tuple[int, Values | str]]:
        """Line and values of each row, or what is wrong with it."""
        if first.lower().startswith("sep=") and len(first.strip()) == 5:
            delimiter = first.strip()[-1]  # a spreadsheet's own way to name it
            first = next(self._lines, "")
        else:
            delimiter = max(DELIMITERS, key=first.count)
        columns = self._columns(read_cells(first, self._lines, delimiter), delimiter)
        for text in self._lines:
            line, cells = self._lines.num_read, read_cells(text, self._lines, delimiter)
            if not any(cells):
                continue
            while len(cells) > len(columns) and not cells[-1]:
                cells.pop()
            if len(cells) != len(columns):
                yield line, f"has {len(cells)} cells; the header has {len(columns)}"
            else:
                named = zip(columns, cells, strict=True)
                yield line, {column: cell for column, cell in named if column in COLUMNS}

    def _columns(self, header: list[str], delimiter: str) -> list[str]:
        """Names of the columns; trailing ones without a name are a spreadsheet's leftovers."""
        names = [cell.lower() for cell in header]
        while names and not names[-1]:
            names.pop()
        shown = {"\t": "tab"}.get(delimiter, repr(delimiter))
        for column in names:
            if column in COLUMNS and names.count(column) > 1:
                raise ManifestError(
                    f"{self._name} has the column {column} twice", hint="keep one of them"
                )
            if column not in COLUMNS and (meant := _meant(column, names)):
                raise ManifestError(
                    f"{self._name} has an unknown column {column!r:.80} (delimiter {shown})",
                    hint=f"did you mean {meant}?",
                )
        missing = [column for column in REQUIRED_COLUMNS if column not in names]
        if missing:
            raise ManifestError(
                f"{self._name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} "
                f"(delimiter {shown})",
                hint=f"its first line names the columns: {','.join(COLUMNS)}",
            )
        for column in names:
            self._leave_out(column)
        return names

    def _json(self, first: str) -> Iterator[tuple[int, Values | str]]:
        """Line and values of each row, or what is wrong with it."""
        for line in itertools.chain([first], self._lines):
            if line.strip():
                yield self._lines.num_read, self._json_values(line)

    def _json_values(self, text: str) -> Values | str:
        try:
            values = json.loads(text, object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError) as error:
            return f"is not JSON: {error}"
        if not isinstance(values, dict):
            return "is not a JSON object"
        for key, value in values.items():
            if key not in COLUMNS:
                if meant := _meant(key, values):
                    return f"has an unknown key {key!r:.80}; did you mean {meant}?"
                self._leave_out(key)
                continue
            allowed = (str, int) if key == "seed" else (str,)
            # bool is a subclass of int, but true is no seed.
            if value is not None and (isinstance(value, bool) or not isinstance(value, allowed)):
                kind = "an integer" if key == "seed" else "a text"
                return f"{key} is {_shown(value)}; {kind} is needed"
        return {key: values[key] for key in COLUMNS if values.get(key) is not None}

    def _leave_out(self, column: str) -> None:
        """Notes a column or key that means nothing here."""
        if column in COLUMNS or column in self._noted or len(self._noted) == MAX_NOTES:
            return
        self._noted.add(column)
        self._note(f"{self._name}: {column!r:.80} is no column of a batch and is left out")


def _meant(column: str, known: Collection[str]) -> str | None:
    """The column that a name is a misspelling of, unless that one is there as well."""
    near = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=MISSPELT)
    return near[0] if near and near[0] not in known else None


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
