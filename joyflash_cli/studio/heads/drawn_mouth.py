"""A drawn mouth that opens, widens, rounds, presses, shows teeth and lifts its tongue."""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.studio.heads.drawn_pen import Pen
from joyflash_cli.studio.heads.drawn_style import Identity, darker, luminance, mix
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.studio.heads.painter import ellipse, spline

MAX_OPENING = 15.0
TEETH_SHADE, TEETH_SHADE_OF_DARK = 0.12, 0.45
"""How far teeth go towards the colour of the mouth's inside: of any face, and more of a dark one,
whose teeth would glare otherwise."""
LIP_LIFT = 2.0
"""Depth of the lips above the face."""
_CHIN_DROP = 6.5
_UPPER_SHARE = 0.2
LIP_LIFT = 2.0
"""How far the lips lie before the face, for ``Pose.to_pixels``."""
_ACROSS = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 21))


def smoothstep(value: float, low: float, high: float) -> float:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@dataclass(frozen=True)
class MouthShape:
    """Curves from the left to the right corner, ``(21, 2)`` each, in face coordinates.

    Attributes:
        gap: Largest opening between the lips.
        pressed: How hard the lips are pressed, 0..1.
    """

    outer_upper: np.ndarray
    inner_upper: np.ndarray
    inner_lower: np.ndarray
    outer_lower: np.ndarray
    half_width: float
    gap: float
    pressed: float


def chin_drop(state: FaceState) -> float:
    """How far the chin moves down, in design pixels."""
    jaw, _, _, press, _, _ = _visemes(state)
    return _CHIN_DROP * jaw * (1.0 - 0.7 * press)


def _visemes(state: FaceState) -> tuple[float, ...]:
    low = (0.0, -0.5, 0.0, 0.0, 0.0, 0.0)
    return tuple(float(v) for v in np.clip(np.asarray(state.visemes, np.float64), low, 1.0))


def shape_mouth(identity: Identity, state: FaceState) -> MouthShape:
    """The mouth's curves for one state."""
    jaw, width, rounded, press, teeth, tongue = _visemes(state)
    relaxed = 1.0 - press
    gap = relaxed * (
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

    def curve(radius: float, y: np.ndarray) -> np.ndarray:
        return np.stack([t * radius, y], axis=1)

    return MouthShape(
        curve(reach, outer_upper),
        curve(half_width, inner_upper),
        curve(half_width, inner_lower),
        curve(reach, outer_lower),
        half_width,
        float(gap),
        press,
    )


def draw_mouth(pen: Pen, identity: Identity, state: FaceState) -> None:
    """Lips, then the dark inside with tongue and teeth, then the lip lines."""
    mouth = shape_mouth(identity, state)
    palette, style = identity.palette, identity.style
    lip_line = pen.outline_of(palette.skin if style.lip_colour < 0.5 else palette.lip)
    lift = LIP_LIFT
    lips = np.concatenate([mouth.outer_upper, mouth.outer_lower[::-1]])
    opening = np.concatenate([mouth.inner_upper, mouth.inner_lower[::-1]])
    lower_lip = np.concatenate([mouth.inner_lower, mouth.outer_lower[::-1]])
    if style.lip_colour:
        upper = mix(palette.skin, darker(palette.lip, 0.88), style.lip_colour)
        lower = mix(palette.skin, palette.lip, style.lip_colour)
        pen.fill(lips, upper, lift=lift)
        pen.fill(lower_lip, lower, lift=lift)
        if style.gradient:
            _shine(pen, mouth, lift, 0.3 * style.gradient)
    _draw_shadow_below(pen, identity, mouth, lift)
    shown = smoothstep(mouth.gap, 0.1, 1.4)
    if shown > 0.0:
        inside = pen.mask(opening, lift=lift) * np.float32(shown)
        _draw_inside(pen, identity, state, mouth, inside, opening, lift)
        ring = np.concatenate([opening, opening[:1]])
        width = 0.75 + 0.35 * style.outline
        pen.line(ring, width, lip_line, lift=lift, opacity=shown)
    if shown < 1.0:
        seam = 0.5 * (mouth.inner_upper + mouth.inner_lower)
        width = (1.1 + 0.35 * style.outline) * (1.0 + 0.15 * mouth.pressed)
        colour = mix(lip_line, darker(palette.lip, 0.4), 0.5)
        pen.line(seam, width, colour, lift=lift, taper=0.35, opacity=1.0 - shown)
    _draw_corners(pen, identity, state, mouth, lip_line, lift)


def _shine(pen: Pen, mouth: MouthShape, lift: float, opacity: float) -> None:
    middle = 0.5 * (mouth.inner_lower[10] + mouth.outer_lower[10])
    radii = (0.34 * mouth.half_width, 1.1)
    pen.spot(tuple(middle), radii, (255, 255, 255), lift=lift, opacity=opacity)


def _draw_inside(pen, identity, state, mouth, inside, opening, lift) -> None:
    """Dark cavity, lower teeth, tongue and upper teeth, all clipped by the opening."""
    jaw, width, rounded, _, teeth, tongue = _visemes(state)
    palette = identity.palette
    deep = darker(palette.mouth_inside, 0.72)
    pen.fill(opening, deep, end_colour=palette.mouth_inside, lift=lift, clip=inside)
    bottom = float(mouth.inner_lower[10, 1])
    top = float(mouth.inner_upper[10, 1])
    in_shade = TEETH_SHADE + TEETH_SHADE_OF_DARK * (1.0 - luminance(palette.skin))
    lower_height = min(2.4 * teeth, 0.45 * mouth.gap) * (1.0 - rounded)
    if lower_height > 0.15:
        edge = mouth.inner_lower[::-1] - np.array([0.0, lower_height])
        shaded = mix(palette.teeth, palette.mouth_inside, in_shade + 0.1)
        row = np.concatenate([mouth.inner_lower + np.array([0.0, 2.0]), edge])
        pen.fill(row, shaded, lift=lift, clip=inside)
    rise = 0.34 + 0.3 * tongue
    height = mouth.gap * rise
    seen = max(smoothstep(mouth.gap, 2.5, 7.0), tongue)
    if seen > 0.0 and height > 0.1:
        centre = (0.0, bottom + 0.35 * height - 0.25 * height * tongue)
        body = ellipse(centre, ((0.66 - 0.12 * tongue) * mouth.half_width, 1.3 * height))
        pen.fill(body, palette.tongue, lift=lift, clip=inside, opacity=seen)
        tip = (0.0, centre[1] - 0.75 * height)
        light = mix(palette.tongue, (255, 255, 255), 0.35)
        radii = (0.36 * mouth.half_width, 0.5 * height)
        pen.spot(tip, radii, light, lift=lift, clip=inside, opacity=0.55 * seen)
    upper_height = min(
        0.62 * mouth.gap, 2.2 + 1.2 * teeth + 0.9 * max(width, 0.0) + 0.8 * state.smile + 0.6 * jaw
    ) * (1.0 - 0.75 * rounded)
    if upper_height > 0.15:
        drop = upper_height * (1.0 - 0.35 * _ACROSS**2)
        edge = mouth.inner_upper + np.stack([np.zeros_like(drop), drop], axis=1)
        row = np.concatenate([mouth.inner_upper - np.array([0.0, 2.0]), edge[::-1]])
        shaded = mix(palette.teeth, palette.mouth_inside, in_shade)
        pen.fill(row, shaded, lift=lift, clip=inside)
    shade = min(0.5 * mouth.gap, 2.0)
    pen.spot((0.0, top), (mouth.half_width, shade), deep, lift=lift, clip=inside, opacity=0.25)


def _draw_shadow_below(pen: Pen, identity: Identity, mouth: MouthShape, lift: float) -> None:
    """The short shade under the lower lip that makes it a lip."""
    palette, style = identity.palette, identity.style
    y = float(mouth.outer_lower[10, 1]) + 1.6
    reach = 0.42 * mouth.half_width
    shade = darker(palette.skin, 0.74)
    if style.gradient:
        radii = (1.7 * reach, 2.2)
        pen.spot((0.0, y), radii, shade, lift=lift, opacity=0.5 * style.gradient)
        return
    points = spline(np.array([[-reach, y - 0.4], [0.0, y + 0.3], [reach, y - 0.4]]))
    colour = palette.line if style.ink else shade
    pen.line(points, 0.7 + 0.2 * style.outline, colour, lift=lift, taper=0.7, opacity=0.7)


def _draw_corners(pen, identity, state, mouth, colour, lift) -> None:
    """Small creases at the corners: deeper with a smile or pressed lips."""
    strength = min(0.35 + 0.6 * state.smile + 0.4 * mouth.pressed, 1.0)
    length = 1.3 + 1.4 * state.smile
    y = float(0.5 * (mouth.inner_upper[0, 1] + mouth.inner_lower[0, 1]))
    for side in (-1.0, 1.0):
        x = mouth.half_width + 0.6
        crease = np.array(
            [[side * x, y - 0.6 * length], [side * (x + 0.5), y], [side * x, y + 0.7]]
        )
        width = 0.7 + 0.2 * identity.style.outline
        pen.line(spline(crease), width, colour, lift=lift, taper=0.6, opacity=0.8 * strength)
