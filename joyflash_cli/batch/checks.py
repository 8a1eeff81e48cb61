"""What must be right in a row before anything is loaded; the contents of files come later."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from joyflash_cli.batch.rows import (
    REQUIRED_COLUMNS,
    STATE_FOLDER,
    RawRow,
    Row,
    absolute,
    printable,
)
from joyflash_cli.media.inputs.kinds import is_url
from joyflash_cli.media.outputs.formats import VIDEO_SUFFIXES as SUFFIXES

MAX_ID_CHARS = 200
MAX_NAME_BYTES = 240
"""Longest file name of an output: temporary and record beside it have longer names, and file
systems end at 255."""

MAX_SEED = (1 << 63) - 1

MAX_SHOWN_CHARS = 300
"""Of a value in a message."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_RESERVED = re.compile("con|prn|aux|nul|(com|lpt)[0-9¹²³]", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of characters that do not even stand for a byte of a file's name."""


@dataclass(frozen=True)
class RowRules:
    """What a row is checked against.

    Attributes:
        folder: Where relative paths of pictures and sounds begin: the manifest's own, absolute.
        profile: Name of the checkpoint, for messages.
        hears_text: Whether it follows prompts.
    """

    folder: Path
    profile: str
    hears_text: bool


def check_row(raw: RawRow, rules: RowRules) -> Row:
    """The row; one with anything wrong has failed, and its error tells all of that.

    Files must exist and be readable; what they hold is judged when the row is rendered. The output
    of a row whose output cannot be is empty.
    """
    values = {key: str(value) for key, value in raw.values.items()}
    halves = {"image": _NO_BYTE, "audio": _NO_BYTE}
    broken = [key for key, text in values.items() if halves.get(key, _SURROGATE).search(text)]
    if raw.wrong or broken:  # a JSON escape that is half a character: nothing can hold it
        row_id = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", values.get("id", ""))
        text = raw.wrong or f"{broken[0]} has a character that does not exist"
        return _failed(Row(raw.number, raw.line, row_id), [text])
    row_id, image, audio = (values.get(column, "") for column in REQUIRED_COLUMNS)
    output, prompt = values.get("output") or f"{row_id}.mp4", values.get("prompt", "")
    folder = os.fspath(rules.folder)
    named = bool(row_id or values.get("output"))
    seed = _seed(values.get("seed", ""))
    texts = [
        _id_problem(row_id),
        _file_problem("image", image, folder),
        _file_problem("audio", audio, folder),
        _output_problem(output) if named else "",
    ]
    about_prompt = ""
    if prompt and not rules.hears_text:
        about_prompt = f"profile {rules.profile} has no text control; leave the prompt empty"
    texts.append(about_prompt)
    if seed is None:
        texts.append(f"seed {values['seed'][:40]!r} is not an integer of 0 <= seed < 2**63")
    place = posixpath.normpath(output) if named and not _leads_astray(output) else ""
    row = Row(raw.number, raw.line, row_id, image, audio, place, prompt, seed or 0, folder)
    found = [text for text in texts if text]
    return _failed(row, found, "E-PROMPT" if found[:1] == [about_prompt] else "E-MANIFEST-ROW")


def _failed(row: Row, problems: list[str], code: str = "E-MANIFEST-ROW") -> Row:
    if problems:
        row.state, row.error_code, row.error = "failed", code, printable("; ".join(problems))
    return row


def _id_problem(row_id: str) -> str:
    if not row_id:
        return "has no id"
    if len(row_id) > MAX_ID_CHARS:
        return f"its id has {len(row_id)} characters; at most {MAX_ID_CHARS} are possible"
    return f"id {row_id!r} has a control character" if _CONTROL.search(row_id) else ""


def _file_problem(column: str, given: str, folder: str) -> str:
    """Why a file cannot be read, or nothing.

    The path is a plain local one however it is spelled: ``http://x`` is a name like any other.
    """
    if not given:
        return f"has no {column}"
    path = absolute(folder, given)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: a null character
        url = "; URLs are not fetched" if is_url(given) else ""
        return f"{column} {given!r:.{MAX_SHOWN_CHARS}} does not exist{url}"
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a plain file"
        return f"{column} {given!r:.{MAX_SHOWN_CHARS}} is {what}"
    readable = os.access(path, os.R_OK)
    return "" if readable else f"{column} {given!r:.{MAX_SHOWN_CHARS}} may not be read"


def _output_problem(output: str) -> str:
    """Why a name leaves the output folder, or cannot be written there or elsewhere; or nothing."""
    if problem := _leads_astray(output):
        return problem
    if any(_RESERVED.fullmatch(part.partition(".")[0].strip()) for part in output.split("/")):
        return f"output {output!r:.{MAX_SHOWN_CHARS}} is the name of a device on Windows"
    return ""


def _leads_astray(output: str) -> str:
    """Why a name is no place for a video in the output folder; or nothing."""
    parts = output.split("/")
    suffix = posixpath.splitext(output)[1]
    shown = f"{output!r:.{MAX_SHOWN_CHARS}}"
    if _CONTROL.search(output):
        return f"output {shown} has a control character"
    if parts[-1] in ("", "."):
        return f"output {shown} is a folder; add a file name"
    if output.startswith("/") or ".." in parts:
        return f"output {shown} leaves the output folder"
    if suffix.lower() not in SUFFIXES:
        ending = suffix if suffix.isprintable() else ascii(suffix)
        found = f"ends in {ending:.40}" if suffix else "has no suffix"
        return f"output {shown} {found}; {', '.join(SUFFIXES)} can be written"
    if posixpath.normpath(output).partition("/")[0] == STATE_FOLDER:
        return f"output {shown} lies in {STATE_FOLDER}, which belongs to the batch"
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return f"output {output[:40]!r}... has a name of more than {MAX_NAME_BYTES} bytes"
    return ""


def _seed(given: str) -> int | None:
    """The seed, 0 where none is given, ``None`` where it is no seed."""
    if not given:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) <= 20):
        return None
    return int(given) if int(given) <= MAX_SEED else None
