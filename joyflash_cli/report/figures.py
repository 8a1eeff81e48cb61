"""The charts of one clip: sound against mouth, drift, flicker at block borders, time per block."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from joyflash_cli.measures.quality import FIRST_BLOCK_FRAMES, border_positions
from joyflash_cli.measures.words import number, seconds
from joyflash_cli.report import charts
from joyflash_cli.report.charts import Chart, Range
from joyflash_cli.report.reading import ClipReading, Tracks

MAX_DOTS = 250
"""More block borders than this are drawn as a curve of means instead of single marks."""


def clip_charts(reading: ClipReading, figures: Mapping[str, Any]) -> list[Chart]:
    """Every chart that the clip's tracks allow, in the order of the page."""
    tracks, info = reading.tracks, reading.info
    if tracks is None or info is None:
        return []
    missing = reading.not_measured or {}
    num_frames = len(tracks.sharpness)
    marks = border_positions(num_frames) / num_frames if "flicker" not in missing else np.zeros(0)
    lines = charts.borders(marks)
    right = seconds(num_frames / (info.fps or 25.0))
    found = [
        _sound(tracks, figures, lines, right),
        _identity(tracks, figures, lines, right),
        _colour(tracks, figures, lines, right),
        _sharpness(tracks, figures, lines, right),
        _flicker(tracks, figures, lines, right) if "flicker" not in missing else None,
        _timings(reading, right),
    ]
    return [chart for chart in found if chart is not None]


def _sound(tracks: Tracks, figures: Mapping[str, Any], lines: str, right: str) -> Chart | None:
    """The wave's peaks, and the mouth's opening over them."""
    if tracks.peak is None and tracks.mouth is None:
        return None
    layers = [lines]
    parts = []
    if tracks.peak is not None:
        loudest = max(float(tracks.peak.max()), 1e-3)
        layers.append(
            charts.area(-tracks.peak, tracks.peak, Range(-loudest, loudest), style="wave")
        )
        parts.append("grey: peaks of the sound")
    top, bottom = "", ""
    if tracks.mouth is not None:
        scale = Range(min(0.0, float(tracks.mouth.min())), max(0.5, float(tracks.mouth.max())))
        layers.append(charts.line(tracks.mouth, scale, style="mouth"))
        parts.append("blue: opening of the mouth")
        top, bottom = number(scale.high), number(scale.low)
    value = ""
    if figures["sound_correlation"] is not None:
        lag = figures["sound_lag_frames"]
        value = f"r = {figures['sound_correlation']:.2f} at {lag:+d} frames"
    return Chart(
        _sound_title(tracks),
        value,
        charts.plot(*layers, label="peaks of the sound and opening of the mouth over time"),
        top,
        bottom,
        right=right,
        note="; ".join(parts),
        wide=True,
    )


def _sound_title(tracks: Tracks) -> str:
    if tracks.mouth is None:
        return "Sound (mouth not measured)"
    return "Sound and mouth" if tracks.peak is not None else "Mouth (no sound)"


def _identity(tracks: Tracks, figures: Mapping[str, Any], lines: str, right: str) -> Chart | None:
    if tracks.identity is None:
        return None
    scale = Range(min(0.8, float(tracks.identity.min())), 1.0)
    return Chart(
        "Identity, likeness to the first frame",
        number(figures["identity"]),
        charts.plot(
            lines,
            charts.line(tracks.identity, scale, style="curve"),
            label="cosine of the identity embedding with that of the first frame over time",
        ),
        number(scale.high),
        number(scale.low),
        right=right,
    )


def _colour(tracks: Tracks, figures: Mapping[str, Any], lines: str, right: str) -> Chart:
    scale = Range(0.0, max(5.0, float(tracks.colour_change.max())))
    return Chart(
        "Colour, distance from the first second",
        f"{number(figures['colour_change'])} ΔE",
        charts.plot(
            lines,
            charts.line(tracks.colour_change, scale, style="curve"),
            label="distance of the mean colour from the first second in CIE Lab over time",
        ),
        f"{number(scale.high)} ΔE",
        "0",
        right=right,
    )


def _sharpness(tracks: Tracks, figures: Mapping[str, Any], lines: str, right: str) -> Chart:
    values = tracks.sharpness
    scale = Range(min(0.7, float(values.min())), max(1.3, float(values.max())))
    return Chart(
        "Sharpness, share of the first second",
        number(figures["sharpness"]),
        charts.plot(
            lines,
            charts.level(1.0, scale),
            charts.line(values, scale, style="curve"),
            label="sharpness relative to the first second over time",
        ),
        number(scale.high),
        number(scale.low),
        right=right,
    )


def _flicker(tracks: Tracks, figures: Mapping[str, Any], lines: str, right: str) -> Chart | None:
    """Change from frame to frame; the steps into a new block are marked."""
    changes = tracks.changes
    if not len(changes):
        return None
    places = border_positions(len(changes) + 1)
    scale = Range(0.0, max(float(np.quantile(changes, 0.995)) * 1.1, 1e-3))
    at_border = changes[places - 1]
    if len(places) > MAX_DOTS:
        marks = charts.line(at_border, scale, style="border-curve")
    else:
        marks = charts.dots(places / (len(changes) + 1), at_border, scale, style="border-dot")
    ratio = figures["border_flicker"]
    return Chart(
        "Change from frame to frame",
        "" if ratio is None else f"{ratio:.2f} times as much at block borders",
        charts.plot(
            lines,
            charts.line(changes, scale, style="curve"),
            marks,
            label="mean change of a pixel to the frame before over time, block borders marked",
        ),
        number(scale.high),
        "0",
        right=right,
        note="mean change of a pixel, of 255; orange: into a new block",
    )


def _timings(reading: ClipReading, right: str) -> Chart | None:
    """Seconds of work for each block, against the time in which it plays."""
    raw = reading.source.record.get("block_timings_s") or []
    timings = np.array([value for value in raw if isinstance(value, int | float)], np.float64)
    if not len(timings) or reading.info is None:
        return None
    plays_s = (FIRST_BLOCK_FRAMES + 3) / (reading.info.fps or 25.0)
    scale = Range(0.0, max(float(timings.max()) * 1.05, plays_s * 1.05))
    total = reading.source.record.get("realtime_factor")
    return Chart(
        "Work for each block",
        f"{total:.2f} times real time" if isinstance(total, int | float) else "",
        charts.plot(
            charts.bars(timings, scale, style="bar"),
            charts.level(plays_s, scale),
            label="seconds of work for each block",
        ),
        f"{number(scale.high)} s",
        "0",
        left="first block",
        right="last",
        note=f"line: the {number(plays_s)} s in which a block plays",
        wide=True,
    )
