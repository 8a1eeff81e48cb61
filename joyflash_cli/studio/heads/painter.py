"""Anti-aliased 2-D primitives: filled polygons, tapered strokes and soft spots on an RGB canvas.

Canvases are float32 ``(S, S, 3)`` in 0..255, x to the right, y down, pixel centres at one half.

Fills use exact signed-area coverage per pixel, strokes the distance to their segments, so a picture
is the same on every run and edges move smoothly by fractions of a pixel.
"""

import numba
import numpy as np
from numpy.typing import ArrayLike

Colour = tuple[float, float, float]
"""Red, green, blue in 0..255."""


@numba.njit(cache=True)
def _accumulate_edge(area, row_area, distance, start_x, end_x):
    """Add one edge's signed coverage of one pixel row; a running sum along x restores it."""
    left, right = min(start_x, end_x), max(start_x, end_x)
    first = int(np.floor(left))
    last = int(np.ceil(right))
    if last <= first + 1:
        middle = 0.5 * (left + right) - first
        area[row_area, first] += distance * (1.0 - middle)
        area[row_area, first + 1] += distance * middle
        return
    slope = 1.0 / (right - left)
    covered = 0.0
    previous = 0.0
    for column in range(first, last):
        near, far = max(float(column), left), min(column + 1.0, right)
        reached = min((far - left) * slope, 1.0)
        # Mean over the edge's height of how much of this pixel lies to its right.
        inside = previous + (reached - previous) * (column + 1.0 - 0.5 * (near + far))
        area[row_area, column] += distance * (inside - covered)
        covered = inside
        previous = reached
    area[row_area, last] += distance * (1.0 - covered)


@numba.njit(cache=True)
def _coverage(points, area):
    """Fill ``area`` (height, width + 2) with edge sums; returns the rows touched."""
    height, width = area.shape[0], area.shape[1] - 2
    first_row, last_row = height, 0
    count = points.shape[0]
    for index in range(count):
        x0, y0 = points[index]
        x1, y1 = points[(index + 1) % count]
        if y0 == y1:
            continue
        direction = 1.0
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
            direction = -1.0
        if y1 <= 0.0 or y0 >= height:
            continue
        slope = (x1 - x0) / (y1 - y0)
        top, bottom = max(0, int(np.floor(y0))), min(height, int(np.ceil(y1)))
        first_row, last_row = min(first_row, top), max(last_row, bottom)
        for row in range(top, bottom):
            upper, lower = max(float(row), y0), min(row + 1.0, y1)
            if lower <= upper:
                continue
            start_x = min(max(x0 + (upper - y0) * slope, 0.0), float(width))
            end_x = min(max(x0 + (lower - y0) * slope, 0.0), float(width))
            _accumulate_edge(area, row, direction * (lower - upper), start_x, end_x)
    return first_row, last_row


@numba.njit(cache=True, inline="always")
def _blend(canvas, row, column, channel, colour, alpha):
    value = canvas[row, column, channel]
    canvas[row, column, channel] = value + (colour - value) * alpha


@numba.njit(cache=True)
def fill(canvas, area, points, start, end, opacity, clip):
    """Blend a polygon whose colour runs from ``start`` at its top to ``end`` at its bottom."""
    first_row, last_row = _coverage(points, area)
    top, bottom = points[:, 1].min(), points[:, 1].max()
    span = max(bottom - top, 1e-6)
    width = canvas.shape[1]
    for row in range(first_row, last_row):
        t = min(max((row + 0.5 - top) / span, 0.0), 1.0)
        running = 0.0
        for column in range(width):
            running += area[row, column]
            area[row, column] = 0.0
            alpha = min(abs(running), 1.0) * opacity * clip[row, column]
            if alpha > 1e-4:
                for channel in range(3):
                    colour = start[channel] + (end[channel] - start[channel]) * t
                    _blend(canvas, row, column, channel, colour, alpha)
        area[row, width] = 0.0
        area[row, width + 1] = 0.0


@numba.njit(cache=True)
def mask(area, points, result):
    """Write the coverage 0..1 of a closed polygon into ``result``."""
    first_row, last_row = _coverage(points, area)
    width = result.shape[1]
    for row in range(first_row, last_row):
        running = 0.0
        for column in range(width):
            running += area[row, column]
            area[row, column] = 0.0
            result[row, column] = min(abs(running), 1.0)
        area[row, width] = 0.0
        area[row, width + 1] = 0.0


@numba.njit(cache=True)
def stroke(canvas, area, points, radii, colour, opacity, clip):
    """Blend a polyline of varying radius; overlapping segments do not add up."""
    height, width = canvas.shape[0], canvas.shape[1]
    left, top, right, bottom = width, height, 0, 0
    for index in range(points.shape[0] - 1):
        x0, y0 = points[index]
        x1, y1 = points[index + 1]
        r0, r1 = radii[index], radii[index + 1]
        reach = max(r0, r1) + 1.0
        column_0 = max(0, int(np.floor(min(x0, x1) - reach)))
        column_1 = min(width, int(np.ceil(max(x0, x1) + reach)))
        row_0 = max(0, int(np.floor(min(y0, y1) - reach)))
        row_1 = min(height, int(np.ceil(max(y0, y1) + reach)))
        left, right = min(left, column_0), max(right, column_1)
        top, bottom = min(top, row_0), max(bottom, row_1)
        dx, dy = x1 - x0, y1 - y0
        length = max(dx * dx + dy * dy, 1e-9)
        for row in range(row_0, row_1):
            for column in range(column_0, column_1):
                px, py = column + 0.5 - x0, row + 0.5 - y0
                t = min(max((px * dx + py * dy) / length, 0.0), 1.0)
                radius = r0 + (r1 - r0) * t
                distance = np.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2)
                # A hairline thinner than a pixel fades instead of staying a full pixel wide.
                cover = min(max(radius - distance + 0.5, 0.0), 1.0) * min(1.0, 2.0 * radius)
                if cover > area[row, column]:
                    area[row, column] = cover
    for row in range(top, bottom):
        for column in range(left, right):
            alpha = area[row, column] * opacity * clip[row, column]
            area[row, column] = 0.0
            if alpha > 1e-4:
                for channel in range(3):
                    _blend(canvas, row, column, channel, colour[channel], alpha)


@numba.njit(cache=True)
def spot(canvas, centre, radii, hardness, colour, opacity, clip):
    """Blend an upright ellipse that fades from ``hardness`` x radius to its rim."""
    height, width = canvas.shape[0], canvas.shape[1]
    row_0 = max(0, int(np.floor(centre[1] - radii[1])))
    row_1 = min(height, int(np.ceil(centre[1] + radii[1])) + 1)
    column_0 = max(0, int(np.floor(centre[0] - radii[0])))
    column_1 = min(width, int(np.ceil(centre[0] + radii[0])) + 1)
    for row in range(row_0, row_1):
        for column in range(column_0, column_1):
            x = (column + 0.5 - centre[0]) / radii[0]
            y = (row + 0.5 - centre[1]) / radii[1]
            t = min(max((1.0 - np.sqrt(x * x + y * y)) / (1.0 - hardness), 0.0), 1.0)
            alpha = t * t * (3.0 - 2.0 * t) * opacity * clip[row, column]
            if alpha > 1e-4:
                for channel in range(3):
                    _blend(canvas, row, column, channel, colour[channel], alpha)


def spline(points: ArrayLike, *, closed: bool = False, steps: int = 6) -> np.ndarray:
    """Smooth curve through ``(N, 2)`` points, ``steps`` samples a piece (Catmull-Rom)."""
    points = np.asarray(points, np.float64)
    ends = (points[-1:], points[:2]) if closed else (points[:1], points[-1:])
    around = np.concatenate([ends[0], points, ends[1]])
    a, b, c, d = (around[i : len(around) - 3 + i, None] for i in range(4))
    t = np.arange(steps)[:, None] / steps
    curve = 0.5 * (
        2.0 * b
        + (c - a) * t
        + (2.0 * a - 5.0 * b + 4.0 * c - d) * t * t
        + (3.0 * (b - c) + d - a) * t * t * t
    ).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def ellipse(centre: tuple[float, float], radii: tuple[float, float], *, points: int = 28):
    """Closed polygon ``(points, 2)`` of an upright ellipse."""
    angle = np.linspace(0.0, 2.0 * np.pi, points, endpoint=False)
    return np.stack(
        [centre[0] + radii[0] * np.cos(angle), centre[1] + radii[1] * np.sin(angle)], axis=1
    )


def mirrored(right: ArrayLike) -> np.ndarray:
    """Points ``(N, 2)`` on the other side of x = 0, in the other order: both make one outline."""
    return np.asarray(right)[::-1] * [-1.0, 1.0]


def smoothstep(values, low, high):
    """0 below ``low``, 1 above ``high`` (or the other way round), smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
