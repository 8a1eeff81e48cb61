"""Colours, light and background of a MakeHuman head."""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.studio.heads.makehuman_identity import Person
from joyflash_cli.studio.heads.rasteriser import Lighting

HAIR_TINTS = ((0.4, 0.29, 0.22), (0.8, 0.56, 0.35), (1.6, 1.25, 0.8), (0.2, 0.17, 0.17),
              (1.2, 0.6, 0.32), (1.4, 1.38, 1.35))  # fmt: skip
"""Brown, chestnut, blond, black, red and (old people only) grey."""

EYE_TEXTURES = ("brown_eye", "brownlight_eye", "blue_eye", "green_eye", "grey_eye",
                "lightblue_eye", "bluegreen_eye", "deepblue_eye")  # fmt: skip

BROWS = ("001", "006", "007", "008", "009", "010", "011", "012")
"""Brow numbers; 002 to 005 slope so far towards the nose that every face looks angry."""


@dataclass(frozen=True)
class Look:
    """Colours of one identity; tints are factors on linear texture colours."""

    skin_tint: tuple[float, float, float]
    hair_tint: tuple[float, float, float]
    brow_tint: tuple[float, float, float]
    eye_texture: str
    brow: str
    lash: str
    mirror_hair: bool
    collar: tuple[float, float, float]
    """Collar height, depth of the neckline and its width, in decimetres."""


def sample_look(person: Person, rng: np.random.Generator) -> Look:
    """Draws colours that go with a person."""
    light = rng.uniform(0.95, 1.2) if person.dark else rng.uniform(0.72, 1.0)
    warmth = rng.uniform(-0.05, 0.06)
    skin = light * np.array([1 + warmth, 1.0, 1 - 1.3 * warmth]) * rng.uniform(0.98, 1.02, 3)
    if person.dark:
        hair_index = int(rng.choice([0, 3, 3, 3]))
    else:
        hair_index = int(rng.integers(len(HAIR_TINTS) - 1))
    if person.age > 0.6 and rng.random() < 0.6:
        hair_index = len(HAIR_TINTS) - 1
    hair = np.array(HAIR_TINTS[hair_index]) * rng.uniform(0.8, 1.2)
    brown_only = person.dark or rng.random() < 0.4
    return Look(
        skin_tint=tuple(skin),
        hair_tint=tuple(hair),
        brow_tint=tuple(np.clip(hair * 0.5, 0.08, 0.6)),
        eye_texture=EYE_TEXTURES[rng.integers(2 if brown_only else len(EYE_TEXTURES))],
        brow=f"eyebrow{BROWS[rng.integers(len(BROWS))]}",
        lash=f"eyelashes{rng.integers(2, 5):02d}",
        mirror_hair=bool(rng.random() < 0.5),
        collar=(rng.uniform(5.62, 5.78), rng.uniform(0.0, 0.4), rng.uniform(0.08, 0.2)),
    )


def sample_lighting(rng: np.random.Generator) -> Lighting:
    """A key light from the front or the side, a weak fill and ambient light."""
    azimuth, height = rng.uniform(-1.0, 1.0), rng.uniform(0.15, 0.75)
    key = np.array([np.sin(azimuth), height, np.cos(azimuth)])
    fill = np.array([-np.sin(azimuth) - np.sign(azimuth) * 0.6, 0.15, 0.6])
    return Lighting(
        directions=np.stack([key, fill]),
        colours=np.stack(
            [
                rng.uniform(0.95, 1.35) * rng.uniform(0.93, 1.07, 3),
                rng.uniform(0.2, 0.45) * rng.uniform(0.9, 1.1, 3),
            ]
        ),
        ambient=rng.uniform(0.5, 0.75) * rng.uniform(0.95, 1.05, 3),
        cloth=_calm_colour(rng, low=0.06, high=0.75, colourful=0.6) ** 2,
    )


def sample_background(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """A calm gradient, sometimes with out-of-focus blobs, ``(size_px, size_px, 3)`` in 0..1."""
    y, x = np.mgrid[0:size_px, 0:size_px] / size_px
    angle = rng.uniform(0, 2 * np.pi)
    first = _calm_colour(rng, low=0.25, high=0.8, colourful=0.3)
    second = np.clip(first + rng.normal(0, 0.08, 3) + rng.normal(0, 0.1), 0.1, 0.9)
    mix = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    picture = first * (1 - mix) + second * mix
    for _ in range(int(rng.integers(1, 5)) if rng.random() < 0.5 else 0):
        centre_x, centre_y, radius = rng.random(), rng.random(), rng.uniform(0.1, 0.35)
        distance = (x - centre_x) ** 2 + (y - centre_y) ** 2
        blob = 0.35 / (1 + np.exp((distance - radius**2) * 50))[..., None]
        colour = np.clip(first + rng.normal(0, 0.15, 3), 0.1, 0.95)
        picture = picture * (1 - blob) + colour * blob
    return picture.astype(np.float32)


def _calm_colour(
    rng: np.random.Generator, *, low: float, high: float, colourful: float
) -> np.ndarray:
    grey, colour = rng.uniform(low, high), rng.uniform(low, high, 3)
    amount = rng.uniform(0, colourful)
    return grey * (1 - amount) + colour * amount
