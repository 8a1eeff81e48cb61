"""Drawn eyes with lids that close, brows that rise, and glasses."""

import numpy as np

from joyflash_cli.studio.heads.drawn_pen import Pen
from joyflash_cli.studio.heads.drawn_style import WHITE, Identity, darker, mix
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.studio.heads.painter import ellipse, spline

_ACROSS = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 15))
EYE_LIFT = -1.0
"""How far the eyes lie before the face, for ``Pose.to_pixels``."""


def draw_eyes(pen: Pen, identity: Identity, state: FaceState) -> None:
    """Both eyes."""
    draw = _draw_dot_eye if identity.eye_kind == "dot" else _draw_eye
    for side in (-1.0, 1.0):
        draw(pen.at(EYE_LIFT), identity, state, side)


def lid_curves(identity: Identity, state: FaceState, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower lid curves, ``(15, 2)`` each; a blink moves the upper onto the lower."""
    t = _ACROSS
    bow = np.maximum(1.0 - t * t, 0.0)
    height = identity.eye_half_height
    if identity.eye_kind == "dot":
        half = height * (1.0 - state.blink) * (1.0 - 0.25 * state.smile) * np.sqrt(bow)
        x, y = iris_centre(identity, side)
        x = x + t * identity.eye_half_width
        return np.stack([x, y - half], axis=1), np.stack([x, y + half], axis=1)
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
    line = mix(pen.outline_of(palette.skin), palette.line, 0.6)
    socket = darker(palette.skin, 0.8)
    if style.gradient:
        centre = (side * identity.eye_x, identity.eye_y - 1.0)
        radii = (identity.eye_half_width * 1.5, identity.eye_half_height * 2.0)
        pen.spot(centre, radii, socket, opacity=0.35 * style.gradient)
    if state.blink < 0.99:
        opening = np.concatenate([upper, lower[::-1]])
        pen.fill(opening, palette.eye_white)
        inside = pen.within(pen.mask(opening))
        _draw_iris(inside, identity, side)
        shade = upper + np.array([0.0, 0.22 * identity.eye_half_height])
        inside.fill(np.concatenate([upper, shade[::-1]]), (70, 56, 80), opacity=0.28)
    lash = 1.0 + 0.35 * style.outline + 0.7 * identity.lashes
    if identity.eye_kind == "big":
        lash += 0.9
    pen.line(upper, lash, line, taper=0.45)
    pen.line(lower, 0.55 + 0.2 * style.outline, line, taper=0.7, opacity=0.7)
    if identity.lashes:
        # Strokes at the outer corner; they turn down as the lid closes.
        outer = upper[::-1] if side > 0 else upper
        for index, length in ((0, 1.0), (2, 0.85), (4, 0.7)):
            reach = (1.2 + 1.5 * identity.lashes) * length
            away = np.array([side * reach * 0.8, -reach * (0.8 - 1.3 * state.blink)])
            pen.line(np.stack([outer[index], outer[index] + away]), 0.9, line)
    crease = upper[2:-2] - np.array([0.0, 1.3 + 0.18 * identity.eye_half_height])
    crease = crease + np.array([0.0, 0.35]) * (upper[2:-2, 1:] - identity.eye_y) * state.blink
    pen.line(crease, 0.8, socket if not style.ink else line, taper=0.8, opacity=0.6)


def iris_centre(identity: Identity, side: float) -> np.ndarray:
    """Middle ``(2,)`` of an iris, or of a dot eye."""
    if identity.eye_kind == "dot":
        return np.array([side * identity.eye_x * 0.95, identity.eye_y])
    down = 0.3 if identity.eye_kind == "big" else -0.3
    return np.array([side * (identity.eye_x - 0.4), identity.eye_y + down])


def _draw_iris(pen: Pen, identity: Identity, side: float) -> None:
    palette, style = identity.palette, identity.style
    big = identity.eye_kind == "big"
    radius = identity.iris_radius * identity.eye_half_height * (0.98 if big else 0.92)
    wide, tall = (radius * 0.84, radius * 1.02) if big else (radius, radius)
    x, y = iris_centre(identity, side)
    pen.fill(ellipse((x, y), (wide, tall)), darker(palette.iris, 0.5))
    light = mix(palette.iris, WHITE, 0.3 if big else 0.12)
    inner = ellipse((x, y), (wide - 0.7, tall - 0.7))
    pen.fill(inner, darker(palette.iris, 0.65 if big else 0.9), end_colour=light)
    pupil = ellipse((x, y), (wide * 0.48, tall * 0.48))
    pen.fill(pupil, mix(palette.line, (12, 10, 14), 0.6))
    # Highlights sit on the same side of both eyes: the light does not mirror.
    size = 0.3 * wide if big else max(0.26 * radius, 0.9)
    spark = ellipse((x - 0.36 * wide, y - 0.42 * tall), (size, size), points=14)
    pen.fill(spark, WHITE)
    if big:
        second = (x + 0.36 * wide, y + 0.45 * tall)
        dot = ellipse(second, (0.17 * wide, 0.17 * wide), points=12)
        pen.fill(dot, WHITE, opacity=0.85)
    if style.gradient:
        glow = (wide * 0.8, tall * 0.5)
        pen.spot((x, y + 0.6 * tall), glow, light, opacity=0.4 * style.gradient)


def _draw_dot_eye(pen: Pen, identity: Identity, state: FaceState, side: float) -> None:
    """A dark oval that flattens into a curved line."""
    dark = mix(identity.palette.line, (24, 16, 20), 0.5)
    x, y = iris_centre(identity, side)
    opening = 1.0 - state.blink
    height = identity.eye_half_height * opening * (1.0 - 0.25 * state.smile)
    width = identity.eye_half_width
    if opening > 0.05:
        pen.fill(ellipse((x, y), (width, height)), dark)
        spark = (0.34 * width, 0.34 * width * min(1.0, height / width))
        dot = ellipse((x - 0.35 * width, y - 0.42 * height), spark, points=12)
        pen.fill(dot, WHITE, opacity=opening)
    closed = 1.0 - min(opening / 0.35, 1.0)
    if closed > 0.0:
        t = np.linspace(-1.0, 1.0, 9)
        arc = np.stack([x + t * width * 1.7, y + 0.9 - 1.4 * t * t], axis=1)
        pen.line(arc, 1.7, dark, taper=0.3, opacity=closed)
    if identity.lashes and opening > 0.2:
        for along, reach in ((0.9, 0.9), (0.45, 1.0)):
            start = np.array([x + side * along * width, y - 0.75 * height])
            end = start + np.array([side * 1.6, -1.5]) * reach
            pen.line(np.stack([start, end]), 0.9, dark, opacity=opening)


def brow_height(identity: Identity) -> float:
    """Height of the resting brows in face coordinates."""
    above = {"dot": 8.1, "big": 4.8}.get(identity.eye_kind, 5.6)
    return identity.eye_y - identity.eye_half_height - above + identity.brow_y


def draw_brows(pen: Pen, identity: Identity, state: FaceState) -> None:
    """Both brows; raising lifts the inner ends most."""
    t = np.linspace(-1.0, 1.0, 9)
    inner, arch = 0.5 * (1.0 - t), identity.brow_arch
    y = brow_height(identity) - state.brow * (2.2 + 1.9 * inner)
    y = y - arch * (1.0 - (t - 0.05) ** 2) + arch * 0.5 - identity.brow_tilt * (inner - 0.5)
    x = identity.eye_x + 0.3 + t * identity.brow_half_width
    taper = 1.0 - 0.55 * (0.5 * (1.0 + t)) ** 2
    for side in (-1.0, 1.0):
        points = np.stack([side * x, y], axis=1)
        pen.at(1.5).brush(points, identity.brow_thickness, taper, identity.palette.brow)


def draw_glasses(pen: Pen, identity: Identity) -> None:
    """Frames that leave the eyes free, with a faint glint."""
    if identity.glasses == "none":
        return
    frame = mix(identity.palette.line, identity.palette.cloth, 0.25)
    half = max(identity.eye_half_width + 2.6, 8.6)
    height = max(identity.eye_half_height + 2.8, 7.6)
    x, y = max(identity.eye_x, half + 1.8), identity.eye_y + 0.8
    width = 1.1 + 0.3 * identity.style.outline
    front = pen.at(4.0)
    for side in (-1.0, 1.0):
        rim = ellipse((side * x, y), (half, height))
        if identity.glasses == "square":
            away = rim - [side * x, y]
            corner = np.sign(away) * np.abs(away / [half, height]) ** 0.5
            rim = corner * [half, 0.86 * height] + [side * x, y]
        front.fill(rim, WHITE, opacity=0.1)
        front.line(np.concatenate([rim, rim[:1]]), width, frame)
        arm = np.array([[side * (x + half), y - 2.0], [side * (identity.cheek + 1.0), y - 2.5]])
        pen.line(arm, width, frame)
    bridge = spline([[-(x - half), y - 1.0], [0.0, y - 2.6], [x - half, y - 1.0]])
    front.line(bridge, width, frame)
