"""From face coordinates to pixels: a pose that turns layers in 2-D, and a pen with a style.

A turn of the head is a parallax: each point gets the depth of a dome over the face, so features
slide and foreshorten together while the outline nearly stays.
"""

from dataclasses import dataclass, field

import numpy as np

from joyflash_cli.studio.heads.drawn_style import DrawnStyle, darker, mix
from joyflash_cli.studio.heads.painter import Colour, Painter

_DOME_DEPTH = 19.0
_DOME_CENTRE_Y = 64.0
_DOME_RADII = (39.0, 54.0)
_ROLL_CENTRE_Y = 108.0
_HEAD_DEPTH = 4.0
_DESIGN_SIZE = 128.0


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
        turned_y = x * sine + below * cosine + (_ROLL_CENTRE_Y - _DESIGN_SIZE / 2)
        result[:, 1] = turned_y * self.scale + self.centre[1]
        return result


@dataclass(frozen=True)
class Pen:
    """Draws design-space shapes in one style and pose."""

    painter: Painter
    style: DrawnStyle
    line_colour: Colour
    pose: Pose

    def outline_of(self, colour: Colour) -> Colour:
        """The colour of lines around or on something of this colour."""
        return darker(colour, 0.45) if self.style.tinted_outline else self.line_colour

    def shape(
        self,
        points: np.ndarray,
        colour: Colour,
        *,
        lift: float = 0.0,
        clip: np.ndarray | None = None,
        outline: float = 1.0,
        shadow: float = 1.0,
        end_colour: Colour | None = None,
    ) -> None:
        """Fill a closed polygon with the style's shadow, gradient and outline (scaled widths)."""
        pixels = self.pose.to_pixels(points, lift)
        scale = self.pose.scale
        if self.style.drop_shadow and shadow:
            for distance, share in ((1.0, 0.6), (2.2, 0.5)):
                moved = pixels + np.array([0.5, 1.0]) * distance * scale * shadow
                opacity = self.style.drop_shadow * share
                self.painter.fill(moved, (52, 36, 60), opacity=opacity, clip=clip)
        if end_colour is None and self.style.gradient:
            end_colour = darker(colour, 1.0 - 0.22 * self.style.gradient)
            colour = mix(colour, (255, 255, 255), 0.1 * self.style.gradient)
        self.painter.fill(pixels, colour, end_colour=end_colour, clip=clip)
        if self.style.outline and outline:
            closed = np.concatenate([pixels, pixels[:1]])
            radii = np.full(len(closed), 0.5 * self.style.outline * outline * scale)
            self.painter.stroke(closed, radii, self.outline_of(colour), clip=clip)

    def fill(
        self,
        points: np.ndarray,
        colour: Colour,
        *,
        lift: float = 0.0,
        clip: np.ndarray | None = None,
        opacity: float = 1.0,
        end_colour: Colour | None = None,
    ) -> None:
        """Fill a closed polygon and nothing else."""
        pixels = self.pose.to_pixels(points, lift)
        self.painter.fill(pixels, colour, end_colour=end_colour, opacity=opacity, clip=clip)

    def line(
        self,
        points: np.ndarray,
        width: float,
        colour: Colour,
        *,
        lift: float = 0.0,
        taper: float = 0.0,
        clip: np.ndarray | None = None,
        opacity: float = 1.0,
    ) -> None:
        """Draw a polyline, thinner towards both ends by ``taper`` in 0..1."""
        pixels = self.pose.to_pixels(points, lift)
        along = np.linspace(-1.0, 1.0, len(pixels))
        radii = 0.5 * width * self.pose.scale * (1.0 - taper * along * along)
        self.painter.stroke(pixels, radii, colour, clip=clip, opacity=opacity)

    def spot(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        colour: Colour,
        *,
        lift: float = 0.0,
        opacity: float = 1.0,
        hardness: float = 0.0,
        clip: np.ndarray | None = None,
    ) -> None:
        """Draw a soft ellipse."""
        pixel = self.pose.to_pixels(np.array([centre]), lift)[0]
        scaled = (radii[0] * self.pose.scale, radii[1] * self.pose.scale)
        self.painter.spot(pixel, scaled, colour, opacity=opacity, hardness=hardness, clip=clip)

    def mask(self, points: np.ndarray, *, lift: float = 0.0) -> np.ndarray:
        """Coverage of a closed polygon, for ``clip``."""
        return self.painter.mask(self.pose.to_pixels(points, lift))
