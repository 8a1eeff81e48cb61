"""Random ICT identities: shape from scan statistics, skin and hair from MakeHuman, own colours."""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.studio.heads.face_state import Split
from joyflash_cli.studio.heads.ict_paint import Paint
from joyflash_cli.studio.heads.makehuman_identity import (
    sample_collar,
    sample_skin_and_hair,
    sample_skin_tint,
)
from joyflash_cli.studio.heads.makehuman_pack import MakeHumanAssets

MODE_SCALE = 0.9
"""Standard deviation of a mode's weight: a little below the scans' own, against odd faces."""
MODE_LIMIT = 2.2
SHAVED_SHARE = 0.2
"""Share of people without a hair mesh: shaved, short or bald."""

HAIR_COLOURS = {
    "black": (26, 22, 21),
    "dark brown": (52, 36, 27),
    "brown": (82, 56, 38),
    "chestnut": (108, 66, 40),
    "blond": (158, 122, 76),
    "red": (134, 66, 34),
    "grey": (142, 138, 132),
}
IRIS_COLOURS = {
    "dark brown": (58, 36, 22),
    "brown": (98, 62, 34),
    "hazel": (116, 94, 50),
    "green": (92, 112, 74),
    "grey": (118, 128, 134),
    "blue": (86, 118, 152),
}


@dataclass(frozen=True)
class IctPerson:
    """What decides an identity.

    Attributes:
        weights: ``(modes,)`` of the identity modes.
        skin: MakeHuman skin texture.
        skin_tint: Factor on its linear colour.
        hair: MakeHuman hair mesh, or ``None``.
        mirror_hair: Left and right of the hair are swapped.
        hair_colour: Display RGB 0..255.
        iris: Display RGB 0..255.
        paint: What is painted on the skin.
        teeth_tint: Factor on the teeth's linear colour.
        collar: Collar height, depth of the neckline and its width, in decimetres.
    """

    weights: np.ndarray
    skin: str
    skin_tint: np.ndarray
    hair: str | None
    mirror_hair: bool
    hair_colour: np.ndarray
    iris: np.ndarray
    paint: Paint
    teeth_tint: np.ndarray
    collar: tuple[float, float, float]


def sample_ict_person(
    makehuman: MakeHumanAssets, rng: np.random.Generator, *, num_modes: int, split: Split
) -> IctPerson:
    """Draws an identity; held-out skins and hairs appear in the held-out split only."""
    skin, hair = sample_skin_and_hair(makehuman, rng, split=split)
    male, dark, old = "_male_" in skin, "darkskinned" in skin, "_old_" in skin
    if rng.random() < (SHAVED_SHARE if male else 0.05):
        hair = None
    weights = np.clip(rng.normal(0, MODE_SCALE, num_modes), -MODE_LIMIT, MODE_LIMIT)
    colour = _hair_colour(rng, dark=dark, old=old)
    tint = sample_skin_tint(rng, dark=dark)
    brown_only = dark or rng.random() < 0.4
    irises = list(IRIS_COLOURS.values())
    iris = np.array(irises[rng.integers(2 if brown_only else len(irises))], np.float32)
    return IctPerson(
        weights=weights.astype(np.float32),
        skin=skin,
        skin_tint=tint,
        hair=hair,
        mirror_hair=bool(rng.random() < 0.5),
        hair_colour=colour,
        iris=iris * rng.uniform(0.85, 1.15),
        paint=_sample_paint(rng, colour, male=male, dark=dark, has_hair=hair is not None),
        teeth_tint=rng.uniform(0.78, 0.95)
        * np.array([1.0, rng.uniform(0.92, 0.98), rng.uniform(0.78, 0.92)]),
        collar=sample_collar(rng),
    )


def _hair_colour(rng: np.random.Generator, *, dark: bool, old: bool) -> np.ndarray:
    names = list(HAIR_COLOURS)
    if old and rng.random() < 0.6:
        name = "grey"
    elif dark:
        name = names[rng.choice([0, 0, 1])]
    else:
        name = names[rng.integers(len(names) - 1)]
    return np.array(HAIR_COLOURS[name], np.float32) * rng.uniform(0.8, 1.2)


def _sample_paint(
    rng: np.random.Generator, colour: np.ndarray, *, male: bool, dark: bool, has_hair: bool
) -> Paint:
    made_up = not male and rng.random() < 0.35
    lips = np.array([0.93, 0.66, 0.64]) if not dark else np.array([0.95, 0.74, 0.76])
    if made_up:
        lips = np.array([rng.uniform(0.75, 1.0), rng.uniform(0.34, 0.6), rng.uniform(0.36, 0.62)])
    stubble = rng.choice([0.0, 0.15, 0.3, 0.55, 0.85], p=[0.3, 0.25, 0.2, 0.15, 0.1])
    brows = np.minimum(colour * rng.uniform(0.5, 0.85), 110)
    bald = rng.random() < 0.35
    return Paint(
        hair=np.clip(0.4 * brows + 0.6 * colour * 0.85, 14, 150),
        lip_tint=np.clip(lips * rng.uniform(0.95, 1.05), 0.3, 1.0),
        lip_amount=rng.uniform(0.75, 0.92) if made_up else rng.uniform(0.45, 0.75),
        brow_amount=rng.uniform(0.55, 0.95),
        stubble=float(stubble) if male else 0.0,
        scalp=0.85 if has_hair else (0.0 if bald else rng.uniform(0.6, 0.95)),
        hairline=rng.uniform(0.03, 0.1) if has_hair else rng.uniform(-0.03, 0.12),
        freckles=rng.uniform(0.4, 1.0) if not dark and rng.random() < 0.2 else 0.0,
    )
