"""Every name that one output makes a run write, and whether it may write them.

The only place that knows them: whoever writes a file asks for its name here, and whoever begins a
run has all of them checked before any work is done.

===============  ==============================================================================
``a.mp4``        and ``.mkv``, ...: the video, ``a.mp4.json`` its record, ``a.partial.mp4`` and
                 ``a.partial.mp4.json`` when it was cut short; while it is written
                 ``.a.part.mp4``, ``.a.part2.mp4`` and ``.a.mp4.json.part``
``a.m3u8``       the playlist, ``a-init.mp4``, ``a-00000.m4s``, ..., ``a.m3u8.json``; each of the
                 playlist's files with ``.tmp`` behind it while it is written
``a-%05d.png``   ``a-00000.png``, ..., ``a-sound.wav``, ``a-05d.png.json``; ``.a-00000.png.part``
===============  ==============================================================================
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from joyflash_cli.errors import OutputError
from joyflash_cli.files import MAX_NAME_BYTES, name_bytes, part_path, write_reason
from joyflash_cli.media.outputs.names import (
    PICTURE_NUMBER,
    PICTURE_SUFFIXES,
    PLAYLIST_SUFFIX,
    Source,
    check_suffix,
    followed,
    is_same_file,
    partial_path,
    sidecar_path,
    with_tmp,
)


class OutputNames:
    """The names of one output.

    Args:
        output: As given; where it is a link, what it leads to is written.

    Raises:
        OutputError: ``E-OUTPUT-EXISTS`` for a folder, ``E-OUTPUT-WRITE`` for a link that leads to
            itself or a name that is too long.
    """

    def __init__(self, output: Path) -> None:
        self.path = followed(Path(output))
        if not self.path.name or os.path.isdir(self.path):
            raise OutputError(
                f"{self.path} is a folder", hint="add a file name", code="E-OUTPUT-EXISTS"
            )
        suffix = self.path.suffix.lower()
        self.is_playlist = suffix == PLAYLIST_SUFFIX
        self.is_pictures = suffix in PICTURE_SUFFIXES
        self.part = self.path.with_name(f".{self.path.stem}.part{self.path.suffix}")
        """The video while it is written."""
        self.second_part = self.path.with_name(f".{self.path.stem}.part2{self.path.suffix}")
        """The same while its index is brought to the front."""
        self.partial = partial_path(self.path)
        """The video when it was cut short."""

    @property
    def sound(self) -> Path:
        """The sound beside pictures."""
        base = PICTURE_NUMBER.sub("", self.path.stem).strip("-_. ")
        return self.path.with_name(f"{base}-sound.wav" if base else "sound.wav")

    @property
    def segment_stem(self) -> str:
        """What segments are called; a percent sign would be taken for their number."""
        return self.path.stem.replace("%", "_")

    def frame(self, index: int) -> Path:
        """The picture of a frame."""
        return self.path.with_name(self.path.name % index)

    @property
    def kept(self) -> tuple[Path, ...]:
        """What may be there afterwards, but for what is numbered."""
        record = sidecar_path(self.path)
        if self.is_pictures:
            return (self.sound, record)
        if self.is_playlist:
            head = self.path.with_name(f"{self.segment_stem}-init.mp4")
            return (self.path, head, record)
        return (self.path, self.partial, record, sidecar_path(self.partial))

    @property
    def hidden(self) -> tuple[Path, ...]:
        """What is there only while it is written, but for what is numbered."""
        if self.is_pictures:
            return (part_path(sidecar_path(self.path)),)
        if self.is_playlist:
            playlist, head, record = self.kept
            return (with_tmp(playlist), with_tmp(head), part_path(record))
        records = (sidecar_path(self.path), sidecar_path(self.partial))
        return (self.part, self.second_part, *map(part_path, records))

    def taken(self) -> Iterator[Path]:
        """Every name that a run would write and that something has already.

        Raises:
            OSError: If the folder cannot be read.
        """
        yield from filter(os.path.lexists, self.kept)
        yield from filter(_holds_something, self.hidden)
        yield from self._numbered()

    def remove_taken(self) -> None:
        """Removes all that lies under these names.

        So nothing is written through a link, and nothing of a longer run is left among the new.

        Raises:
            OSError: If one cannot be removed.
        """
        for path in [*self.taken(), *self.hidden]:
            path.unlink(missing_ok=True)

    def check(
        self,
        *,
        overwrite: bool = False,
        inputs: Sequence[Source] = (),
        also: Iterable[Path] = (),
    ) -> None:
        """Refuses an output that cannot be written, or that would cost a file.

        Args:
            overwrite: Whether what lies under these names may be replaced.
            inputs: What the run reads; it is never replaced, however it is linked.
            also: Other names that the run writes.

        Raises:
            OutputError: ``E-OUTPUT-SUFFIX``, ``E-OUTPUT-FOLDER`` missing or not writable,
                ``E-OUTPUT-INPUT`` a name is an input, ``E-OUTPUT-EXISTS`` a name is taken,
                ``E-OUTPUT-WRITE`` a name cannot be.
        """
        if any(is_same_file(self.path, source) for source in inputs):
            raise is_input(self.path)
        check_suffix(self.path)
        try:
            self._check_place()
            self._check_part()
            check_names([*self.taken(), *also], overwrite=overwrite, inputs=inputs)
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {write_reason(error)}",
                hint="choose another --output",
                code="E-OUTPUT-WRITE",
            ) from error

    def _check_place(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            raise OutputError(
                f"{folder} is not a folder", hint=f"mkdir -p {folder}", code="E-OUTPUT-FOLDER"
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(
                f"{folder} is not writable",
                hint="choose another place with --output",
                code="E-OUTPUT-FOLDER",
            )
        longest = max((*self.kept, *self.hidden, *self._first_numbered()), key=name_bytes)
        most = _max_name_bytes(folder)
        if name_bytes(longest) > most:
            length = name_bytes(self.path)
            possible = most - name_bytes(longest) + length
            raise OutputError(
                f"{self.path.name[:40]}... has a name of {length} bytes; {possible} are possible, "
                f"since files beside it have longer names",
                hint="choose a shorter --output",
                code="E-OUTPUT-WRITE",
            )
        if self.is_playlist:
            self._check_playlist()

    def _check_playlist(self) -> None:
        folder = self.path.absolute().parent
        if "%" in str(folder):
            raise OutputError(
                f"{folder} has a percent sign, which HLS segments cannot have in their path",
                hint="choose another folder",
                code="E-OUTPUT-FOLDER",
            )
        try:
            str(folder / self.path.name).encode()
        except UnicodeEncodeError:
            raise OutputError(
                f"{folder / self.path.name} is not UTF-8, as a playlist and its segments must be",
                hint="choose another name or folder, or one ending in .mp4",
                code="E-OUTPUT-FOLDER",
            ) from None

    def _check_part(self) -> None:
        if os.path.islink(self.part):
            raise OutputError(
                f"{self.part} is a link", hint="choose another --output", code="E-OUTPUT-EXISTS"
            )
        if _is_being_written(self.part):
            raise being_written(self.path)

    def _first_numbered(self) -> tuple[Path, ...]:
        if self.is_pictures:
            return (part_path(self.frame(99_999)),)
        if self.is_playlist:
            return (with_tmp(self.path.with_name(f"{self.segment_stem}-99999.m4s")),)
        return ()

    def _numbered(self) -> Iterator[Path]:
        """Frames and segments that are there, whatever their number."""
        if self.is_pictures:
            before, after = PICTURE_NUMBER.split(self.path.name)
            patterns = {("", ""): self.path.name, (".", ".part"): f".{self.path.name}.part"}
        elif self.is_playlist:
            before, after = f"{self.segment_stem}-", ".m4s"
            # With another percent sign in it, it could not be a pattern.
            name = f"{self.segment_stem}-%05d.m4s"
            patterns = {("", ""): name, ("", ".tmp"): f"{name}.tmp"}
        else:
            return
        entries = sorted(os.listdir(self.path.parent))
        for (first, last), pattern in patterns.items():
            known = re.compile(
                f"{re.escape(_folded(first + before))} *([0-9]+){re.escape(_folded(after + last))}"
            )
            for entry in entries:
                found = known.fullmatch(_folded(entry))
                if found is None or len(found[1]) > 18:
                    continue
                written = self.path.with_name(pattern % int(found[1]))
                # Where the file system folds names, another spelling is the same file.
                if entry == written.name or is_same_file(self.path.with_name(entry), written):
                    yield self.path.with_name(entry)


def check_names(paths: Iterable[Path], *, overwrite: bool, inputs: Sequence[Source]) -> None:
    """Refuses names that are taken.

    Args:
        paths: What is to be written.
        overwrite: Whether what lies there may be replaced.
        inputs: What is read; it is never replaced, however it is linked.

    Raises:
        OutputError: ``E-OUTPUT-INPUT`` or ``E-OUTPUT-EXISTS``.
    """
    taken = [path for path in paths if os.path.lexists(path)]
    for path in taken:
        if any(is_same_file(path, source) for source in inputs):
            raise is_input(path)
    for path in taken:
        if os.path.isdir(path):
            raise OutputError(
                f"{path} is a folder", hint="choose another --output", code="E-OUTPUT-EXISTS"
            )
    if taken and not overwrite:
        count, hint = len(taken) - 1, "use --overwrite or another --output"
        if taken[0].name.startswith("."):
            hint = "a run that was ended left it; rename it to keep it, or use --overwrite"
        others = f" and {count} other files of this output exist" if count else " exists"
        raise OutputError(f"{taken[0]}{others} already", hint=hint, code="E-OUTPUT-EXISTS")


def is_input(path: Path) -> OutputError:
    """The error for a name that belongs to what is read."""
    return OutputError(
        f"{path} is an input of this run, which would write a file of that name",
        hint="choose another --output",
        code="E-OUTPUT-INPUT",
    )


def being_written(path: Path) -> OutputError:
    """The error for a file that another program writes."""
    return OutputError(
        f"another program is writing {path} at this moment",
        hint="wait for it, or choose another --output",
        code="E-OUTPUT-EXISTS",
    )


def _is_being_written(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks
    finally:
        os.close(descriptor)
    return False


def _holds_something(path: Path) -> bool:
    """Whether there is something to lose: a run killed at its beginning leaves an empty file."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        status = path.lstat()
        return not stat.S_ISREG(status.st_mode) or status.st_size > 0
    return False


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _max_name_bytes(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        return MAX_NAME_BYTES
