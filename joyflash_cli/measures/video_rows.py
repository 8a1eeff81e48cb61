"""Which videos are to be judged: a folder of them, or a table with what belongs to each.

The table may be the manifest of a batch, whose videos lie in the batch's output folder; beside an
evaluation set's manifest ``set.json`` says which category each is of, and where its true film lies.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from joyflash_cli.errors import DataError, UsageError
from joyflash_cli.measures.clip import VideoRow
from joyflash_cli.measures.evaluation_set import SET_FILE

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
COLUMNS = ("video", "reference", "audio", "truth", "system", "category")
FILES = ("reference", "audio", "truth")
BATCH_COLUMNS = ("id", "image", "audio", "output", "prompt", "seed")
"""Of a batch's manifest."""

MAX_TABLE_BYTES = 64 << 20
_JSON_SUFFIXES = (".jsonl", ".ndjson")


def read_video_rows(
    source: Path,
    *,
    videos: Sequence[Path] = (),
    reference: Path | None = None,
    truth: Path | None = None,
) -> list[VideoRow]:
    """The videos of a folder or of a table.

    In a folder ``SYSTEM/CATEGORY/name.mp4`` says what made a video and of which kind it is; a
    video that lies in the folder itself is of the system that the folder is called after.

    Args:
        source: A folder, searched at any depth, or a table, CSV or JSON lines, with the column
            ``video`` and any of ``reference``, ``audio``, ``truth``, ``system`` and ``category``;
            its files count from the folder it lies in. Or the manifest of a batch.
        videos: Output folders of the batch whose manifest ``source`` is; each is a system.
        reference: A picture for all videos that have none, or a folder of pictures of the videos'
            names.
        truth: A folder of true films of the videos' names.

    Raises:
        DataError: If there is no video, or the table cannot be read.
        UsageError: If ``reference``, ``truth`` or one of ``videos`` is not there, or ``videos``
            are given without a manifest or the other way round.
    """
    for folder in videos:
        if source.is_dir() or not folder.is_dir():
            text = f"{folder} is not a folder" if source.is_file() else "--videos is for a manifest"
            raise UsageError(text, hint="give the manifest of a batch and its output folder")
    if reference is not None and not reference.exists():
        raise UsageError(f"{reference} does not exist", hint="give a picture or a folder")
    if truth is not None and not truth.is_dir():
        raise UsageError(f"{truth} is not a folder", hint="give the folder of the true films")
    found = list(_folder_rows(source) if source.is_dir() else _table_rows(source, videos))
    if not found:
        raise DataError(
            f"{source} holds no video",
            hint=f"give a folder of videos ({', '.join(VIDEO_SUFFIXES)}) or a table of them",
            code="E-VIDEOS",
        )
    twins, pictures = _by_stem(truth), _by_stem(reference)
    rows = []
    for row in _named_once(found):
        twin = row.truth or twins.get(row.name) or twins.get(row.video.stem)
        picture = row.reference or pictures.get(row.name) or pictures.get(row.video.stem)
        if picture is None and reference is not None and reference.is_file():
            picture = reference
        rows.append(replace(row, truth=twin, reference=picture))
    return rows


def _folder_rows(folder: Path) -> Iterator[VideoRow]:
    for path in _visible_files(folder):
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            continue
        inner = path.relative_to(folder)
        above = inner.parts[:-1]
        yield VideoRow(
            str(inner.with_suffix("")),
            path,
            system=above[0] if above else folder.resolve().name,
            category=above[1] if len(above) > 1 else "",
        )


def _visible_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            yield path


def _by_stem(folder: Path | None) -> dict[str, Path]:
    """The files of a folder by their path and by their name, both without suffix."""
    if folder is None or not folder.is_dir():
        return {}
    files = list(_visible_files(folder))
    by_name = {path.stem: path for path in files}
    return by_name | {str(path.relative_to(folder).with_suffix("")): path for path in files}


def _named_once(rows: list[VideoRow]) -> Iterator[VideoRow]:
    taken: set[str] = set()
    for row in rows:
        name, number = row.name, 2
        while name in taken:
            name, number = f"{row.name}-{number}", number + 1
        taken.add(name)
        yield replace(row, name=name)


def _table_rows(path: Path, videos: Sequence[Path]) -> Iterator[VideoRow]:
    lines = list(_lines(path))
    is_manifest = bool(lines) and {"id", "image"} <= set(lines[0][1])
    if is_manifest != bool(videos):
        what = "is the manifest of a batch" if is_manifest else "is no manifest of a batch"
        raise UsageError(f"{path} {what}", hint="--videos DIR names its output folder")
    if is_manifest:
        yield from _batch_rows(path, lines, videos)
        return
    for line, values in lines:
        unknown = [key for key in values if key not in COLUMNS]
        if unknown:
            raise _wrong(path, line, f"has the unknown column {unknown[0]!r:.80}")
        if not values.get("video"):
            raise _wrong(path, line, "names no video")
        named = {key: path.parent / values[key] for key in FILES if values.get(key)}
        yield VideoRow(
            str(Path(values["video"]).with_suffix("")),
            path.parent / values["video"],
            **named,
            system=values.get("system", ""),
            category=values.get("category", ""),
        )


def _batch_rows(
    path: Path, lines: Sequence[tuple[int, Mapping[str, str]]], videos: Sequence[Path]
) -> Iterator[VideoRow]:
    pairs = _set_pairs(path.parent / SET_FILE)
    for folder in videos:
        system = folder.resolve().name
        for line, values in lines:
            missing = [name for name in ("id", "image", "audio") if not values.get(name)]
            if missing:
                raise _wrong(path, line, f"names no {missing[0]}", BATCH_COLUMNS)
            pair = pairs.get(values["id"], {})
            truth = pair.get("truth")
            yield VideoRow(
                f"{system}/{values['id']}",
                folder / (values.get("output") or f"{values['id']}.mp4"),
                reference=path.parent / values["image"],
                audio=path.parent / values["audio"],
                truth=None if truth is None else path.parent / truth["path"],
                system=system,
                category=pair.get("category", ""),
            )


def _set_pairs(path: Path) -> Mapping[str, Any]:
    """What an evaluation set says of its videos, by their names; nothing where there is none."""
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"))["pairs"]
        return {pair["id"]: pair for pair in pairs}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read", hint="joyflash evaluate set build writes it", code="E-VIDEOS"
        ) from error


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line and values of every row; empty cells are left out."""
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise DataError(f"{path} is larger than {MAX_TABLE_BYTES >> 20} MB", code="E-VIDEOS")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}",
            hint="give a folder of videos, or a table of them, CSV or JSON lines",
            code="E-VIDEOS",
        ) from error
    if path.suffix.lower() in _JSON_SUFFIXES or text.lstrip().startswith("{"):
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield number, _json_values(path, number, line)
        return
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [cell.strip().lower() for cell in next(reader, [])]
    for cells in reader:
        if any(cell.strip() for cell in cells):
            if len(cells) != len(columns):
                many = f"has {len(cells)} cells; the header has {len(columns)}"
                raise _wrong(path, reader.line_num, many)
            named = zip(columns, cells, strict=True)
            yield reader.line_num, {key: cell.strip() for key, cell in named if cell.strip()}


def _json_values(path: Path, number: int, line: str) -> Mapping[str, str]:
    try:
        values: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, number, "is not JSON") from error
    if not isinstance(values, dict):
        raise _wrong(path, number, "is not a JSON object")
    values.pop("seed", None)  # of a batch: a number
    for key, value in values.items():
        if value is not None and not isinstance(value, str):
            raise _wrong(path, number, f"{key} is not a text")
    return {key: value for key, value in values.items() if value}


def _wrong(path: Path, line: int, what: str, columns: Sequence[str] = COLUMNS) -> DataError:
    return DataError(
        f"{path}: line {line} {what}", hint=f"columns are {', '.join(columns)}", code="E-VIDEOS"
    )
