"""A drawn mouth that opens, widens, rounds, presses, shows teeth and lifts its tongue."""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.studio.heads.drawn_pen import Pen
from joyflash_cli.studio.heads.drawn_style import WHITE, Identity, darker, luminance, mix
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.studio.heads.painter import ellipse, smoothstep, spline

MAX_OPENING = 15.0
TEETH_SHADE, TEETH_SHADE_OF_DARK = 0.12, 0.45
"""How far teeth go towards the colour of the mouth's inside: of any face, and more of a dark one,
whose teeth would glare otherwise."""
LIP_LIFT = 2.0
"""How far the lips lie before the face, for ``Pose.to_pixels``."""
_CHIN_DROP = 6.5
_UPPER_SHARE = 0.2
_ACROSS = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 21))


@dataclass(frozen=True)
class MouthShape:
    """Curves from the left to the right corner, ``(21, 2)`` each, in face coordinates.

    Attributes:
        visemes: In their ranges, in the order of ``VISEMES``.
        gap: Largest opening between the lips.
        chin_drop: How far the chin has moved down, in design pixels.
    """

    outer_upper: np.ndarray
    inner_upper: np.ndarray
    inner_lower: np.ndarray
    outer_lower: np.ndarray
    half_width: float
    visemes: tuple[float, ...]
    gap: float
    chin_drop: float

    @property
    def lips(self) -> np.ndarray:
        """Closed outline ``(42, 2)`` of both lips."""
        return np.concatenate([self.outer_upper, self.outer_lower[::-1]])

    @property
    def opening(self) -> np.ndarray:
        """Closed outline ``(42, 2)`` of what is between them."""
        return np.concatenate([self.inner_upper, self.inner_lower[::-1]])


def shape_mouth(identity: Identity, state: FaceState) -> MouthShape:
    """The mouth's curves for one state."""
    visemes = np.clip(np.asarray(state.visemes, np.float64), (0.0, -0.5, 0.0, 0.0, 0.0, 0.0), 1.0)
    jaw, width, rounded, press, teeth, tongue = visemes.tolist()
    gap = (1.0 - press) * (
        MAX_OPENING * jaw * (1.0 - 0.15 * rounded)
        + (2.6 * rounded + 3.2 * teeth + 2.4 * tongue) * (1.0 - jaw)
    )
    half_width = identity.mouth_half_width * (
        1.0 + 0.3 * width - 0.46 * rounded + 0.12 * state.smile - 0.06 * jaw + 0.05 * press
    )
    t = _ACROSS
    bow = np.maximum(1.0 - t * t, 0.0)
    lift = identity.base_smile * (1.0 - 0.6 * rounded) * 1.5 + 4.2 * state.smile + 0.6 * width
    seam = identity.mouth_y + lift * (0.35 - t * t) + 0.12 * gap
    exponent = 0.72 - 0.2 * rounded
    inner_upper = seam - _UPPER_SHARE * gap * bow**exponent
    inner_lower = seam + (1.0 - _UPPER_SHARE) * gap * bow ** (exponent - 0.06)
    swell = (1.0 + 0.3 * rounded) * (1.0 - 0.55 * press) * (1.0 - 0.12 * max(width, 0.0))
    tuck = 1.0 - 0.35 * teeth * (1.0 - jaw)
    cupid = 1.0 - 0.22 * np.exp(-((t / 0.2) ** 2))
    reach = half_width + 0.9 + 0.5 * rounded
    outer_upper = inner_upper - identity.lip_upper * swell * bow**0.75 * cupid
    outer_lower = inner_lower + identity.lip_lower * swell * tuck * bow**0.62
    return MouthShape(
        np.stack([t * reach, outer_upper], axis=1),
        np.stack([t * half_width, inner_upper], axis=1),
        np.stack([t * half_width, inner_lower], axis=1),
        np.stack([t * reach, outer_lower], axis=1),
        half_width,
        (jaw, width, rounded, press, teeth, tongue),
        float(gap),
        chin_drop=_CHIN_DROP * jaw * (1.0 - 0.7 * press),
    )


def draw_mouth(pen: Pen, identity: Identity, mouth: MouthShape, state: FaceState) -> None:
    """Lips, then the dark inside with tongue and teeth, then the lip lines."""
    pen = pen.at(LIP_LIFT)
    palette, style = identity.palette, identity.style
    lip_line = pen.outline_of(palette.skin if style.lip_colour < 0.5 else palette.lip)
    if style.lip_colour:
        upper = mix(palette.skin, darker(palette.lip, 0.88), style.lip_colour)
        pen.fill(mouth.lips, upper)
        lower_lip = np.concatenate([mouth.inner_lower, mouth.outer_lower[::-1]])
        pen.fill(lower_lip, mix(palette.skin, palette.lip, style.lip_colour))
        if style.gradient:
            middle = 0.5 * (mouth.inner_lower[10] + mouth.outer_lower[10])
            radii = (0.34 * mouth.half_width, 1.1)
            pen.spot(tuple(middle), radii, WHITE, opacity=0.3 * style.gradient)
    _draw_shadow_below(pen, identity, mouth)
    shown = smoothstep(mouth.gap, 0.1, 1.4)
    if shown > 0.0:
        inside = pen.mask(mouth.opening) * np.float32(shown)
        _draw_inside(pen.within(inside), identity, mouth, state)
        ring = np.concatenate([mouth.opening, mouth.opening[:1]])
        pen.line(ring, 0.75 + 0.35 * style.outline, lip_line, opacity=shown)
    pressed = mouth.visemes[3]
    if shown < 1.0:
        seam = 0.5 * (mouth.inner_upper + mouth.inner_lower)
        width = (1.1 + 0.35 * style.outline) * (1.0 + 0.15 * pressed)
        colour = mix(lip_line, darker(palette.lip, 0.4), 0.5)
        pen.line(seam, width, colour, taper=0.35, opacity=1.0 - shown)
    # Small creases at the corners: deeper with a smile or pressed lips.
    strength = min(0.35 + 0.6 * state.smile + 0.4 * pressed, 1.0)
    length = 1.3 + 1.4 * state.smile
    x, y = mouth.half_width + 0.6, float(0.5 * (mouth.inner_upper[0, 1] + mouth.inner_lower[0, 1]))
    for side in (-1.0, 1.0):
        crease = spline([[side * x, y - 0.6 * length], [side * (x + 0.5), y], [side * x, y + 0.7]])
        width = 0.7 + 0.2 * style.outline
        pen.line(crease, width, lip_line, taper=0.6, opacity=0.8 * strength)


def _draw_inside(pen: Pen, identity: Identity, mouth: MouthShape, state: FaceState) -> None:
    """Dark cavity, lower teeth, tongue and upper teeth."""
    jaw, width, rounded, _, teeth, tongue = mouth.visemes
    palette, gap = identity.palette, mouth.gap
    deep = darker(palette.mouth_inside, 0.72)
    pen.fill(mouth.opening, deep, end_colour=palette.mouth_inside)
    bottom, top = float(mouth.inner_lower[10, 1]), float(mouth.inner_upper[10, 1])
    in_shade = TEETH_SHADE + TEETH_SHADE_OF_DARK * (1.0 - luminance(palette.skin))
    lower_height = min(2.4 * teeth, 0.45 * gap) * (1.0 - rounded)
    if lower_height > 0.15:
        edge = mouth.inner_lower[::-1] - np.array([0.0, lower_height])
        row = np.concatenate([mouth.inner_lower + np.array([0.0, 2.0]), edge])
        pen.fill(row, mix(palette.teeth, palette.mouth_inside, in_shade + 0.1))
    height = gap * (0.34 + 0.3 * tongue)
    seen = max(smoothstep(gap, 2.5, 7.0), tongue)
    if seen > 0.0 and height > 0.1:
        y = bottom + 0.35 * height - 0.25 * height * tongue
        body = ellipse((0.0, y), ((0.66 - 0.12 * tongue) * mouth.half_width, 1.3 * height))
        pen.fill(body, palette.tongue, opacity=seen)
        light = mix(palette.tongue, WHITE, 0.35)
        radii = (0.36 * mouth.half_width, 0.5 * height)
        pen.spot((0.0, y - 0.75 * height), radii, light, opacity=0.55 * seen)
    shown = 2.2 + 1.2 * teeth + 0.9 * max(width, 0.0) + 0.8 * state.smile + 0.6 * jaw
    upper_height = min(0.62 * gap, shown) * (1.0 - 0.75 * rounded)
    if upper_height > 0.15:
        drop = upper_height * (1.0 - 0.35 * _ACROSS**2)
        edge = mouth.inner_upper + np.stack([np.zeros_like(drop), drop], axis=1)
        row = np.concatenate([mouth.inner_upper - np.array([0.0, 2.0]), edge[::-1]])
        pen.fill(row, mix(palette.teeth, palette.mouth_inside, in_shade))
    pen.spot((0.0, top), (mouth.half_width, min(0.5 * gap, 2.0)), deep, opacity=0.25)


def _draw_shadow_below(pen: Pen, identity: Identity, mouth: MouthShape) -> None:
    """The short shade under the lower lip that makes it a lip."""
    palette, style = identity.palette, identity.style
    y = float(mouth.outer_lower[10, 1]) + 1.6
    reach = 0.42 * mouth.half_width
    shade = darker(palette.skin, 0.74)
    if style.gradient:
        pen.spot((0.0, y), (1.7 * reach, 2.2), shade, opacity=0.5 * style.gradient)
        return
    points = spline([[-reach, y - 0.4], [0.0, y + 0.3], [reach, y - 0.4]])
    colour = palette.line if style.ink else shade
    pen.line(points, 0.7 + 0.2 * style.outline, colour, taper=0.7, opacity=0.7)
