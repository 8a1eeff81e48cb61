"""Curves, areas, dots and bars as inline SVG, made of numbers only.

A plot stretches with the page: its SVG has the fixed box 1000 x 100 and no aspect ratio of its
own, strokes keep their width, and every word stands outside as HTML. So it reads the same on a
telephone and on a wide screen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 1000.0, 100.0
MAX_POINTS = 700
"""Longer tracks are drawn as means (or peaks) of equal stretches."""

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
    return _path(_points(_times(len(drawn)), scale.y(drawn)), style)


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


def _path(points: str, style: str) -> str:
    return f'<path class="{style}" d="M{points}"/>'
