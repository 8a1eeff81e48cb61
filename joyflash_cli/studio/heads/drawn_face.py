"""The drawn head without eyes and mouth: backdrop, shoulders, face, ears, nose, beard, hair."""

import numpy as np

from joyflash_cli.studio.heads.drawn_hair import HairShape
from joyflash_cli.studio.heads.drawn_mouth import MouthShape
from joyflash_cli.studio.heads.drawn_pen import Pen
from joyflash_cli.studio.heads.drawn_style import WHITE, Identity, darker, luminance, mix
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.studio.heads.painter import ellipse, mirrored, spline

_SQUARE = np.array([[-80.0, -20.0], [80.0, -20.0], [80.0, 150.0], [-80.0, 150.0]])


def draw_backdrop(pen: Pen, identity: Identity) -> None:
    """Everything behind the person."""
    palette = identity.palette
    rng = np.random.default_rng(identity.detail_seed + 1)
    gradient = identity.backdrop == "gradient" or identity.style.gradient > 0.5
    end = palette.background_end if gradient else palette.background
    pen.fill(_SQUARE, palette.background, end_colour=end)
    second = mix(palette.background, palette.background_end, 0.55)
    if identity.backdrop == "disc":
        pen.fill(ellipse((0.0, 62.0), (56.0, 56.0), points=60), second)
    elif identity.backdrop == "dots":
        step, radius = rng.uniform(10.0, 16.0), rng.uniform(1.4, 3.0)
        for row, y in enumerate(np.arange(-4.0, 134.0, step)):
            for x in np.arange(-70.0, 74.0, step) + (row % 2) * step / 2:
                pen.fill(ellipse((x, y), (radius, radius), points=14), second)
    elif identity.backdrop == "stripes":
        for x in np.arange(-150.0, 90.0, rng.uniform(14.0, 22.0)):
            band = [[x, -5.0], [x + 7.0, -5.0], [x + 67.0, 135.0], [x + 60.0, 135.0]]
            pen.fill(np.array(band), second)


def face_outline(identity: Identity, drop: float) -> np.ndarray:
    """Closed outline of skull, cheeks and jaw; the chin is ``drop`` pixels lower than at rest."""
    a, jaw, chin_y = identity.cheek, identity.jaw, identity.chin_y
    narrow = 1.0 - 0.006 * drop
    right = [
        [a * 0.56, 22.5],
        [a * 0.92, 37.0],
        [a, 55.0],
        [a * 0.965, 71.0],
        [jaw * narrow, 90.0 + 0.25 * drop],
        [identity.chin * narrow + 3.5, chin_y - 6.0 + 0.85 * drop],
    ]
    return spline([[0.0, 18.5], *right, [0.0, chin_y + drop], *mirrored(right)], closed=True)


def draw_neck(body: Pen, head: Pen, identity: Identity, outline: np.ndarray) -> None:
    """Neck with the chin's shadow on it."""
    palette, style = identity.palette, identity.style
    half = 0.44 * identity.cheek if identity.lashes else 0.52 * identity.cheek
    sides = [[half, 92.0], [half, 112.0], [half + 4, 134.0]]
    neck = spline([[-half, 92.0], *sides, *mirrored(sides)[:-1]], closed=True)
    tone = mix(palette.skin, darker(palette.skin, 0.8), 0.0 if style.ink else 0.35)
    body.shape(neck, tone, end_colour=darker(tone, 0.93) if style.gradient else None)
    inside = body.mask(neck)
    lowered = outline + np.array([0.0, 5.0])
    if style.ink:
        shaded = body.within(inside * head.mask(lowered))
        for y in np.arange(112.0, 130.0, 2.4):
            hatch = np.array([[-half - 6, y + 3.0], [half + 6, y - 3.0]])
            shaded.line(hatch, 0.7, palette.line, opacity=0.8)
    else:
        head.within(inside).fill(lowered, darker(palette.skin, 0.5), opacity=0.35)


def draw_clothes(body: Pen, identity: Identity) -> None:
    """Shoulders and one of five collars."""
    palette, kind = identity.palette, identity.collar
    half = 0.5 * identity.cheek
    corner = [half + 1.0, 112.0]
    edge = spline([corner, [half + 7.0, 117.5], [42.0, 121.5], [58.0, 127.0], [66.0, 142.0]])
    depth = {"crew": 121.0, "v-neck": 132.0, "shirt": 129.0, "turtleneck": 118.0, "hood": 123.0}
    low = depth[kind]
    left = [-corner[0], corner[1]]
    if kind in ("v-neck", "shirt"):
        neckline = np.array([left, [0.0, low], corner])
    else:
        neckline = spline([left, [-half * 0.6, low - 1.5], [half * 0.6, low - 1.5], corner])
    body.shape(np.concatenate([neckline, edge, mirrored(edge)]), palette.cloth)
    if kind == "crew":
        body.line(neckline, 3.2, palette.collar)
        if identity.style.outline:
            body.line(neckline + [0.0, 1.9], 0.8, body.outline_of(palette.cloth))
    elif kind == "turtleneck":
        tube = [[half * 0.4, 113.0], [half + 2, 110], [half + 4, 121], [half * 0.4, 124]]
        body.shape(spline([*tube, *mirrored(tube)], closed=True), palette.cloth)
    elif kind in ("shirt", "hood"):
        tip, wide = (128.0, 15.0) if kind == "shirt" else (124.0, 22.0)
        flap = [[half - 1.0, 109.0], [half + 5.5, 115.0], [wide + 3.0, tip + 1.5],
                [2.0, tip - 1.0], [half * 0.72, 116.0]]  # fmt: skip
        colour = palette.collar if kind == "shirt" else darker(palette.cloth, 0.86)
        for side in (1.0, -1.0):
            body.shape(np.array(flap) * [side, 1.0], colour)


def draw_ears(pen: Pen, identity: Identity) -> None:
    """Both ears, with earrings for some."""
    palette, size = identity.palette, identity.ear_size
    behind = pen.at(-7.0)
    for side in (-1.0, 1.0):
        x = side * (identity.cheek + 0.4)
        behind.shape(ellipse((x, 61.0), (4.6 * size, 8.2 * size)), palette.skin)
        fold = [[x + side * 0.6, 56.5], [x + side * 2.6, 59.0], [x + side * 1.6, 64.0]]
        behind.line(spline(fold), 1.0, darker(palette.skin, 0.68), taper=0.5, opacity=0.8)
        if identity.earrings:
            ring = ellipse((x + side * 0.8, 61.0 + 9.6 * size), (1.8, 1.8), points=14)
            pen.at(-6.0).shape(ring, (236, 200, 96), outline=0.7)


def draw_face(pen: Pen, identity: Identity, outline: np.ndarray, state: FaceState) -> np.ndarray:
    """The face with its blush and shade; returns its coverage for clipping."""
    palette, style = identity.palette, identity.style
    end = darker(palette.skin, 0.92) if style.gradient > 0.5 else palette.skin
    pen.shape(outline, palette.skin, end_colour=end)
    inside = pen.mask(outline)
    pen = pen.within(inside)
    if style.gradient:
        shade = darker(palette.skin, 0.7)
        for side, amount in ((-1.0, 0.25), (1.0, 0.4)):
            at = (side * identity.cheek * 1.02, 74.0)
            pen.spot(at, (16.0, 40.0), shade, opacity=amount * style.gradient)
        pen.spot((-4.0, 42.0), (22.0, 16.0), WHITE, opacity=0.16 * style.gradient)
        pen.spot((0.0, 104.0), (9.0, 7.0), WHITE, opacity=0.08 * style.gradient)
    if identity.blush and not style.ink:
        colour = mix(palette.skin, (226, 70, 80), 0.55)
        hardness = 0.0 if style.gradient else 0.75
        opacity = identity.blush * (1.0 + 0.4 * state.smile)
        for side in (-1.0, 1.0):
            at = (side * identity.eye_x * 1.3, 75.0 - 1.5 * state.smile)
            pen.spot(at, (7.0, 4.4), colour, opacity=opacity, hardness=hardness)
    if identity.freckles:
        for x, y in ((9.0, 70.5), (13.0, 73.0), (17.0, 70.0), (20.5, 73.0), (12.0, 68.0)):
            for side in (-1.0, 1.0):
                dot = ellipse((side * x, y), (0.7, 0.7), points=10)
                pen.fill(dot, darker(palette.skin, 0.66), opacity=0.8)
    return inside


def draw_nose(pen: Pen, identity: Identity) -> None:
    """One of five noses."""
    pen = pen.at(5.0)
    palette, style = identity.palette, identity.style
    y, half = identity.nose_y, identity.nose_width
    shade = palette.line if style.ink else darker(palette.skin, 0.66)
    width = 0.9 + 0.35 * style.outline
    if style.gradient > 0.5:
        pen.spot((0.0, y), (half * 1.7, 3.4), shade, opacity=0.35)
        pen.spot((-0.6, y - 3.5), (half * 0.7, 3.2), WHITE, opacity=0.35)
    if identity.nose == "curve":
        points = [[-half, y - 1.4], [-0.5 * half, y + 0.9], [0.5 * half, y + 0.9], [half, y - 1.4]]
        pen.line(spline(points), width, shade, taper=0.55)
    elif identity.nose == "corner":
        points = [[0.5, y - 11.0], [-half * 0.9, y - 1.0], [-half * 0.4, y + 0.9]]
        pen.line(spline([*points, [half * 0.5, y + 0.7]]), width, shade, taper=0.7)
    elif identity.nose == "button":
        ball = ellipse((0.0, y - 1.2), (half * 0.95, half * 0.72))
        tone = darker(palette.skin, 0.88) if not style.ink else palette.skin
        pen.shape(ball, tone, outline=0.7, shadow=0.6)
    elif identity.nose == "nostrils":
        for side in (-1.0, 1.0):
            spot = ellipse((side * half * 0.42, y), (0.95, 0.7), points=12)
            pen.fill(spot, darker(shade, 0.8), opacity=0.85)
    else:
        wedge = [[0.0, y - 6.0], [half, y + 0.6], [0.0, y + 1.6], [-half, y + 0.6]]
        pen.fill(spline(wedge, closed=True), shade, opacity=0.35)


def draw_beard(
    pen: Pen, identity: Identity, mouth: MouthShape, outline: np.ndarray, inside: np.ndarray
) -> None:
    """A beard along the jaw, moving with it; the mouth is drawn on top."""
    if identity.beard == "none":
        return
    palette, a = identity.palette, identity.cheek
    if identity.beard == "goatee":
        bottom = float(outline[:, 1].max())
        low = identity.mouth_y + identity.lip_lower + mouth.chin_drop
        right = [[3.5, low + 3.0], [8.0, low + 5.0], [8.5, bottom - 3.5], [4.0, bottom + 2.5]]
        patch = spline([*right, *mirrored(right)], closed=True)
        pen.shape(patch, palette.hair, shadow=0.0, outline=0.7)
        return
    top, reach = identity.mouth_y - 7.5, 1.15 * identity.mouth_half_width + 2.0
    right = [
        [a * 0.985, 66.0],
        [a * 0.8, 78.0],
        [reach + 3.0, top + 3.0],
        [reach * 0.55, top + 0.5],
    ]
    upper = spline([*right, [0.0, top + 1.5], *mirrored(right)])
    grow = np.array([1.0, 1.0]) if identity.beard == "stubble" else np.array([1.03, 1.0])
    jaw = outline[(outline[:, 1] > 66.0)] * grow
    jaw = jaw[np.argsort(np.arctan2(jaw[:, 0], jaw[:, 1] - 64.0))]
    patch = np.concatenate([upper, jaw])
    if identity.beard == "stubble":
        pen.within(inside).fill(patch, mix(palette.hair, palette.skin, 0.3), opacity=0.3)
        return
    moved = patch + np.array([0.0, 2.2]) * (patch[:, 1:] > 90.0)
    pen.shape(moved, palette.hair, shadow=0.0, outline=0.8)
    middle = mouth.lips.mean(axis=0)
    ring = middle + (mouth.lips - middle) * [1.06, 1.06] + [0.0, 0.4]
    pen.at(2.0).fill(ring, mix(palette.skin, palette.hair, 0.4))


def draw_moustache(pen: Pen, identity: Identity, mouth: MouthShape) -> None:
    """Two tapered halves that ride on the upper lip."""
    if identity.moustache == "none":
        return
    top = float(mouth.outer_upper[10, 1]) - 1.6
    corner = float(mouth.inner_upper[0, 1])
    reach = mouth.half_width + 2.5
    thick = 2.4 if identity.moustache == "bushy" else 1.1
    for side in (-1.0, 1.0):
        curve = spline(
            [[side * 0.6, top], [side * reach * 0.5, top - 0.5], [side * reach, corner - 1.2]]
        )
        along = np.linspace(0.0, 1.0, len(curve))
        taper = 0.85 + 0.3 * along - 0.95 * along**3
        pen.at(3.0).brush(curve, thick, taper, identity.palette.brow)


def draw_back_hair(pen: Pen, identity: Identity, hair: HairShape) -> None:
    """The hair behind the head."""
    colour = identity.palette.hair
    deep = colour if identity.style.ink or hair.one_mass else darker(colour, 0.82)
    for polygon in hair.back:
        pen.at(-9.0).shape(polygon, deep)


def draw_hair(pen: Pen, identity: Identity, hair: HairShape, face: np.ndarray) -> None:
    """The hair over the head with strands, shine and shadow on the ``face`` (its coverage)."""
    palette, style = identity.palette, identity.style
    colour = mix(palette.hair, palette.skin, 0.35) if hair.close_cropped else palette.hair
    end = None
    if hair.one_mass:  # The tone that the gradient of the back has behind the forehead.
        top, low = mix(colour, WHITE, 0.1 * style.gradient), 1.0 - 0.22 * style.gradient
        colour = end = mix(top, darker(palette.hair, low), 0.2)
    edge = 0.0 if hair.close_cropped or hair.one_mass else 1.0
    for polygon in hair.front:
        if style.cel_shadow and not hair.close_cropped:
            moved = polygon + np.array([0.0, 2.6])
            pen.within(face).fill(moved, darker(palette.skin, 0.4), opacity=style.cel_shadow)
        pen.shape(polygon, colour, outline=edge, shadow=edge, end_colour=end)
    if not hair.front:
        if not style.ink:
            pen.spot((-9.0, 27.0), (9.0, 5.0), WHITE, opacity=0.3, hardness=0.2)
        return
    if style.shine and edge:
        _draw_shine(pen.within(pen.mask(hair.front[-1])), identity)
    dark = luminance(palette.hair) < 0.16
    tone = mix(palette.hair, WHITE, 0.25) if dark else darker(palette.hair, 0.68)
    for strand in hair.strands:
        pen.line(strand, 0.9 + 0.2 * style.outline, tone, taper=0.75, opacity=0.75)


def _draw_shine(pen: Pen, identity: Identity) -> None:
    """A band of light around the crown."""
    light = mix(identity.palette.hair, WHITE, 0.7)
    if identity.style.gradient > 0.5:
        pen.spot((-8.0, 22.0), (26.0, 9.0), light, opacity=identity.style.shine * 1.6)
        return
    share = np.linspace(-0.62, 0.35, 17)
    y = 21.5 + 13.0 * share * share
    jag = 1.1 * np.where(np.arange(17) % 2, 1.0, -1.0)
    upper = np.stack([identity.cheek * share, y - 1.6 + 0.3 * jag], axis=1)
    lower = np.stack([identity.cheek * share, y + 1.6 + jag], axis=1)
    pen.fill(np.concatenate([upper, lower[::-1]]), light, opacity=identity.style.shine)
