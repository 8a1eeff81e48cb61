"""Drawn eyes with lids that close, brows that rise, and glasses."""

import numpy as np

from joyflash_cli.studio.heads.drawn_pen import Pen
from joyflash_cli.studio.heads.drawn_style import Identity, darker, mix
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.studio.heads.painter import ellipse, spline

_ACROSS = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 15))
EYE_LIFT = -1.0
"""How far the eyes lie before the face, for ``Pose.to_pixels``."""
_BROW_LIFT = 1.5


def draw_eyes(pen: Pen, identity: Identity, state: FaceState) -> None:
    """Both eyes."""
    for side in (-1.0, 1.0):
        if identity.eye_kind == "dot":
            _draw_dot_eye(pen, identity, state, side)
        else:
            _draw_eye(pen, identity, state, side)


def lid_curves(identity: Identity, state: FaceState, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower lid curves, ``(15, 2)`` each; a blink moves the upper onto the lower."""
    if identity.eye_kind == "dot":
        return _dot_curves(identity, state, side)
    t = _ACROSS
    bow = np.maximum(1.0 - t * t, 0.0)
    height = identity.eye_half_height
    # Outer corner (t * side > 0) a little higher or lower than the inner one.
    tilt = -identity.eye_tilt * t * side
    roundness = {"almond": 0.85, "round": 0.55, "big": 0.5}[identity.eye_kind]
    lower_depth = {"almond": 0.62, "round": 0.85, "big": 0.85}[identity.eye_kind]
    squint = 0.3 * state.smile
    lower = tilt + height * lower_depth * (1.0 - squint) * bow ** (roundness + 0.1)
    upper = tilt - height * bow**roundness
    closed = tilt + (lower - tilt) * 0.75
    lower = lower + (closed - lower) * state.blink
    upper = upper + (closed - upper) * state.blink
    x = side * identity.eye_x + t * identity.eye_half_width
    y = identity.eye_y
    return np.stack([x, y + upper], axis=1), np.stack([x, y + lower], axis=1)


def _draw_eye(pen: Pen, identity: Identity, state: FaceState, side: float) -> None:
    palette, style = identity.palette, identity.style
    upper, lower = lid_curves(identity, state, side)
    opening = np.concatenate([upper, lower[::-1]])
    line = mix(pen.outline_of(palette.skin), palette.line, 0.6)
    socket = darker(palette.skin, 0.8)
    if style.gradient:
        centre = (side * identity.eye_x, identity.eye_y - 1.0)
        radii = (identity.eye_half_width * 1.5, identity.eye_half_height * 2.0)
        pen.spot(centre, radii, socket, lift=EYE_LIFT, opacity=0.35 * style.gradient)
    if state.blink < 0.99:
        inside = pen.mask(opening, lift=EYE_LIFT)
        pen.fill(opening, palette.eye_white, lift=EYE_LIFT)
        _draw_iris(pen, identity, side, inside)
        shade = upper + np.array([0.0, 0.22 * identity.eye_half_height])
        band = np.concatenate([upper, shade[::-1]])
        pen.fill(band, (70, 56, 80), lift=EYE_LIFT, clip=inside, opacity=0.28)
    lash = 1.0 + 0.35 * style.outline + 0.7 * identity.lashes
    if identity.eye_kind == "big":
        lash += 0.9
    pen.line(upper, lash, line, lift=EYE_LIFT, taper=0.45)
    pen.line(lower, 0.55 + 0.2 * style.outline, line, lift=EYE_LIFT, taper=0.7, opacity=0.7)
    if identity.lashes:
        _draw_lashes(pen, identity, state, upper, side, line)
    crease = upper[2:-2] - np.array([0.0, 1.3 + 0.18 * identity.eye_half_height])
    crease = crease + np.array([0.0, 0.35]) * (upper[2:-2, 1:] - identity.eye_y) * state.blink
    pen.line(crease, 0.8, socket if not style.ink else line, lift=EYE_LIFT, taper=0.8, opacity=0.6)


def iris_centre(identity: Identity, side: float) -> np.ndarray:
    """Middle ``(2,)`` of an iris, or of a dot eye."""
    if identity.eye_kind == "dot":
        return np.array([side * identity.eye_x * 0.95, identity.eye_y])
    down = 0.3 if identity.eye_kind == "big" else -0.3
    return np.array([side * (identity.eye_x - 0.4), identity.eye_y + down])


def _draw_iris(pen: Pen, identity: Identity, side: float, inside: np.ndarray) -> None:
    palette, style = identity.palette, identity.style
    big = identity.eye_kind == "big"
    radius = identity.iris_radius * identity.eye_half_height * (0.98 if big else 0.92)
    radii = (radius * 0.84, radius * 1.02) if big else (radius, radius)
    centre = tuple(iris_centre(identity, side))
    rim = darker(palette.iris, 0.5)
    pen.fill(ellipse(centre, radii), rim, lift=EYE_LIFT, clip=inside)
    inner = (radii[0] - 0.7, radii[1] - 0.7)
    light = mix(palette.iris, (255, 255, 255), 0.3 if big else 0.12)
    pen.fill(
        ellipse(centre, inner),
        darker(palette.iris, 0.65 if big else 0.9),
        end_colour=light,
        lift=EYE_LIFT,
        clip=inside,
    )
    pupil = (radii[0] * 0.48, radii[1] * 0.48)
    pupil_colour = mix(palette.line, (12, 10, 14), 0.6)
    pen.fill(ellipse(centre, pupil), pupil_colour, lift=EYE_LIFT, clip=inside)
    # Highlights sit on the same side of both eyes: the light does not mirror.
    spark = (centre[0] - 0.36 * radii[0], centre[1] - 0.42 * radii[1])
    size = 0.3 * radii[0] if big else max(0.26 * radius, 0.9)
    pen.fill(ellipse(spark, (size, size), points=14), (255, 255, 255), lift=EYE_LIFT, clip=inside)
    if big:
        second = (centre[0] + 0.36 * radii[0], centre[1] + 0.45 * radii[1])
        dot = ellipse(second, (0.17 * radii[0], 0.17 * radii[0]), points=12)
        pen.fill(dot, (255, 255, 255), lift=EYE_LIFT, clip=inside, opacity=0.85)
    if style.gradient:
        glow = (radii[0] * 0.8, radii[1] * 0.5)
        low = (centre[0], centre[1] + 0.6 * radii[1])
        pen.spot(low, glow, light, lift=EYE_LIFT, clip=inside, opacity=0.4 * style.gradient)


def _draw_lashes(pen, identity, state, upper, side, line) -> None:
    """Two or three strokes at the outer corner; they turn down as the lid closes."""
    outer = upper[::-1] if side > 0 else upper
    for index, length in ((0, 1.0), (2, 0.85), (4, 0.7)):
        start = outer[index]
        reach = (1.2 + 1.5 * identity.lashes) * length
        end = start + np.array([side * reach * 0.8, -reach * (0.8 - 1.3 * state.blink)])
        pen.line(np.stack([start, end]), 0.9, line, lift=EYE_LIFT)


def _dot_curves(identity: Identity, state: FaceState, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower half of a dot eye, ``(15, 2)`` each."""
    height = identity.eye_half_height * (1.0 - state.blink) * (1.0 - 0.25 * state.smile)
    bow = height * np.sqrt(np.maximum(1.0 - _ACROSS**2, 0.0))
    centre = iris_centre(identity, side)
    x = centre[0] + _ACROSS * identity.eye_half_width
    return np.stack([x, centre[1] - bow], axis=1), np.stack([x, centre[1] + bow], axis=1)


def _draw_dot_eye(pen: Pen, identity: Identity, state: FaceState, side: float) -> None:
    """A dark oval that flattens into a curved line."""
    palette = identity.palette
    dark = mix(palette.line, (24, 16, 20), 0.5)
    centre = (side * identity.eye_x * 0.95, identity.eye_y)
    opening = 1.0 - state.blink
    height = identity.eye_half_height * opening * (1.0 - 0.25 * state.smile)
    width = identity.eye_half_width
    if opening > 0.05:
        pen.fill(ellipse(centre, (width, height)), dark, lift=EYE_LIFT)
        spark = (centre[0] - 0.35 * width, centre[1] - 0.42 * height)
        dot = ellipse(spark, (0.34 * width, 0.34 * width * min(1.0, height / width)), points=12)
        pen.fill(dot, (255, 255, 255), lift=EYE_LIFT, opacity=opening)
    closed = 1.0 - min(opening / 0.35, 1.0)
    if closed > 0.0:
        t = np.linspace(-1.0, 1.0, 9)
        x = centre[0] + t * width * 1.7
        arc = np.stack([x, centre[1] + 0.9 - 1.4 * t * t], axis=1)
        pen.line(arc, 1.7, dark, lift=EYE_LIFT, taper=0.3, opacity=closed)
    if identity.lashes and opening > 0.2:
        for along, reach in ((0.9, 0.9), (0.45, 1.0)):
            start = np.array([centre[0] + side * along * width, centre[1] - 0.75 * height])
            end = start + np.array([side * 1.6, -1.5]) * reach
            pen.line(np.stack([start, end]), 0.9, dark, lift=EYE_LIFT, opacity=opening)


def brow_height(identity: Identity) -> float:
    """Height of the resting brows in face coordinates."""
    above = {"dot": 8.1, "big": 4.8}.get(identity.eye_kind, 5.6)
    return identity.eye_y - identity.eye_half_height - above + identity.brow_y


def draw_brows(pen: Pen, identity: Identity, state: FaceState) -> None:
    """Both brows; raising lifts the inner ends most."""
    t = np.linspace(-1.0, 1.0, 9)
    resting = brow_height(identity)
    for side in (-1.0, 1.0):
        inner = 0.5 * (1.0 - t)
        raised = state.brow * (2.2 + 1.9 * inner)
        y = (
            resting
            - raised
            - identity.brow_arch * (1.0 - (t - 0.05) ** 2)
            + identity.brow_arch * 0.5
        )
        y = y - identity.brow_tilt * (inner - 0.5)
        points = np.stack([side * (identity.eye_x + 0.3 + t * identity.brow_half_width), y], axis=1)
        pixels = pen.pose.to_pixels(points, _BROW_LIFT)
        radii = identity.brow_thickness * pen.pose.scale * (1.0 - 0.55 * (0.5 * (1.0 + t)) ** 2)
        pen.painter.stroke(pixels, radii, identity.palette.brow)


def draw_glasses(pen: Pen, identity: Identity) -> None:
    """Frames that leave the eyes free, with a faint glint."""
    if identity.glasses == "none":
        return
    palette = identity.palette
    frame = mix(palette.line, palette.cloth, 0.25)
    half = max(identity.eye_half_width + 2.6, 8.6)
    height = max(identity.eye_half_height + 2.8, 7.6)
    x = max(identity.eye_x, half + 1.8)
    y = identity.eye_y + 0.8
    lift = 4.0
    width = 1.1 + 0.3 * identity.style.outline
    for side in (-1.0, 1.0):
        rim = ellipse((side * x, y), (half, height))
        if identity.glasses == "square":
            corner = (
                np.sign(rim - [side * x, y]) * np.abs((rim - [side * x, y]) / [half, height]) ** 0.5
            )
            rim = corner * [half, 0.86 * height] + [side * x, y]
        pen.fill(rim, (255, 255, 255), lift=lift, opacity=0.1)
        pen.line(np.concatenate([rim, rim[:1]]), width, frame, lift=lift)
        arm = np.array([[side * (x + half), y - 2.0], [side * (identity.cheek + 1.0), y - 2.5]])
        pen.line(arm, width, frame, lift=0.0)
    bridge = spline(np.array([[-(x - half), y - 1.0], [0.0, y - 2.6], [x - half, y - 1.0]]))
    pen.line(bridge, width, frame, lift=lift)
