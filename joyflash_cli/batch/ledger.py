"""The ledger: one line per change of state, appended and flushed to the disk, never rewritten.

Several batches may write it at once. Each line is one ``write`` to a file opened for appending,
under a lock where the file system has working locks. A line cut short by a crash or a full disk is
skipped by readers, and the next line begins on a new one.

A line is a JSON object with ``v`` (1), ``time`` (UTC), ``owner`` (which run), ``host``, ``state``,
``id``, ``output``, ``row`` and, by state:

===============  ===================================================================================
``started``      ``key``, ``attempt``
``lost``         ``attempt``, ``error``: the worker died
``released``     the run was stopped before the row was finished
``publishing``   ``key``, ``settings``, ``image``, ``audio`` (digests and stamps), ``facts``,
                 ``replaces`` (what earlier runs made there); the video is about to get its name
``done``         the same, and it has its name
``failed``       ``key``, ``settings``, ``image``, ``audio``, ``replaces``, ``code``, ``error``,
                 ``attempt``
===============  ===================================================================================
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from joyflash_cli.errors import OutputError
from joyflash_cli.files import cannot_write, room_hint

LEDGER_VERSION = 1
_TEXTS = ("key", "settings", "id", "code", "error", "time")
SETTLED_STATES = ("publishing", "done", "failed")
"""States that later runs go by; the others are history."""


class Ledger:
    """A ledger file, which need not exist before the first line is written.

    What it says last about each output stays in the file; only where that begins is kept in memory.

    Args:
        path: ``ledger.jsonl``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        """Byte up to which the file was read."""
        self._last: dict[str, tuple[int, str]] = {}

    def append(self, record: Mapping[str, Any], *, owner: str = "", host: str = "") -> None:
        """Adds a line; it is on the disk when this returns.

        Args:
            record: What the line says.
            owner: Name of this run.
            host: Name of this machine.

        Raises:
            OutputError: ``E-OUTPUT-FULL`` or ``E-OUTPUT-WRITE``.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        head = {"v": LEDGER_VERSION, "time": now, "owner": owner, "host": host}
        line = json.dumps({**head, **record})
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                with _locked(descriptor):
                    _append_line(descriptor, line.encode() + b"\n")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise cannot_write(
                self.path,
                error,
                hint=f"{room_hint(error)}; the same command goes on where it stopped",
            ) from error

    def read_new(self) -> int:
        """Takes in what was added since the last call; how many settled lines there were.

        Raises:
            OutputError: If the file is there but cannot be read.
        """
        num_lines = 0
        with self._reading(self.position) as file:
            while (line := file.readline()).endswith(b"\n"):
                start, self.position = self.position, self.position + len(line)
                record = _parse(line)
                if record is not None and record["state"] in SETTLED_STATES:
                    num_lines += 1
                    self._last[record["output"]] = (start, record["state"])
        return num_lines

    def last(self, output: str) -> dict[str, Any] | None:
        """The last word about an output: the settled line, or ``None``.

        Raises:
            OutputError: If the file cannot be read.
        """
        if output not in self._last:
            return None
        with self._reading(self._last[output][0]) as file:
            return _parse(file.readline())

    def last_state(self, output: str) -> str:
        """The state of that line, or nothing."""
        return self._last[output][1] if output in self._last else ""

    def last_position(self, output: str) -> int:
        """The byte where that line begins, or -1."""
        return self._last[output][0] if output in self._last else -1

    @contextlib.contextmanager
    def _reading(self, position: int) -> Iterator[BinaryIO]:
        try:
            with self.path.open("rb") if self.path.exists() else io.BytesIO() as file:
                file.seek(position)
                yield file
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be read: {error.strerror or error}",
                hint="give a folder of your own as --out-dir",
                code="E-OUTPUT-LEDGER",
            ) from error


def _append_line(descriptor: int, line: bytes) -> None:
    end = os.fstat(descriptor).st_size
    if end and os.pread(descriptor, 1, end - 1) != b"\n":
        line = b"\n" + line  # the line before was cut short
    written = os.write(descriptor, line)
    try:
        while written < len(line):  # the system says why only when it takes nothing more
            written += os.write(descriptor, line[written:])
    except OSError:
        if os.fstat(descriptor).st_size == end + written:  # nobody has added a line since
            os.ftruncate(descriptor, end)
        raise
    os.fsync(descriptor)


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Holds the file's lock, where the file system offers any."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
    except OSError:
        yield  # appending alone keeps lines whole on local disks
        return
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("v") != LEDGER_VERSION:
        return None
    return record if _is_sound(record) else None


def _is_sound(record: Mapping[str, Any]) -> bool:
    """Whether what later runs go by is of the kind that this program writes."""
    if not all(isinstance(record.get(name), str) for name in ("state", "output")):
        return False
    for names, kind in ((_TEXTS, str), (("facts",), dict), (("replaces",), list)):
        if not all(isinstance(record.get(name), kind | None) for name in names):
            return False
    return isinstance((record.get("facts") or {}).get("sha256"), str | None)
