"""Values of a batch: a row as it was read, as it was checked, and what is wrong with it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from joyflash_cli.errors import UsageError

COLUMNS = ("id", "image", "audio", "output", "prompt", "seed")
REQUIRED_COLUMNS = ("id", "image", "audio")

STATE_FOLDER = ".joyflash"
"""In the output folder: ledger, claims, logs and what is being written."""

_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True)
class RawRow:
    """A row as the file gives it.

    Attributes:
        number: Which row of data, from 1; the header is not counted.
        line: Line of the file where it begins, from 1.
        values: By column; columns left out are absent. JSON may give an integer seed.
    """

    number: int
    line: int
    values: Mapping[str, str | int]


@dataclass(frozen=True)
class BatchRow:
    """A row that can be rendered as far as its text tells.

    Attributes:
        number: Which row of data, from 1.
        line: Line of the file where it begins, from 1.
        id: The user's own name of the row.
        image: Picture, absolute.
        audio: Sound, absolute.
        output: Video, relative to the output folder, with ``/`` between folders.
        prompt: As given.
        seed: ``0 <= seed < 2**63``.
    """

    number: int
    line: int
    id: str
    image: str
    audio: str
    output: str
    prompt: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Problem:
    """Something that stops the batch, or that one of its rows fails for.

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
