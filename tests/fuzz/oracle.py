"""What no input may ever do, whatever its bytes: the judge that all fuzzing programs share.

An input may be read or refused. It is refused with a ``JoyFlashError`` whose text is one printable
line of bounded length. It may not take long or much memory, write a file, start a program, reach
the network, or make an object of its own choosing.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from joyflash_cli.errors import JoyFlashError

MAX_SECONDS = 10.0
MAX_GROWTH_BYTES = 1 << 30
MAX_LINE_CHARS = 2_000

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN = (
    "os.exec", "os.fork", "os.forkpty", "os.link", "os.mkdir", "os.posix_spawn", "os.remove",
    "os.rename", "os.rmdir", "os.spawn", "os.symlink", "os.system", "os.truncate",
    "pickle.find_class", "shutil.", "socket.connect", "socket.getaddrinfo", "subprocess.Popen",
    "tempfile.mkdtemp", "tempfile.mkstemp",
)  # fmt: skip


class Violation(Exception):
    """Something that no input may do."""


@dataclass
class Tally:
    """What the inputs so far came to.

    Attributes:
        executions: Inputs tried.
        accepted: Those that were read.
        refused: Refusals by code.
        findings: By what went wrong and where; with how often.
    """

    executions: int = 0
    accepted: int = 0
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    findings: collections.Counter[str] = field(default_factory=collections.Counter)


class Oracle:
    """Runs one check on many inputs and remembers everything that went wrong.

    Args:
        check: Given the bytes of an input and an empty folder; raises ``JoyFlashError`` to refuse.
            It may put its input's files there before ``armed`` is entered, with ``armed`` around
            all that is under test.
        folder: Emptied before each input.
    """

    def __init__(self, check: Callable[[bytes, Path, Oracle], None], folder: Path) -> None:
        self.tally = Tally()
        self._check = check
        self._folder = folder
        self._armed = False
        self._seen: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        sys.addaudithook(self._watch)

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """While within, forbidden deeds are noted."""
        before = _listing(self._folder)
        self._armed = True
        try:
            yield
        finally:
            self._armed = False
            if _listing(self._folder) != before:
                self._seen.append("changed the files beside its input")

    def run(self, data: bytes) -> str:
        """Tries an input; what it did wrong, as a short stable text, or nothing."""
        self._clear()
        self._seen = []
        self.tally.executions += 1
        # Processor time: on a busy machine the clock says nothing about the program.
        held, began = _reset_peak(), time.process_time()
        wrong = ""
        try:
            self._check(data, self._folder, self)
            self.tally.accepted += 1
        except JoyFlashError as error:
            self.tally.refused[f"{type(error).__name__} {error.code}"] += 1
            wrong = line_problem(str(error).replace(str(self._folder), ""))
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            wrong = str(error) if isinstance(error, Violation) else _where(error)
        seconds, growth = time.process_time() - began, _peak() - held
        if seconds > MAX_SECONDS:
            wrong = wrong or f"took {seconds:.0f} s"
        if growth > MAX_GROWTH_BYTES:
            wrong = wrong or f"took {growth / 1e9:.1f} GB"
        wrong = next(iter(self._seen), wrong)  # what it did weighs more than what it said
        if wrong:
            self.tally.findings[wrong] += 1
        return wrong

    def _clear(self) -> None:
        for entry in os.scandir(self._folder):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)

    def _watch(self, event: str, arguments: tuple) -> None:
        if not self._armed:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING:
                self._seen.append(f"opened a file for writing ({type(path).__name__})")
        elif event.startswith(_FORBIDDEN):
            self._seen.append(f"did {event}")


def _listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def line_problem(text: str) -> str:
    """Why a text is not one printable line, as the command line would print it; or nothing."""
    line = " ".join(text.split())
    stable = re.sub("[0-9]+", "#", ascii(line))[:40]  # the same mistake has the same name
    if not line:
        return "an error without a text"
    if len(line) > MAX_LINE_CHARS:
        return f"an error of more than {MAX_LINE_CHARS} characters: {stable}"
    if not line.isprintable():
        return f"an error with unprintable characters: {stable}"
    return ""


def _where(error: BaseException) -> str:
    """The kind of an error and the last lines of ours and of anybody that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "joyflash_cli" in frame.filename]
    places = [*ours[-1:], *frames[-1:]]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in places)
    return f"{type(error).__name__} at {where}"


def _reset_peak() -> int:
    """Lets the peak of resident memory begin anew; bytes resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
