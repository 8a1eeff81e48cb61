"""The charts of a clip: curves, areas, dots and bars as inline SVG, made of numbers only.

A plot stretches with the page: its SVG has the fixed box 1000 x 100 and no aspect ratio of its
own, strokes keep their width, and every word stands outside as HTML. So it reads the same on a
telephone and on a wide screen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from joyflash_cli.measures.quality import FIRST_BLOCK_FRAMES, border_positions
from joyflash_cli.measures.words import number, seconds
from joyflash_cli.report.reading import ClipReading, Tracks

WIDTH, HEIGHT = 1000.0, 100.0
MAX_POINTS = 700
"""Longer tracks are drawn as means (or peaks) of equal stretches."""

MAX_DOTS = 250
"""More block borders than this are drawn as a curve of means instead of single marks."""

MAX_BORDERS = 60
"""More block borders than this would be a grey surface; they are left out."""


@dataclass(frozen=True)
class Chart:
    """One plot with the words around it.

    Attributes:
        title: What is drawn.
        value: The figure in one short text, shown beside the title.
        svg: The drawing.
        top: Text at the upper end of the vertical axis.
        bottom: Text at its lower end.
        left: Text at the left end of the time axis.
        right: Text at its right end.
        note: A line below, such as what the colours mean.
        wide: Whether it takes a whole row.
    """

    title: str
    value: str
    svg: str
    top: str
    bottom: str
    left: str = "0 s"
    right: str = ""
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Range:
    """What the vertical axis covers."""

    low: float
    high: float

    def y(self, values: np.ndarray) -> np.ndarray:
        """Heights in the plot, 0 at the top; what lies outside is drawn at the edge."""
        span = max(self.high - self.low, 1e-12)
        return HEIGHT * (1.0 - np.clip((values - self.low) / span, 0.0, 1.0))


def clip_charts(reading: ClipReading, figures: Mapping[str, Any]) -> list[Chart]:
    """Every chart that the clip's tracks allow, in the order of the page."""
    tracks, info = reading.tracks, reading.info
    if tracks is None or info is None:
        return []
    num_frames = len(tracks.sharpness)
    knows_blocks = "flicker" not in (reading.not_measured or {})
    marks = border_positions(num_frames) / num_frames if knows_blocks else np.zeros(0)
    lines, right = borders(marks), seconds(num_frames / (info.fps or 25.0))
    curve = partial(_curve, lines=lines, right=right)
    found = [_sound(tracks, figures, lines, right)]
    if tracks.identity is not None:
        found.append(
            curve(
                "Identity, likeness to the first frame",
                number(figures["identity"]),
                tracks.identity,
                Range(min(0.8, float(tracks.identity.min())), 1.0),
                "cosine of the identity embedding with that of the first frame over time",
            )
        )
    colour = Range(0.0, max(5.0, float(tracks.colour_change.max())))
    sharp = Range(min(0.7, float(tracks.sharpness.min())), max(1.3, float(tracks.sharpness.max())))
    found += [
        curve(
            "Colour, distance from the first second",
            f"{number(figures['colour_change'])} ΔE",
            tracks.colour_change,
            colour,
            "distance of the mean colour from the first second in CIE Lab over time",
            ends=(f"{number(colour.high)} ΔE", "0"),
        ),
        curve(
            "Sharpness, share of the first second",
            number(figures["sharpness"]),
            tracks.sharpness,
            sharp,
            "sharpness relative to the first second over time",
            below=level(1.0, sharp),
        ),
    ]
    if knows_blocks and len(tracks.changes):
        found.append(_flicker(tracks.changes, figures["border_flicker"], curve))
    found.append(_timings(reading, info.fps or 25.0))
    return [chart for chart in found if chart is not None]


def _curve(
    title: str,
    value: str,
    values: np.ndarray,
    scale: Range,
    label: str,
    *,
    lines: str,
    right: str,
    ends: tuple[str, str] | None = None,
    below: str = "",
    above: str = "",
    note: str = "",
) -> Chart:
    """One curve over time, with layers below and above it; ``ends`` name those of the scale."""
    top, bottom = ends or (number(scale.high), number(scale.low))
    svg = plot(lines, below, line(values, scale, style="curve"), above, label=label)
    return Chart(title, value, svg, top, bottom, right=right, note=note)


def _sound(tracks: Tracks, figures: Mapping[str, Any], lines: str, right: str) -> Chart | None:
    """The wave's peaks, and the mouth's opening over them."""
    if tracks.peak is None and tracks.mouth is None:
        return None
    layers, notes = [lines], []
    title, top, bottom = "Sound (mouth not measured)", "", ""
    if tracks.peak is not None:
        loudest = max(float(tracks.peak.max()), 1e-3)
        layers.append(area(-tracks.peak, tracks.peak, Range(-loudest, loudest), style="wave"))
        notes.append("grey: peaks of the sound")
    if tracks.mouth is not None:
        scale = Range(min(0.0, float(tracks.mouth.min())), max(0.5, float(tracks.mouth.max())))
        layers.append(line(tracks.mouth, scale, style="mouth"))
        notes.append("blue: opening of the mouth")
        title = "Sound and mouth" if tracks.peak is not None else "Mouth (no sound)"
        top, bottom = number(scale.high), number(scale.low)
    value = ""
    if figures["sound_correlation"] is not None:
        lag = figures["sound_lag_frames"]
        value = f"r = {figures['sound_correlation']:.2f} at {lag:+d} frames"
    svg = plot(*layers, label="peaks of the sound and opening of the mouth over time")
    return Chart(title, value, svg, top, bottom, right=right, note="; ".join(notes), wide=True)


def _flicker(changes: np.ndarray, ratio: float | None, curve: "partial[Chart]") -> Chart:
    """Change from frame to frame; the steps into a new block are marked."""
    places = border_positions(len(changes) + 1)
    scale = Range(0.0, max(float(np.quantile(changes, 0.995)) * 1.1, 1e-3))
    at_border = changes[places - 1]
    if len(places) > MAX_DOTS:
        marks = line(at_border, scale, style="border-curve")
    else:
        marks = dots(places / (len(changes) + 1), at_border, scale, style="border-dot")
    return curve(
        "Change from frame to frame",
        "" if ratio is None else f"{ratio:.2f} times as much at block borders",
        changes,
        scale,
        "mean change of a pixel to the frame before over time, block borders marked",
        ends=(number(scale.high), "0"),
        above=marks,
        note="mean change of a pixel, of 255; orange: into a new block",
    )


def _timings(reading: ClipReading, fps: float) -> Chart | None:
    """Seconds of work for each block, against the time in which it plays."""
    raw = reading.source.record.get("block_timings_s") or []
    timings = np.array([value for value in raw if isinstance(value, int | float)], np.float64)
    if not len(timings):
        return None
    plays_s = (FIRST_BLOCK_FRAMES + 3) / fps
    scale = Range(0.0, max(float(timings.max()) * 1.05, plays_s * 1.05))
    total = reading.source.record.get("realtime_factor")
    work = bars(timings, scale, style="bar")
    return Chart(
        "Work for each block",
        f"{total:.2f} times real time" if isinstance(total, int | float) else "",
        plot(work, level(plays_s, scale), label="seconds of work for each block"),
        f"{number(scale.high)} s",
        "0",
        left="first block",
        right="last",
        note=f"line: the {number(plays_s)} s in which a block plays",
        wide=True,
    )


def plot(*layers: str, label: str) -> str:
    """Layers, the lowest first, as one SVG element.

    Args:
        layers: From the functions below.
        label: For readers that cannot see; plain words without markup.
    """
    if set(label) & set('<>&"'):
        raise ValueError(f"{label!r} would need escaping")
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{"".join(layers)}</svg>'
    )


def line(values: np.ndarray, scale: Range, *, style: str) -> str:
    """A curve over the whole width."""
    drawn = shortened(values)
    return f'<path class="{style}" d="M{_points(_times(len(drawn)), scale.y(drawn))}"/>'


def area(low: np.ndarray, high: np.ndarray, scale: Range, *, style: str) -> str:
    """The surface between two curves of the same length."""
    upper, lower = shortened(high, peaks=True), shortened(low, peaks=True)
    x = _times(len(upper))
    forth = _points(x, scale.y(upper))
    back = _points(x[::-1], scale.y(lower[::-1]))
    return f'<path class="{style}" d="M{forth}L{back}Z"/>'


def dots(places: np.ndarray, values: np.ndarray, scale: Range, *, style: str) -> str:
    """Round marks at ``places`` in 0..1 of the width."""
    # A stroke of no length with round ends stays round however the plot is stretched.
    marks = (f"M{x:.1f} {y:.1f}h0" for x, y in zip(places * WIDTH, scale.y(values), strict=True))
    return f'<path class="{style}" d="{"".join(marks)}"/>'


def bars(values: np.ndarray, scale: Range, *, style: str) -> str:
    """Bars side by side from the lower end."""
    drawn = shortened(values, peaks=True)
    step = WIDTH / max(len(drawn), 1)
    marks = (
        f"M{i * step + 0.12 * step:.1f} {HEIGHT:g}V{y:.1f}h{0.76 * step:.1f}V{HEIGHT:g}z"
        for i, y in enumerate(scale.y(drawn))
    )
    return f'<path class="{style}" d="{"".join(marks)}"/>'


def level(value: float, scale: Range, *, style: str = "level") -> str:
    """A horizontal line."""
    y = float(scale.y(np.array([value]))[0])
    return f'<path class="{style}" d="M0 {y:.1f}H{WIDTH:g}"/>'


def borders(places: Sequence[float] | np.ndarray) -> str:
    """Vertical lines at ``places`` in 0..1 of the width; none when there are too many."""
    if len(places) > MAX_BORDERS:
        return ""
    marks = (f"M{place * WIDTH:.1f} 0V{HEIGHT:g}" for place in places)
    return f'<path class="border" d="{"".join(marks)}"/>' if len(places) else ""


def shortened(values: np.ndarray, *, peaks: bool = False) -> np.ndarray:
    """At most ``MAX_POINTS`` values: means of equal stretches, or what lies farthest from 0."""
    values = np.asarray(values, np.float64)
    if len(values) <= MAX_POINTS:
        return values
    edges = np.linspace(0, len(values), MAX_POINTS + 1).round().astype(int)
    if not peaks:
        return np.add.reduceat(values, edges[:-1]) / np.diff(edges)
    high, low = np.maximum.reduceat(values, edges[:-1]), np.minimum.reduceat(values, edges[:-1])
    return np.where(np.abs(high) >= np.abs(low), high, low)


def _times(count: int) -> np.ndarray:
    return (np.arange(count) + 0.5) / max(count, 1) * WIDTH


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
