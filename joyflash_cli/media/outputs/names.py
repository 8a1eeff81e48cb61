"""Every name that one output makes a run write, and whether it may write them.

The only place that knows them: whoever writes a file asks for its name here, and whoever begins a
run has all of them checked before any work is done.

===============  ==============================================================================
``a.mp4``        and ``.mkv``, ...: the video, ``a.mp4.json`` its record, ``a.partial.mp4`` and
                 ``a.partial.mp4.json`` when it was cut short; while it is written
                 ``.a.part.mp4``, ``.a.part2.mp4`` and ``.a.mp4.json.part``; when it is signed
                 ``.a.part3.mp4``, or beside an MKV or WebM ``a.mkv.c2pa``, first ``.a.part.c2pa``
``a.m3u8``       the playlist, ``a-init.mp4``, ``a-00000.m4s``, ..., ``a.m3u8.json``; each of the
                 playlist's files with ``.tmp`` behind it while it is written
``a-%05d.png``   ``a-00000.png``, ..., ``a-sound.wav``, ``a-05d.png.json``; ``.a-00000.png.part``
===============  ==============================================================================
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from joyflash_cli.errors import OutputError
from joyflash_cli.files import (
    MAX_NAME_BYTES,
    cannot_write,
    is_being_written,
    name_bytes,
    part_path,
)
from joyflash_cli.media.outputs.formats import FORMATS, format_of

_PICTURE_NUMBER = re.compile(r"%0?[1-9]?d")
"""Where the number goes in the name of a picture sequence: ``face-%05d.png``."""

STATEMENT_SUFFIX = ".c2pa"

Source = Path | int
"""A file that a run reads, or the descriptor that it reads from."""


def followed(path: Path) -> Path:
    """What is written under a name: a link is kept, and what it leads to is replaced.

    Raises:
        OutputError: ``E-OUTPUT-WRITE`` for a link that leads to itself.
    """
    if not os.path.islink(path):
        return path
    target = Path(os.path.realpath(path))
    if os.path.islink(target):
        raise OutputError(
            f"{path} is a link that leads to itself",
            hint="choose another --output",
            code="E-OUTPUT-WRITE",
        )
    return target


def check_is_no_folder(output: str) -> None:
    """Refuses a name that says that it is a folder; a path would forget the slash.

    Raises:
        OutputError: ``E-OUTPUT-FOLDER``.
    """
    if output.endswith((os.sep, f"{os.sep}.", f"{os.sep}..")) or output in (".", ".."):
        raise OutputError(
            f"{output} is a folder",
            hint=f"add a file name, such as {os.path.join(output, 'video.mp4')}",
            code="E-OUTPUT-FOLDER",
        )


def check_suffix(path: Path) -> None:
    """Refuses a file name whose suffix no writer knows.

    Raises:
        OutputError: ``E-OUTPUT-SUFFIX``, naming the suffixes that work.
    """
    found = format_of(path)
    if found is None:
        known = [suffix for suffix, entry in FORMATS.items() if entry.kind != "pictures"]
        raise OutputError(
            f"{path} ends in {path.suffix or 'no suffix'}; {', '.join(known)} can be written, and "
            "pictures such as face-%05d.png",
            hint="end the name in .mp4",
            code="E-OUTPUT-SUFFIX",
        )
    numbers = len(_PICTURE_NUMBER.findall(path.name)), path.name.count("%")
    if found.kind == "pictures" and numbers != (1, 1):
        raise OutputError(
            f"{path} is one picture; a sequence needs one number in its name",
            hint=f"for example {path.stem.replace('%', '') or 'face'}-%05d{path.suffix}",
            code="E-OUTPUT-SUFFIX",
        )


def sidecar_path(output: Path) -> Path:
    """Where the record of a video lies: its whole name with ``.json`` behind it."""
    output = Path(output)
    return output.with_name(f"{_single_name(output).name}.json")


def preview_path(output: Path) -> Path:
    """Where the thumbnails of a video go: ``NAME.preview.png`` beside it, or right here."""
    if str(output) == "-":
        return Path("joyflash.preview.png")
    return output.with_name(f"{_single_name(output).stem}.preview.png")


def _single_name(output: Path) -> Path:
    """One name for an output: a pattern such as ``f-%05d.png`` without its percent sign."""
    found = format_of(output)
    if found is None or found.kind != "pictures":
        return output
    return output.with_name(_PICTURE_NUMBER.sub(lambda number: number[0][1:], output.name))


def partial_path(video: Path) -> Path:
    """What a video is called that was cut short."""
    return video.with_name(f"{video.stem}.partial{video.suffix}")


def statement_path(video: Path) -> Path:
    """Where the signed statement about a video lies that cannot hold it."""
    return video.with_name(f"{video.name}{STATEMENT_SUFFIX}")


def companions(video: Path) -> tuple[Path, ...]:
    """What belongs to a video that is one file: its record, and its signed statement if beside."""
    found, record = format_of(video), sidecar_path(video)
    is_beside = found is not None and found.seals == "beside"
    return (record, statement_path(video)) if is_beside else (record,)


def is_same_file(path: Path, other: Source) -> bool:
    """Whether two names are one file, through symbolic and hard links."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):  # one of them is not there, or can be no name
        return False


class OutputNames:
    """The names of one output.

    Args:
        output: As given; where it is a link, what it leads to is written.

    Attributes:
        given: The output as it was given: perhaps a link.
        path: What is written.
        kept: What may be there afterwards, but for what is numbered.
        hidden: What is there only while it is written, but for what is numbered.
        numbered: Patterns of what is: a frame or a segment, then the same while it is written.
        part: A video while it is written.
        second_part: The same while its index is brought to the front.
        sealed_part: Its signed copy.
        statement_part: The signed statement that is to lie beside it.
        partial: A video that was cut short.
        head: What the segments of a playlist have in common.
        sound: The sound beside pictures.

    Raises:
        OutputError: ``E-OUTPUT-EXISTS`` or ``E-OUTPUT-FOLDER`` for a folder, ``E-OUTPUT-WRITE`` for
            a link that leads to itself or a name that is too long.
    """

    def __init__(self, output: Path | str) -> None:
        check_is_no_folder(str(output))
        self.given = Path(output)
        self.path = path = followed(self.given)
        if not path.name or os.path.isdir(path):
            raise OutputError(f"{path} is a folder", hint="add a file name", code="E-OUTPUT-EXISTS")
        found, record = format_of(path), sidecar_path(path)
        self.kind = "video" if found is None else found.kind
        self.part = path.with_name(f".{path.stem}.part{path.suffix}")
        self.second_part = path.with_name(f".{path.stem}.part2{path.suffix}")
        self.sealed_part = path.with_name(f".{path.stem}.part3{path.suffix}")
        self.statement_part = path.with_name(f".{path.stem}.part{STATEMENT_SUFFIX}")
        self.partial = partial_path(path)
        # A percent sign in the name of a segment would be taken for its number.
        stem = path.stem.replace("%", "_")
        self.head = path.with_name(f"{stem}-init.mp4")
        base = _PICTURE_NUMBER.sub("", path.stem).strip("-_. ")
        self.sound = path.with_name(f"{base}-sound.wav" if base else "sound.wav")
        self.numbered: tuple[str, ...] = ()
        if self.kind == "pictures":
            self.numbered = (path.name, f".{path.name}.part")
            self.kept: tuple[Path, ...] = (self.sound, record)
            self.hidden: tuple[Path, ...] = (part_path(record),)
        elif self.kind == "playlist":
            segment = f"{stem}-%05d.m4s"
            self.numbered = (segment, f"{segment}.tmp")
            self.kept = (path, self.head, record)
            # libavformat's own names while it writes them.
            written = (path.with_name(f"{name.name}.tmp") for name in (path, self.head))
            self.hidden = (*written, part_path(record))
        else:
            self.kept = (path, self.partial, *companions(path), *companions(self.partial))
            records = map(part_path, (record, sidecar_path(self.partial)))
            self.hidden = (self.part, self.second_part, *records)
            self.hidden += (self.sealed_part, self.statement_part)

    def frame(self, index: int) -> Path:
        """The picture of a frame."""
        return self.path.with_name(self.path.name % index)

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
    ) -> Self:
        """Itself; refuses an output that cannot be written, or that would cost a file.

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
            if os.path.islink(self.part):
                raise OutputError(
                    f"{self.part} is a link", hint="choose another --output", code="E-OUTPUT-EXISTS"
                )
            if is_being_written(self.part):
                raise being_written(self.path)
            check_names([*self.taken(), *also], overwrite=overwrite, inputs=inputs)
        except OSError as error:
            raise cannot_write(self.path, error, hint="choose another --output") from error
        return self

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
        last = [self.path.with_name(pattern % 99_999) for pattern in self.numbered]
        if self.kind == "pictures":
            last = [part_path(last[0])]
        longest = max((*self.kept, *self.hidden, *last), key=name_bytes)
        try:
            most = os.pathconf(folder, "PC_NAME_MAX")
        except (OSError, ValueError):
            most = MAX_NAME_BYTES
        if name_bytes(longest) > most:
            length = name_bytes(self.path)
            possible = most - name_bytes(longest) + length
            raise OutputError(
                f"{self.path.name[:40]}... has a name of {length} bytes; {possible} are possible, "
                f"since files beside it have longer names",
                hint="choose a shorter --output",
                code="E-OUTPUT-WRITE",
            )
        if self.kind == "playlist":
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

    def _numbered(self) -> Iterator[Path]:
        """Frames and segments that are there, whatever their number."""
        entries = sorted(os.listdir(self.path.parent)) if self.numbered else ()
        for pattern in self.numbered:
            before, after = map(re.escape, map(_folded, _PICTURE_NUMBER.split(pattern)))
            known = re.compile(f"{before} *([0-9]+){after}")
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


def _holds_something(path: Path) -> bool:
    """Whether there is something to lose: a run killed at its beginning leaves an empty file."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        status = path.lstat()
        return not stat.S_ISREG(status.st_mode) or status.st_size > 0
    return False


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
