"""One clip as the templates are given it: texts, links and pictures, nothing to compute."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from joyflash_cli.measures.table import PAGE
from joyflash_cli.measures.words import plain, seconds
from joyflash_cli.media.outputs.names import sidecar_path
from joyflash_cli.media.sheet import picture_bytes
from joyflash_cli.report.charts import Chart
from joyflash_cli.report.figures import clip_charts
from joyflash_cli.report.reading import ClipReading, figures_of

JPEG_QUALITY = 84
CROP_ZOOM = 2
MAX_CROP_PX = 400
"""Crops wider than this when enlarged are shown at their own size."""

_NOT_SHOWN = ("block_timings_s", "format", "generator", "notice", "warnings", "error", "prompt")


@dataclass(frozen=True)
class Cell:
    """One cell of the table: its text and the number it is sorted by (empty: last)."""

    text: str
    order: str


@dataclass(frozen=True)
class Link:
    """A file beside the page."""

    text: str
    address: str


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    data: str
    text: str
    width_px: int


@dataclass(frozen=True)
class ClipView:
    """Everything that the page shows of one clip.

    Attributes:
        name: As data: the template escapes it.
        anchor: Its place in the page.
        status: ``complete``, ``partial``, ``failed`` or ``found``.
        problem: What went wrong, empty if nothing did.
        code: The stable code of a failure.
        cells: Of the table, in the order of ``PAGE``.
        figures: The same as numbers.
        record: The record beside the video.
        video: Address of the video, ``None`` without one.
        links: Video and record; of a failed row also what it has left.
        detailed: Whether pictures and charts are shown; the fields below are empty otherwise.
        moments: The contact sheet.
        crops: Middle of the first and the last frame, enlarged.
        charts: Curves and bars.
        missing: Figure and reason for what was not measured.
        prompt: The prompt, verbatim.
        warnings: What the user was told when it was made.
        facts: Name and value of all else in the record.
    """

    name: str
    anchor: str
    status: str
    problem: str
    code: str
    cells: tuple[Cell, ...]
    figures: dict[str, Any]
    record: Mapping[str, Any]
    video: str | None
    links: tuple[Link, ...] = ()
    detailed: bool = False
    moments: tuple[Picture, ...] = ()
    crops: tuple[Picture, ...] = ()
    charts: tuple[Chart, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    prompt: str = ""
    warnings: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


def clip_view(reading: ClipReading, *, anchor: str, page: Path, detailed: bool) -> ClipView:
    """A measured clip as the page shows it.

    Args:
        reading: From ``read_clip``.
        anchor: Its place in the page, letters and digits.
        page: The page's own file; links are relative to it.
        detailed: Whether pictures and charts are wanted.
    """
    source, record = reading.source, reading.source.record
    figures = all_figures(reading)
    video = None if source.video is None else _address(source.video, page)
    warnings = record.get("warnings")
    return ClipView(
        name=source.name,
        anchor=anchor,
        status="failed" if reading.problem and not source.is_open else source.status,
        problem=reading.problem or source.error_text,
        code=source.error_code or ("E-VIDEO" if reading.problem and source.video else ""),
        cells=tuple(
            Cell(column.text(figures), _order(figures.get(column.name))) for column in PAGE
        ),
        figures=figures,
        record=record,
        video=video,
        links=_links(reading, page),
        detailed=detailed,
        moments=_moments(reading) if detailed else (),
        crops=_crops(reading) if detailed else (),
        charts=tuple(clip_charts(reading, figures)) if detailed else (),
        missing=tuple((reading.not_measured or {}).items()),
        prompt=str(record.get("prompt") or source.row.get("prompt") or ""),
        warnings=tuple(map(str, warnings)) if isinstance(warnings, list) else (),
        facts=tuple(_facts(record)),
    )


def all_figures(reading: ClipReading) -> dict[str, Any]:
    """Measured figures and those of the record, by the names of ``PAGE``."""
    record, info = reading.source.record, reading.info
    timings = {
        name: value
        for name in ("realtime_factor", "first_frame_s")
        if isinstance(value := record.get(name), int | float)
    }
    length = {} if info is None else {"video_s": info.video_s}
    return dict.fromkeys(column.name for column in PAGE) | figures_of(reading) | timings | length


def data_address(data: bytes, kind: str) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _order(value: Any) -> str:
    return "" if value is None else f"{value:.9g}"


def _address(path: Path, page: Path) -> str:
    """Where a file lies seen from the page, as an address: no name can become markup or script."""
    relative = os.path.relpath(path.resolve(), page.resolve().parent)
    # "./" keeps a name such as "javascript:x.mp4" from being a scheme.
    return "./" + quote(Path(relative).as_posix())


def _links(reading: ClipReading, page: Path) -> tuple[Link, ...]:
    video = reading.source.video
    links = []
    if video is not None:
        links.append(Link("video", _address(video, page)))
        if sidecar_path(video).is_file():
            links.append(Link("record", _address(sidecar_path(video), page)))
    links += [Link(text, _address(path, page)) for text, path in reading.source.traces]
    return tuple(links)


def _moments(reading: ClipReading) -> tuple[Picture, ...]:
    return tuple(
        Picture(_jpeg(picture), seconds(at_s), picture.shape[1])
        for picture, at_s in zip(reading.moments, reading.moment_s, strict=False)
    )


def _crops(reading: ClipReading) -> tuple[Picture, ...]:
    found = []
    for name, pixels in (("first", reading.first_crop), ("last", reading.last_crop)):
        if pixels is not None:
            width = pixels.shape[1]
            zoom = CROP_ZOOM if width * CROP_ZOOM <= MAX_CROP_PX else 1
            text = f"{name} frame, middle"
            found.append(Picture(_jpeg(pixels, quality=92), text, width * zoom))
    return tuple(found)


def _jpeg(pixels: np.ndarray, *, quality: int = JPEG_QUALITY) -> str:
    return data_address(picture_bytes(pixels, quality=quality), "image/jpeg")


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of a record, nested tables as ``outer.inner``."""
    facts = []
    for key, value in record.items():
        if key in _NOT_SHOWN:
            continue
        if isinstance(value, Mapping):
            facts += [(f"{key}.{name}", text) for name, text in _facts(value)]
        else:
            facts.append((str(key), plain(value)))
    return facts
