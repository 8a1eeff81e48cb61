"""From face coordinates to pixels: a pose that turns layers in 2-D, and a pen with a style.

A turn of the head is a parallax: each point gets the depth of a dome over the face, so features
slide and foreshorten together while the outline nearly stays.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from joyflash_cli.studio.heads import painter
from joyflash_cli.studio.heads.drawn_style import WHITE, DrawnStyle, darker, mix
from joyflash_cli.studio.heads.painter import Colour

_DOME_DEPTH = 19.0
_DOME_CENTRE_Y = 64.0
_DOME_RADII = (39.0, 54.0)
_ROLL_CENTRE_Y = 108.0
_HEAD_DEPTH = 4.0
DESIGN_SIZE = 128.0


@dataclass(frozen=True)
class Pose:
    """Angles in radians (yaw to the picture's right, pitch down, roll clockwise are positive).

    Attributes:
        scale: Pixels per design pixel.
        centre: Pixel position of the design point (0, 64).
        flat: No depth at all: for shoulders and neck.
    """

    scale: float
    centre: tuple[float, float]
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    flat: bool = False
    _turn: tuple[float, float, float, float] = field(init=False)

    def __post_init__(self):
        turn = (np.sin(self.yaw), np.sin(self.pitch), np.cos(self.roll), np.sin(self.roll))
        object.__setattr__(self, "_turn", tuple(float(value) for value in turn))

    def to_pixels(self, points: np.ndarray, lift: float = 0.0) -> np.ndarray:
        """Pixels ``(N, 2)`` of design points; ``lift`` is extra depth towards the viewer."""
        x, y = points[:, 0], points[:, 1]
        yaw_sine, pitch_sine, cosine, sine = self._turn
        if not self.flat:
            inside = 1.0 - (x / _DOME_RADII[0]) ** 2 - ((y - _DOME_CENTRE_Y) / _DOME_RADII[1]) ** 2
            depth = _DOME_DEPTH * np.sqrt(np.maximum(inside, 0.0)) + (lift + _HEAD_DEPTH)
            x = x + depth * yaw_sine
            y = y + depth * pitch_sine
        result = np.empty((len(points), 2))
        below = y - _ROLL_CENTRE_Y
        result[:, 0] = (x * cosine - below * sine) * self.scale + self.centre[0]
        turned_y = x * sine + below * cosine + (_ROLL_CENTRE_Y - DESIGN_SIZE / 2)
        result[:, 1] = turned_y * self.scale + self.centre[1]
        return result


class Canvas:
    """What pens draw on, ``(size_px, size_px, 3)`` float32 in ``pixels``."""

    def __init__(self, size_px: int) -> None:
        self.pixels = np.zeros((size_px, size_px, 3), np.float32)
        self.area = np.zeros((size_px, size_px + 2), np.float64)
        self.everywhere = np.ones((size_px, size_px), np.float32)

    def picture(self) -> np.ndarray:
        """RGB picture ``(size_px, size_px, 3)`` uint8."""
        return np.clip(self.pixels + 0.5, 0.0, 255.0).astype(np.uint8)


@dataclass(frozen=True)
class Pen:
    """Draws design-space shapes in one style and pose.

    Attributes:
        lift: Extra depth of what it draws, towards the viewer.
        clip: ``(S, S)`` how much of each pixel may be drawn on; ``None`` is all.
    """

    canvas: Canvas
    style: DrawnStyle
    line_colour: Colour
    pose: Pose
    lift: float = 0.0
    clip: np.ndarray | None = None

    def at(self, lift: float) -> "Pen":
        """The same pen at another depth."""
        return replace(self, lift=lift)

    def within(self, clip: np.ndarray | None) -> "Pen":
        """The same pen, drawing only where ``clip`` says."""
        return replace(self, clip=clip)

    def outline_of(self, colour: Colour) -> Colour:
        """The colour of lines around or on something of this colour."""
        return darker(colour, 0.45) if self.style.tinted_outline else self.line_colour

    def shape(
        self,
        points: np.ndarray,
        colour: Colour,
        *,
        outline: float = 1.0,
        shadow: float = 1.0,
        end_colour: Colour | None = None,
    ) -> None:
        """Fill a closed polygon with the style's shadow, gradient and outline (scaled widths)."""
        pixels, scale, style = self._pixels(points), self.pose.scale, self.style
        if style.drop_shadow and shadow:
            for distance, share in ((1.0, 0.6), (2.2, 0.5)):
                moved = pixels + np.array([0.5, 1.0]) * distance * scale * shadow
                self._fill(moved, (52, 36, 60), opacity=style.drop_shadow * share)
        if end_colour is None and style.gradient:
            end_colour = darker(colour, 1.0 - 0.22 * style.gradient)
            colour = mix(colour, WHITE, 0.1 * style.gradient)
        self._fill(pixels, colour, end_colour=end_colour)
        if style.outline and outline:
            closed = np.concatenate([pixels, pixels[:1]])
            radii = np.full(len(closed), 0.5 * style.outline * outline * scale)
            self._stroke(closed, radii, self.outline_of(colour))

    def fill(
        self,
        points: np.ndarray,
        colour: Colour,
        *,
        opacity: float = 1.0,
        end_colour: Colour | None = None,
    ) -> None:
        """Fill a closed polygon, shading to ``end_colour`` (if given) at its bottom."""
        self._fill(self._pixels(points), colour, opacity=opacity, end_colour=end_colour)

    def line(
        self,
        points: np.ndarray,
        width: float,
        colour: Colour,
        *,
        taper: float = 0.0,
        opacity: float = 1.0,
    ) -> None:
        """Draw a polyline, thinner towards both ends by ``taper`` in 0..1."""
        along = np.linspace(-1.0, 1.0, len(points))
        radii = 0.5 * width * self.pose.scale * (1.0 - taper * along * along)
        self._stroke(self._pixels(points), radii, colour, opacity=opacity)

    def brush(self, points: np.ndarray, width: float, taper: np.ndarray, colour: Colour) -> None:
        """Draw a polyline whose half width is ``width`` times ``taper (N,)``."""
        self._stroke(self._pixels(points), width * self.pose.scale * taper, colour)

    def spot(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        colour: Colour,
        *,
        opacity: float = 1.0,
        hardness: float = 0.0,
    ) -> None:
        """Draw a soft ellipse: full inside ``hardness`` times the radius, nothing at its rim."""
        pixel = self._pixels(np.array([centre]))[0]
        scaled = (radii[0] * self.pose.scale, radii[1] * self.pose.scale)
        painter.spot(
            self.canvas.pixels, pixel, scaled, hardness, colour, float(opacity), self._clip
        )

    def mask(self, points: np.ndarray) -> np.ndarray:
        """Coverage ``(S, S)`` float32 in 0..1 of a closed polygon, for ``clip``."""
        result = np.zeros_like(self.canvas.everywhere)
        painter.mask(self.canvas.area, self._pixels(points), result)
        return result

    @property
    def _clip(self) -> np.ndarray:
        return self.canvas.everywhere if self.clip is None else self.clip

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        return self.pose.to_pixels(points, self.lift)

    def _fill(self, pixels, colour, *, opacity=1.0, end_colour=None) -> None:
        end = colour if end_colour is None else end_colour
        canvas = self.canvas
        painter.fill(canvas.pixels, canvas.area, pixels, colour, end, float(opacity), self._clip)

    def _stroke(self, pixels, radii, colour, *, opacity=1.0) -> None:
        canvas = self.canvas
        painter.stroke(
            canvas.pixels, canvas.area, pixels, radii, colour, float(opacity), self._clip
        )
