"""Drawing styles, and the random identity of one drawn person."""

import colorsys
from dataclasses import dataclass, replace

import numpy as np

from joyflash_cli.studio.heads.face_state import Split
from joyflash_cli.studio.heads.painter import Colour

EyeKind = str
"""``"almond"``, ``"round"``, ``"big"`` or ``"dot"``."""


@dataclass(frozen=True)
class DrawnStyle:
    """How things are drawn; lengths in pixels of a 128-pixel picture.

    Attributes:
        outline: Outline width, 0 for none.
        tinted_outline: Outlines take a dark shade of what they surround, else the line colour.
        gradient: Strength of top-to-bottom gradients and soft shading, 0..1.
        drop_shadow: Opacity of the shadow each layer throws on the one below (cut paper).
        cel_shadow: Opacity of hard-edged shadows under chin and fringe.
        shine: Opacity of highlights on hair.
        lip_colour: How far lips are filled with colour, 0 (drawn as lines) .. 1.
        pastel: How far colours move to light, low-contrast ones, 0..1.
        ink: Line art on paper: washes instead of colours, and hatching.
        eye_kinds: Kinds of eyes that this style uses.
        eye_scale: Size of the eyes.
    """

    name: str
    outline: float
    tinted_outline: bool
    gradient: float
    drop_shadow: float
    cel_shadow: float
    shine: float
    lip_colour: float
    pastel: float
    ink: bool
    eye_kinds: tuple[EyeKind, ...]
    eye_scale: float


HELD_OUT_STYLE = "ink"

STYLES = {
    style.name: style
    for style in (
        DrawnStyle("vector", 1.5, True, 0.0, 0.0, 0.16, 0.0, 0.8, 0.0, False,
                   ("almond", "round"), 1.0),
        DrawnStyle("soft", 0.0, True, 1.0, 0.0, 0.0, 0.22, 1.0, 0.0, False,
                   ("almond", "round"), 1.08),
        DrawnStyle("anime", 1.0, True, 0.25, 0.0, 0.17, 0.4, 0.35, 0.08, False, ("big",), 1.0),
        DrawnStyle("paper", 0.0, True, 0.0, 0.17, 0.0, 0.0, 0.9, 0.5, False,
                   ("round", "dot"), 1.1),
        DrawnStyle("comic", 2.1, False, 0.0, 0.0, 0.2, 0.25, 0.5, 0.0, False,
                   ("round", "dot", "almond"), 1.12),
        DrawnStyle(HELD_OUT_STYLE, 1.5, False, 0.0, 0.0, 0.0, 0.0, 0.25, 0.0, True,
                   ("almond", "round", "dot"), 1.05),
    )
}  # fmt: skip

WHITE: Colour = (255.0, 255.0, 255.0)

_SKINS = (
    (255, 226, 206), (250, 213, 188), (244, 199, 168), (236, 185, 148), (224, 168, 126),
    (205, 146, 104), (184, 124, 84), (158, 102, 68), (128, 80, 54), (98, 62, 44),
)  # fmt: skip
_FANTASY_SKINS = ((150, 196, 232), (160, 214, 160), (206, 178, 236), (244, 170, 180))
_HAIRS = (
    (34, 28, 30), (52, 36, 30), (84, 54, 38), (116, 74, 46), (150, 98, 58), (190, 136, 76),
    (226, 188, 118), (172, 76, 40), (134, 52, 40), (150, 148, 150), (222, 220, 218),
)  # fmt: skip
_FANTASY_HAIRS = (
    (232, 116, 160), (92, 150, 220), (118, 186, 140), (150, 110, 200), (60, 168, 170),
)  # fmt: skip
_IRISES = (
    (86, 54, 34), (120, 80, 44), (70, 120, 170), (84, 140, 92), (120, 130, 140), (150, 116, 50),
)  # fmt: skip


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """``first`` moved to ``second`` by ``share`` in 0..1."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def darker(colour: Colour, factor: float) -> Colour:
    """The colour darkened by ``factor`` < 1; dark shades turn slightly warmer and richer."""
    red, green, blue = colour
    return (red * factor, green * factor * (0.9 + 0.1 * factor), blue * factor)


def luminance(colour: Colour) -> float:
    """Brightness 0..1 (Rec. 601 weights)."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255.0


@dataclass(frozen=True)
class Palette:
    """Colours of one identity, already in its style."""

    skin: Colour
    hair: Colour
    brow: Colour
    iris: Colour
    lip: Colour
    cloth: Colour
    collar: Colour
    background: Colour
    background_end: Colour
    line: Colour
    eye_white: Colour
    mouth_inside: Colour
    teeth: Colour
    tongue: Colour


@dataclass(frozen=True)
class Identity:
    """Everything that is fixed about one drawn person; lengths in pixels of a 128-pixel picture.

    The face's axis is x = 0; y runs from 0 (top) to 128 (bottom) with the eyes near 54.
    """

    style: DrawnStyle
    palette: Palette
    cheek: float
    jaw: float
    chin: float
    chin_y: float
    hairline_y: float
    eye_kind: EyeKind
    eye_x: float
    eye_y: float
    eye_half_width: float
    eye_half_height: float
    eye_tilt: float
    iris_radius: float
    lashes: float
    brow_y: float
    brow_half_width: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    nose: str
    nose_y: float
    nose_width: float
    mouth_y: float
    mouth_half_width: float
    lip_upper: float
    lip_lower: float
    base_smile: float
    ear_size: float
    hair: str
    glasses: str
    beard: str
    moustache: str
    freckles: bool
    blush: float
    earrings: bool
    collar: str
    backdrop: str
    detail_seed: int


HAIR_CUTS = {
    "any": ("curly", "afro", "fringe", "swept"),
    "short": ("bald", "buzz", "side part", "spiky", "quiff", "mop"),
    "long": ("bob", "long", "bun", "pigtails", "wavy", "centre part"),
}
_TOO_BARE_FOR_ANIME = ("bald", "buzz", "swept")
_NOSES = ("curve", "corner", "button", "nostrils", "soft")
_COLLARS = ("crew", "v-neck", "shirt", "turtleneck", "hood")
_BACKDROPS = ("flat", "gradient", "dots", "disc", "stripes")


def _pick(rng: np.random.Generator, options: tuple):
    return options[int(rng.integers(len(options)))]


def _random_colour(rng, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(
        rng.random(), rng.uniform(*saturation), rng.uniform(*value)
    )
    return 255.0 * red, 255.0 * green, 255.0 * blue


def _sample_palette(rng: np.random.Generator, style: DrawnStyle) -> Palette:
    tone = rng.uniform(0, len(_SKINS) - 1.001)
    skin = mix(_SKINS[int(tone)], _SKINS[int(tone) + 1], tone % 1.0)
    if rng.random() < 0.07:
        skin = _pick(rng, _FANTASY_SKINS)
    fantasy = rng.random() < (0.4 if style.name == "anime" else 0.12)
    hair = _pick(rng, _FANTASY_HAIRS if fantasy else _HAIRS)
    hair = mix(hair, _random_colour(rng, (0.3, 0.5), (0.3, 0.7)), 0.08)
    if abs(luminance(hair) - luminance(skin)) < 0.1:
        hair = darker(hair, 0.62)
    brow = darker(hair, 0.8)
    if luminance(skin) - luminance(brow) < 0.18:
        brow = darker(skin, 0.42)
    if luminance(skin) < 0.4:  # Lips lighter than dark skin, or they would not show.
        lip = mix(mix(skin, (255, 255, 255), 0.1), (216, 92, 100), rng.uniform(0.3, 0.65))
    else:
        lip = mix(darker(skin, 0.8), (206, 62, 74), rng.uniform(0.3, 0.75))
    cloth = _random_colour(rng, (0.25, 0.75), (0.35, 0.9))
    background = _random_colour(rng, (0.12, 0.5), (0.55, 0.95))
    if abs(luminance(background) - luminance(skin)) < 0.08:
        background = darker(background, 0.7)
    if max(abs(a - b) for a, b in zip(cloth, background, strict=True)) < 60.0:
        cloth = darker(cloth, 0.55)
    palette = Palette(
        skin=skin,
        hair=hair,
        brow=brow,
        iris=_pick(rng, _IRISES),
        lip=lip,
        cloth=cloth,
        collar=mix(cloth, _random_colour(rng, (0.0, 0.5), (0.7, 1.0)), 0.7),
        background=background,
        background_end=mix(background, _random_colour(rng, (0.1, 0.5), (0.5, 1.0)), 0.6),
        line=(34, 26, 32),
        eye_white=(252, 250, 248),
        mouth_inside=(84, 24, 32),
        teeth=(252, 250, 244),
        tongue=(222, 98, 104),
    )
    return _in_style(palette, style, rng)


def _in_style(palette: Palette, style: DrawnStyle, rng: np.random.Generator) -> Palette:
    """The palette as paint of this style: pastel shades, or ink washes on paper."""
    if style.pastel:
        share = 0.35 * style.pastel
        names = ("hair", "iris", "lip", "cloth", "collar", "background", "background_end")
        paled = {name: mix(getattr(palette, name), (255, 244, 236), share) for name in names}
        return replace(palette, **paled)
    if not style.ink:
        return palette
    sheet = mix((246, 240, 226), (236, 238, 240), rng.random())
    line = mix((24, 22, 26), (40, 36, 70), rng.random())

    def wash(colour: Colour, depth: float) -> Colour:
        return mix(sheet, line, depth * (1.0 - luminance(colour)))

    return replace(
        palette,
        skin=mix(wash(palette.skin, 0.22), (255, 255, 255), 0.35),
        hair=wash(palette.hair, 1.05) if rng.random() < 0.6 else mix(sheet, line, 0.06),
        brow=line,
        iris=wash(palette.iris, 0.8),
        lip=mix(sheet, line, 0.4),
        cloth=wash(palette.cloth, 0.7),
        collar=mix(sheet, (255, 255, 255), 0.5),
        background=sheet,
        background_end=mix(sheet, line, 0.2),
        line=line,
        eye_white=(255, 254, 250),
        mouth_inside=mix(line, sheet, 0.06),
        teeth=(255, 254, 250),
        tongue=mix(sheet, line, 0.5),
    )


def sample_identity(rng: np.random.Generator, *, split: Split) -> Identity:
    """A random person in a random style; the held-out style only for ``"held-out"``."""
    names = sorted(set(STYLES) - {HELD_OUT_STYLE})
    style = STYLES[HELD_OUT_STYLE if split == "held-out" else _pick(rng, tuple(names))]
    palette = _sample_palette(rng, style)
    anime = style.name == "anime"
    beard, moustache = _sample_beard(rng, share=0.06 if anime else 0.24)
    bearded = beard != "none" or moustache != "none"
    long_share = 0.04 if bearded else 0.5
    group = "long" if rng.random() < long_share else "short"
    feminine = group == "long" and not bearded
    cuts = HAIR_CUTS[group] + HAIR_CUTS["any"]
    if anime:
        cuts = tuple(cut for cut in cuts if cut not in _TOO_BARE_FOR_ANIME)
    cheek = rng.uniform(33.0, 35.5) if anime else rng.uniform(30.5, 34.5)
    jaw = cheek * rng.uniform(0.76, 0.92) * (0.93 if anime else 1.0)
    eye_kind = _pick(rng, style.eye_kinds)
    half_width, half_height = _eye_size(rng, eye_kind, style.eye_scale)
    return Identity(
        style=style,
        palette=palette,
        cheek=cheek,
        jaw=jaw,
        chin=jaw * (rng.uniform(0.26, 0.38) if anime else rng.uniform(0.36, 0.58)),
        chin_y=rng.uniform(110.5, 113.5),
        hairline_y=rng.uniform(28.0, 32.5),
        eye_kind=eye_kind,
        eye_x=rng.uniform(14.0, 16.0) + (1.0 if anime else 0.0),
        eye_y=rng.uniform(54.0, 56.5),
        eye_half_width=half_width,
        eye_half_height=half_height,
        eye_tilt=rng.uniform(-0.6, 1.2),
        iris_radius=rng.uniform(0.8, 0.95),
        lashes=rng.uniform(0.5, 1.0) if feminine or rng.random() < 0.2 else 0.0,
        brow_y=rng.uniform(-1.0, 1.0),
        brow_half_width=rng.uniform(6.0, 8.0),
        brow_thickness=rng.uniform(0.7, 1.1) if feminine or anime else rng.uniform(0.9, 1.8),
        brow_arch=rng.uniform(0.8, 2.4),
        brow_tilt=rng.uniform(-0.3, 1.7),
        nose=_pick(rng, ("curve", "corner", "nostrils", "soft") if anime else _NOSES),
        nose_y=rng.uniform(72.5, 75.5),
        nose_width=rng.uniform(2.2, 3.2) if anime else rng.uniform(3.2, 5.4),
        mouth_y=rng.uniform(87.5, 89.5),
        mouth_half_width=rng.uniform(9.5, 11.0) if anime else rng.uniform(10.5, 13.0),
        lip_upper=rng.uniform(1.6, 2.8),
        lip_lower=rng.uniform(2.2, 3.8),
        base_smile=rng.uniform(0.3, 0.9),
        ear_size=rng.uniform(0.85, 1.15),
        hair=_pick(rng, cuts),
        glasses=_pick(rng, ("round", "square")) if rng.random() < 0.1 else "none",
        beard=beard,
        moustache=moustache,
        freckles=bool(rng.random() < 0.1),
        blush=rng.uniform(0.1, 0.5) if rng.random() < 0.7 else 0.0,
        earrings=bool(feminine and rng.random() < 0.35),
        collar=_pick(rng, _COLLARS),
        backdrop=_pick(rng, _BACKDROPS),
        detail_seed=int(rng.integers(2**31)),
    )


def _sample_beard(rng: np.random.Generator, *, share: float) -> tuple[str, str]:
    """Beard and moustache; ``share`` of people have at least one of them."""
    if rng.random() >= share:
        return "none", "none"
    beard = _pick(rng, ("full", "goatee", "stubble", "none"))
    if beard == "stubble" and rng.random() < 0.6:
        return beard, "none"
    return beard, _pick(rng, ("bushy", "thin"))


def _eye_size(rng: np.random.Generator, kind: EyeKind, scale: float) -> tuple[float, float]:
    ranges = {
        "almond": ((6.4, 7.6), (3.6, 4.6)),
        "round": ((5.6, 6.6), (4.8, 6.0)),
        "big": ((7.6, 8.8), (7.2, 9.0)),
        "dot": ((2.2, 3.0), (3.2, 4.2)),
    }
    width, height = ranges[kind]
    return rng.uniform(*width) * scale, rng.uniform(*height) * scale
