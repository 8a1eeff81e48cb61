"""Cells of a line of CSV as people and spreadsheets write it, and where a quote was opened."""

from __future__ import annotations

import re
from typing import TextIO

from joyflash_cli.errors import UsageError

MAX_CELL_CHARS = 1 << 17
"""Longest cell; a quote that is never closed must not take in the whole file."""

MAX_LINE_CHARS = 1 << 20
"""Longest line that is read; a file without line ends must not fill the memory."""

_SPACES = re.compile(" *")
_TO_QUOTE = re.compile('[^"]*')


class ManifestError(UsageError):
    """A manifest that cannot be read as a table."""

    code = "E-MANIFEST"


class Lines:
    """Lines of a text, each of bounded length, counted.

    Args:
        text: Read with its line ends as they are.
        name: Of the file, for messages.
    """

    def __init__(self, text: TextIO, name: str) -> None:
        self._text = text
        self.name = name
        self.num_read = 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_LINE_CHARS + 1)
        if not line:
            raise StopIteration
        self.num_read += 1
        if len(line) > MAX_LINE_CHARS:
            raise ManifestError(
                f"{self.name}: line {self.num_read} is longer than {MAX_LINE_CHARS} characters",
                hint="check that this is a manifest",
            )
        return line


def read_cells(line: str, lines: Lines, delimiter: str) -> list[str]:
    """The cells of a row, without the spaces around them.

    A quote at the beginning of a cell opens it, two stand for one inside, and a quoted cell may go
    on in the next lines; its own spaces and line ends are kept.

    Args:
        line: The row's first line.
        lines: Whence the next ones come.
        delimiter: One character.

    Raises:
        ManifestError: For a quote that is not closed, or closed inside of its cell; the line is the
            one of the quote. For a cell without end.
    """
    if '"' not in line:
        cells = [cell.strip() for cell in line.split(delimiter)]
        if max(map(len, cells)) > MAX_CELL_CHARS:
            raise _no_csv(
                lines, lines.num_read, f"a cell has more than {MAX_CELL_CHARS} characters"
            )
        return cells
    cells, place = [], 0
    while True:
        start = _end_of(_SPACES, line, place)
        if line[start : start + 1] == '"':
            cell, line, place = _quoted_cell(line, start + 1, lines, delimiter)
        else:
            place = line.find(delimiter, start)
            place = len(line) if place < 0 else place
            cell = line[start:place].strip()
        cells.append(cell)
        if place >= len(line):
            return cells
        place += 1


def _quoted_cell(line: str, place: int, lines: Lines, delimiter: str) -> tuple[str, str, int]:
    """A cell from behind its quote on; the line where it ends, and the place behind it."""
    opened, parts, size = lines.num_read, [], 0
    while True:
        stop = _end_of(_TO_QUOTE, line, place)
        parts.append(line[place:stop])
        size += stop - place
        if size > MAX_CELL_CHARS:
            break
        if stop == len(line):
            following = next(lines, None)
            if following is None:
                break
            line, place = following, 0
        elif line[stop + 1 : stop + 2] == '"':
            parts.append('"')
            place = stop + 2
        else:
            place = _end_of(_SPACES, line, stop + 1)
            if line[place : place + 1] in (delimiter, "\r", "\n", ""):
                is_last = line[place : place + 1] != delimiter
                return "".join(parts), line, len(line) if is_last else place
            where = "" if lines.num_read == opened else f" in line {lines.num_read}"
            raise _no_csv(lines, opened, f"the quote opened here ends inside of a cell{where}")
    raise _no_csv(lines, opened, "the quote opened here is never closed")


def _end_of(pattern: re.Pattern[str], line: str, place: int) -> int:
    found = pattern.match(line, place)
    return place if found is None else found.end()


def _no_csv(lines: Lines, line: int, why: str) -> ManifestError:
    return ManifestError(
        f"{lines.name}: line {line} is not CSV: {why}",
        hint='close every quote, and write a quote inside a cell as ""',
    )
