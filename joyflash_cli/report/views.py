"""What the templates are given of a clip and of a folder: texts, links, pictures, counts."""

import base64
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from joyflash_cli.measures.table import PAGE
from joyflash_cli.measures.words import number, plain, seconds
from joyflash_cli.media.outputs.names import sidecar_path
from joyflash_cli.media.sheet import picture_bytes
from joyflash_cli.report.charts import Chart, clip_charts
from joyflash_cli.report.reading import ClipReading, figures_of

JPEG_QUALITY = 84
CROP_ZOOM = 2
MAX_CROP_PX = 400
"""Crops wider than this when enlarged are shown at their own size."""

Entry = dict[str, Any]
"""What the templates read by name."""

_NOT_SHOWN = ("block_timings_s", "format", "generator", "notice", "warnings", "error", "prompt")


@dataclass(frozen=True)
class ClipView:
    """Everything that the page shows of one clip.

    Attributes:
        name: As data: the template escapes it.
        anchor: Its place in the page.
        status: ``complete``, ``partial``, ``failed`` or ``found``.
        problem: What went wrong, empty if nothing did.
        code: The stable code of a failure.
        cells: Of the table, in the order of ``PAGE``: text, and by what it is sorted (empty: last).
        figures: The same as numbers.
        record: The record beside the video.
        video: Address of the video, ``None`` without one.
        links: Text and address of video and record; of a failed row also of what it has left.
        detailed: Whether pictures and charts are shown; the fields below are empty otherwise.
        moments: The contact sheet: data and text of each picture.
        crops: Likewise with width in pixels: middle of the first and the last frame, enlarged.
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
    cells: tuple[Entry, ...]
    figures: dict[str, Any]
    record: Mapping[str, Any]
    video: str | None
    links: tuple[Entry, ...] = ()
    detailed: bool = False
    moments: tuple[Entry, ...] = ()
    crops: tuple[Entry, ...] = ()
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
            {"text": column.text(figures), "order": "" if value is None else f"{value:.9g}"}
            for column in PAGE
            for value in [figures.get(column.name)]
        ),
        figures=figures,
        record=record,
        video=video,
        links=_links(reading, page),
        detailed=detailed,
        moments=tuple(
            {"data": _jpeg(picture), "text": seconds(at_s)}
            for picture, at_s in zip(reading.moments, reading.moment_s, strict=False)
            if detailed
        ),
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


def _address(path: Path, page: Path) -> str:
    """Where a file lies seen from the page, as an address: no name can become markup or script."""
    relative = os.path.relpath(path.resolve(), page.resolve().parent)
    # "./" keeps a name such as "javascript:x.mp4" from being a scheme.
    return "./" + quote(Path(relative).as_posix())


def _links(reading: ClipReading, page: Path) -> tuple[Entry, ...]:
    video, found = reading.source.video, []
    if video is not None:
        found.append(("video", video))
        if sidecar_path(video).is_file():
            found.append(("record", sidecar_path(video)))
    found += reading.source.traces
    return tuple({"text": text, "address": _address(path, page)} for text, path in found)


def _crops(reading: ClipReading) -> tuple[Entry, ...]:
    found = []
    for name, pixels in (("first", reading.first_crop), ("last", reading.last_crop)):
        if pixels is not None:
            width = pixels.shape[1]
            zoom = CROP_ZOOM if width * CROP_ZOOM <= MAX_CROP_PX else 1
            text = f"{name} frame, middle"
            data = _jpeg(pixels, quality=92)
            found.append({"data": data, "text": text, "width_px": width * zoom})
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


def summarise(clips: Sequence[ClipView]) -> dict[str, Any]:
    """Counts and medians of a folder as JSON; ``None`` where nothing was measured."""
    states = Counter(clip.status for clip in clips)
    codes = Counter(clip.code for clip in clips if clip.status == "failed")
    timed = [clip.record for clip in clips if isinstance(clip.record.get("wall_s"), int | float)]
    work = [float(record["wall_s"]) for record in timed]
    gpu = [r["wall_s"] for r in timed if str(r.get("device", "")).startswith("cuda")]
    return {
        "clips": len(clips),
        "states": dict(states),
        "failures": dict(codes.most_common()),
        "video_s": sum(clip.figures["video_s"] or 0.0 for clip in clips),
        "work_s": sum(work) if work else None,
        "gpu_hours": sum(gpu) / 3600 if gpu else None,
        "realtime_median": _quantile(_figures(clips, "realtime_factor"), 0.5),
        "realtime_slowest_5_percent": _quantile(_figures(clips, "realtime_factor"), 0.05),
        "first_frame_median_s": _quantile(_figures(clips, "first_frame_s"), 0.5),
        "sound_correlation_median": _quantile(_figures(clips, "sound_correlation"), 0.5),
        "identity_least": min(_figures(clips, "identity"), default=None),
        "colour_change_most": max(_figures(clips, "colour_change"), default=None),
        "made_by": makers(clips),
    }


def makers(clips: Sequence[ClipView]) -> list[str]:
    """Each different checkpoint with device and program version, as the records say."""
    found = Counter(
        f"{record['profile']} {record.get('checkpoint_version', '')} "
        f"({str(record.get('weights_sha256') or 'weights unknown')[:12]}), "
        f"{record.get('device') or 'device unknown'} {record.get('dtype') or ''}, "
        f"JoyFlash {record.get('version', '')}"
        for clip in clips
        if (record := clip.record).get("profile")
    )
    return [" ".join(text.split()) for text, _ in found.most_common()]


def cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Head, value and a small line below for each card of the page's head."""
    states = summary["states"]
    good = summary["clips"] - states.get("failed", 0) - states.get("open", 0)
    rest = [f"{states[name]} {name}" for name in ("failed", "partial", "open") if states.get(name)]
    found = [
        ("Clips", str(good), ", ".join(rest) or "none failed"),
        ("Video", seconds(summary["video_s"]), "in all"),
    ]
    if summary["work_s"] is not None:
        gpu = summary["gpu_hours"]
        below = "of work, from the records" if gpu is None else f"{number(gpu)} GPU-hours"
        found.append(("Work", seconds(summary["work_s"]), below))
    if summary["realtime_median"] is not None:
        slow = f"slowest 5 %: {summary['realtime_slowest_5_percent']:.2f} ×"
        found.append(("Speed", f"{summary['realtime_median']:.2f} ×", f"real time; {slow}"))
    if summary["first_frame_median_s"] is not None:
        found.append(("First frame", seconds(summary["first_frame_median_s"]), "median"))
    if summary["sound_correlation_median"] is not None:
        value = number(summary["sound_correlation_median"])
        found.append(("Mouth–sound", value, "correlation, median"))
    if summary["identity_least"] is not None:
        found.append(("Identity", number(summary["identity_least"]), "least of all clips"))
    if summary["colour_change_most"] is not None:
        value = f"{number(summary['colour_change_most'])} ΔE"
        found.append(("Colour drift", value, "most of all clips"))
    return found


def _figures(clips: Sequence[ClipView], name: str) -> list[float]:
    return [clip.figures[name] for clip in clips if clip.figures[name] is not None]


def _quantile(values: Sequence[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if len(values) else None
