"""Which clips a folder holds: videos, the records beside them, and the rows of a batch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from joyflash_cli.errors import DataError
from joyflash_cli.media.outputs.formats import VIDEO_SUFFIXES
from joyflash_cli.media.outputs.names import partial_path, sidecar_path
from joyflash_cli.render.record import read_sidecar

RESULTS_FILE = "results.jsonl"
MAX_RESULTS_BYTES = 1 << 30
STATE_FOLDER = ".joyflash"
BUG, LOST_WORKER = "E-INTERNAL", "E-WORKER-DIED"
MAX_LOGS = 4
FAILED_STATES = ("failed", "error")


@dataclass(frozen=True)
class ClipSource:
    """One clip, as far as the folder knows it.

    Attributes:
        name: What it is called on the page: the row's id, or the file's name without suffix.
        video: The video, ``None`` where there is none (a row that failed).
        record: The record beside the video, empty without one.
        row: The batch's last line about it, empty without one.
        problem: Why the record or row could not be used, empty if all is well.
        traces: What a failed row has left: the part that was kept, its record, logs.
    """

    name: str
    video: Path | None
    record: Mapping[str, Any] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    traces: tuple[tuple[str, Path], ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the batch says that this row failed, or its video has gone."""
        return _state(self.row) in FAILED_STATES or self.video is None and not self.is_open

    @property
    def is_open(self) -> bool:
        """Whether the batch has not come to this row yet."""
        return self.video is None and _state(self.row) == "open"

    @property
    def status(self) -> str:
        """``failed``, ``open``, ``partial`` or ``complete``; ``found`` without any record."""
        if self.failed or self.is_open:
            return "failed" if self.failed else "open"
        return str(self.record.get("status") or _state(self.row) or "found")

    @property
    def error_code(self) -> str:
        """The stable code of a failure such as ``E-AUDIO-EMPTY``; empty without."""
        return str(self.row.get("error_code") or ("E-UNKNOWN" if self.failed else ""))

    @property
    def error_text(self) -> str:
        """What went wrong, in one line; empty if nothing did."""
        if self.is_open:
            return "the batch has not come to this row yet"
        return str(self.row.get("error") or self.record.get("error") or self.problem)


def find_clips(folder: Path) -> tuple[ClipSource, ...]:
    """Every clip below a folder: the rows of its batch in their order, then other videos by name.

    Hidden files and folders are left out, among them what is still being written.

    Raises:
        DataError: ``E-REPORT`` if it is no folder, holds no clip, or its ``results.jsonl`` is
            not one JSON object a line.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder", hint="give a folder of videos", code="E-REPORT"
        )
    videos = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            videos[path.resolve()] = path
    clips = []
    for name, row in _rows(folder / RESULTS_FILE).items():
        output = _row_video(folder, row)
        known = None if output is None else videos.pop(output.resolve(), None)
        clip = _clip(name, known, row)
        clips.append(replace(clip, traces=_traces(folder, row)) if clip.failed else clip)
    clips += [
        _clip(str(path.relative_to(folder).with_suffix("")), path, {})
        for path in sorted(videos.values())
    ]
    if not clips:
        raise DataError(
            f"{folder} holds no video ({', '.join(VIDEO_SUFFIXES)}) and no {RESULTS_FILE}",
            hint="give the folder that was rendered to",
            code="E-REPORT",
        )
    return tuple(clips)


def _traces(folder: Path, row: Mapping[str, Any]) -> tuple[tuple[str, Path], ...]:
    """What lies in the folder because of a row that failed."""
    found: list[tuple[str, Path]] = []
    output = row.get("output")
    if isinstance(output, str) and output and "\0" not in output:
        place = folder / output
        partial = partial_path(place)
        found += [("part that was kept", partial), ("its record", sidecar_path(partial))]
    logs = folder / STATE_FOLDER / "logs"
    if row.get("error_code") == BUG:
        found.append(("log", logs / "bugs.log"))
    elif row.get("error_code") == LOST_WORKER:
        found += [("log", path) for path in sorted(logs.glob("*-*.log"))[:MAX_LOGS]]
    home = folder.resolve()
    return tuple(
        (text, path)
        for text, path in found
        if path.resolve().is_relative_to(home) and path.is_file() and path.stat().st_size
    )


def _clip(name: str, video: Path | None, row: Mapping[str, Any]) -> ClipSource:
    record: Mapping[str, Any] = {}
    problem = ""
    if video is not None and sidecar_path(video).is_file():
        try:
            record = read_sidecar(video)
        except DataError as error:
            problem = error.message
    if video is None:
        problem = "there is no video"
    return ClipSource(name, video, record, row, problem)


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    """The last line about each row, in the order in which rows first appear."""
    try:
        if path.stat().st_size > MAX_RESULTS_BYTES:
            raise _damaged(path, f"larger than {MAX_RESULTS_BYTES >> 30} GB")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _damaged(path, f"line {number} is not JSON") from error
        if not isinstance(row, dict):
            raise _damaged(path, f"line {number} is not a JSON object")
        rows[str(row.get("id", number))] = row
    return rows


def _row_video(folder: Path, row: Mapping[str, Any]) -> Path | None:
    output = row.get("output")
    if not isinstance(output, str) or not output or "\0" in output:
        return None
    # A folder that was copied elsewhere still has its videos; only their place has changed.
    places = (folder / output, folder / Path(output).name)
    return next((path for path in places if path.is_file()), None)


def _state(row: Mapping[str, Any]) -> str:
    return str(row.get("state") or row.get("status") or "")


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} cannot be read: {reason}", hint="restore or remove the file", code="E-REPORT"
    )
