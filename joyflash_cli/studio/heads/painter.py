"""Anti-aliased 2-D primitives: filled polygons, tapered strokes and soft spots on an RGB canvas.

Fills use exact signed-area coverage per pixel, strokes the distance to their segments, so a picture
is the same on every run and edges move smoothly by fractions of a pixel.
"""

import numba
import numpy as np

Colour = tuple[float, float, float]
"""Red, green, blue in 0..255."""

_SPLINE_STEPS = 6


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


@numba.njit(cache=True)
def _fill(canvas, area, points, start, end, opacity, clip):
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
                    canvas[row, column, channel] += (colour - canvas[row, column, channel]) * alpha
        area[row, width] = 0.0
        area[row, width + 1] = 0.0


@numba.njit(cache=True)
def _mask(area, points, result):
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
def _stroke(canvas, area, points, radii, colour, opacity, clip):
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
                    value = canvas[row, column, channel]
                    canvas[row, column, channel] = value + (colour[channel] - value) * alpha


@numba.njit(cache=True)
def _spot(canvas, centre, radii, hardness, colour, opacity, clip):
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
                    value = canvas[row, column, channel]
                    canvas[row, column, channel] = value + (colour[channel] - value) * alpha


@numba.njit(cache=True)
def _spline(points, closed, steps):
    """Catmull-Rom curve through the points."""
    count = points.shape[0]
    pieces = count if closed else count - 1
    result = np.empty((pieces * steps + (0 if closed else 1), 2))
    for piece in range(pieces):
        if closed:
            a, b = points[(piece - 1) % count], points[piece]
            c, d = points[(piece + 1) % count], points[(piece + 2) % count]
        else:
            a, b = points[max(piece - 1, 0)], points[piece]
            c, d = points[piece + 1], points[min(piece + 2, count - 1)]
        for step in range(steps):
            t = step / steps
            for axis in range(2):
                result[piece * steps + step, axis] = 0.5 * (
                    2.0 * b[axis]
                    + (c[axis] - a[axis]) * t
                    + (2.0 * a[axis] - 5.0 * b[axis] + 4.0 * c[axis] - d[axis]) * t * t
                    + (3.0 * (b[axis] - c[axis]) + d[axis] - a[axis]) * t * t * t
                )
    if not closed:
        result[-1] = points[-1]
    return result


def spline(points: np.ndarray, *, closed: bool = False, steps: int = _SPLINE_STEPS) -> np.ndarray:
    """Smooth curve through ``(N, 2)`` points, ``steps`` samples a piece (Catmull-Rom)."""
    return _spline(np.ascontiguousarray(points, np.float64), closed, steps)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], *, points: int = 28):
    """Closed polygon ``(points, 2)`` of an upright ellipse."""
    angle = np.linspace(0.0, 2.0 * np.pi, points, endpoint=False)
    return np.stack(
        [centre[0] + radii[0] * np.cos(angle), centre[1] + radii[1] * np.sin(angle)], axis=1
    )


class Painter:
    """An RGB canvas in pixels; x to the right, y down, pixel centres at one half."""

    def __init__(self, size_px: int):
        self.size_px = size_px
        self._canvas = np.zeros((size_px, size_px, 3), np.float32)
        self._area = np.zeros((size_px, size_px + 2), np.float64)
        self._everywhere = np.ones((size_px, size_px), np.float32)

    def load(self, picture: np.ndarray) -> None:
        """Start from a float32 picture ``(size, size, 3)``."""
        self._canvas[:] = picture

    def clear(self, colour: Colour) -> None:
        """Fill the whole canvas."""
        self._canvas[:] = colour

    def snapshot(self) -> np.ndarray:
        """Float32 copy of the canvas, for ``load``."""
        return self._canvas.copy()

    def picture(self) -> np.ndarray:
        """RGB picture ``(size, size, 3)`` uint8."""
        return np.clip(self._canvas + 0.5, 0.0, 255.0).astype(np.uint8)

    def fill(
        self,
        points: np.ndarray,
        colour: Colour,
        *,
        end_colour: Colour | None = None,
        opacity: float = 1.0,
        clip: np.ndarray | None = None,
    ) -> None:
        """Blend the polygon ``(N, 2)``, shading to ``end_colour`` (if given) at its bottom."""
        _fill(
            self._canvas,
            self._area,
            points,
            colour,
            colour if end_colour is None else end_colour,
            float(opacity),
            self._everywhere if clip is None else clip,
        )

    def stroke(
        self,
        points: np.ndarray,
        radii: np.ndarray,
        colour: Colour,
        *,
        opacity: float = 1.0,
        clip: np.ndarray | None = None,
    ) -> None:
        """Blend a polyline ``(N, 2)`` of half width ``radii`` ``(N,)``, round at its ends."""
        everywhere = self._everywhere if clip is None else clip
        _stroke(self._canvas, self._area, points, radii, colour, float(opacity), everywhere)

    def spot(
        self,
        centre: np.ndarray,
        radii: tuple[float, float],
        colour: Colour,
        *,
        opacity: float = 1.0,
        hardness: float = 0.0,
        clip: np.ndarray | None = None,
    ) -> None:
        """Blend a soft upright ellipse: full inside ``hardness`` x radius, nothing at its rim."""
        everywhere = self._everywhere if clip is None else clip
        _spot(self._canvas, centre, radii, hardness, colour, float(opacity), everywhere)

    def mask(self, points: np.ndarray) -> np.ndarray:
        """Coverage ``(size, size)`` float32 in 0..1 of the closed polygon, usable as ``clip``."""
        result = np.zeros((self.size_px, self.size_px), np.float32)
        _mask(self._area, points, result)
        return result
