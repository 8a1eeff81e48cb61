"""The rows of a batch: what the manifest says of each, where it stands, and what is wrong."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from joyflash_cli.errors import UsageError

COLUMNS = ("id", "image", "audio", "output", "prompt", "seed")
REQUIRED_COLUMNS = ("id", "image", "audio")

STATE_FOLDER = ".joyflash"
"""In the output folder: ledger, claims, logs and what is being written."""

State = Literal["open", "running", "elsewhere", "done", "failed"]
"""``elsewhere``: another batch works on it at the moment."""

_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


class RawRow(NamedTuple):
    """A row as the file gives it.

    Attributes:
        number: Which row of data, from 1; the header is not counted.
        line: Line of the file where it begins, from 1.
        values: By column; columns left out are absent. JSON may give an integer seed.
        wrong: Why it has no values: its form is wrong.
    """

    number: int
    line: int
    values: Mapping[str, str | int]
    wrong: str = ""


@dataclass(slots=True)
class Row:
    """A row as it was checked, and where it stands.

    Attributes:
        number: Which row of data, from 1.
        line: Line of the file where it begins, from 1.
        id: The user's own name of the row.
        image: Picture, as the manifest gives it.
        audio: Sound, as the manifest gives it.
        output: Video, relative to the output folder, with ``/`` between folders; empty if it cannot
            be.
        prompt: As given.
        seed: ``0 <= seed < 2**63``.
        folder: Where relative pictures and sounds begin, absolute.
        mine: Whether it belongs to this run's shard.
        state: Where it stands.
        error_code: Stable code of its failure, or empty.
        error: Its failure in one line, or empty.
    """

    number: int
    line: int
    id: str
    image: str = ""
    audio: str = ""
    output: str = ""
    prompt: str = ""
    seed: int = 0
    folder: str = ""
    mine: bool = True
    state: State = "open"
    error_code: str = ""
    error: str = ""

    @property
    def image_path(self) -> Path:
        """Where the picture is, absolute."""
        return Path(absolute(self.folder, self.image))

    @property
    def audio_path(self) -> Path:
        """Where the sound is, absolute."""
        return Path(absolute(self.folder, self.audio))


class Rows:
    """The rows of a manifest in their order, counted by where they stand.

    A hundred thousand take some 100 MB.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = list(rows)
        self._counts = Counter((row.mine, row.state) for row in self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Appends a row that came later."""
        self._rows.append(row)
        self._counts[row.mine, row.state] += 1

    def mine(self, state: State) -> list[Row]:
        """Rows of this run's shard that stand so."""
        return [row for row in self._rows if row.mine and row.state == state]

    def count(self, *states: State) -> int:
        """How many rows of this run's shard stand in one of the states, or all without."""
        return sum(
            number
            for (mine, state), number in self._counts.items()
            if mine and (state in states or not states)
        )

    def set_state(self, row: Row, state: State, *, error_code: str = "", error: str = "") -> None:
        """Changes where a row stands."""
        self._counts[row.mine, row.state] -= 1
        row.state, row.error_code, row.error = state, error_code, printable(error)
        self._counts[row.mine, row.state] += 1

    def repeated(self, value_of: Callable[[Row], str]) -> list[list[Row]]:
        """Rows that share a value that is not empty, by the first of each group."""
        groups: defaultdict[str, list[Row]] = defaultdict(list)
        for row in self._rows:
            groups[value_of(row)].append(row)
        return [group for value, group in groups.items() if value and len(group) > 1]


@dataclass(frozen=True)
class Problem:
    """Something that stops the batch.

    Attributes:
        number: Row of data, from 1; 0 for the file as a whole.
        line: Line of the file.
        text: What is wrong and where.
        code: Stable identifier.
    """

    number: int
    line: int
    text: str
    code: str = "E-MANIFEST-ROW"

    def __str__(self) -> str:
        return f"row {self.number} (line {self.line}): {self.text}" if self.number else self.text


def absolute(folder: str, given: str) -> str:
    """A file's absolute path; strings because this runs for every row of tables of any length."""
    return os.path.normpath(os.path.join(folder, given))


def printable(text: str) -> str:
    """Text that may name a file whose bytes are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def same_everywhere(output: str) -> str:
    """What two outputs have in common that are one file somewhere.

    Windows and macOS do not tell capitals from small letters, macOS not the two ways to write an
    accent, and Windows drops dots and spaces at the end of a name.
    """
    parts = (part.rstrip(" .") or part for part in output.split("/"))
    folded = unicodedata.normalize("NFD", "/".join(parts)).casefold()
    return unicodedata.normalize("NFC", folded)


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of a manifest: every ``count``-th row from the ``index``-th on.

    Attributes:
        index: From 1.
        count: Number of parts.
    """

    index: int = 1
    count: int = 1

    def has(self, number: int) -> bool:
        """Whether a row of data (from 1) belongs to this part."""
        return number % self.count == self.index % self.count


def parse_shard(text: str) -> Shard:
    """The part called ``i/n``.

    Raises:
        UsageError: Unless ``1 <= i <= n``.
    """
    match = _SHARD.fullmatch(text.strip())
    index, count = (int(part) for part in match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise UsageError(
            f"shard {text!r} is not i/n with 1 <= i <= n",
            hint="give for example 2/8, the second of eight parts",
            code="E-SHARD",
        )
    return Shard(index, count)
