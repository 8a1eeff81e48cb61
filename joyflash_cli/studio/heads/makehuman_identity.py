"""Random MakeHuman identities: the skin decides sex, age and ancestry, the rest follows."""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.studio.heads.face_state import Split
from joyflash_cli.studio.heads.makehuman_pack import HELD_OUT_HAIRS, HELD_OUT_SKINS, MakeHumanAssets

FEMALE_HAIRS = {"bob02": 2.0, "long01": 3.0, "ponytail01": 3.0, "braid01": 2.0, "afro01": 1.5,
                "short03": 1.5, "bob01": 0.5, "short01": 0.5}  # fmt: skip
MALE_HAIRS = {"short01": 3.0, "short02": 3.0, "short03": 2.0, "short04": 3.0, "afro01": 1.0,
              None: 1.0}  # fmt: skip
"""Hairs and how often they are drawn; ``None`` is bald."""

AGE_RANGE = {"young": (0.0, 0.3), "middleage": (0.3, 0.6), "old": (0.6, 0.9)}
DETAIL_SCALE = 0.3
"""Standard deviation of a detail slider whose range is -1..1."""

_FRIENDLY_MEANS = {"eyebrows/eyebrows-angle": -0.35, "eyebrows/eyebrows-trans": 0.35,
                   "eyes/eye-height1": 0.2, "eyes/eye-height2": 0.3, "eyes/eye-height3": 0.25,
                   "mouth/mouth-angles": 0.3}  # fmt: skip
"""Sliders that are not centred on 0: low brows and narrow eyes look angry in a small picture."""

_FIXED_DETAILS = ("neck/", "head/head-trans", "head/head-age", "head/head-angle", "shape-pointed",
                  "shape-triangle", "mouth/mouth-trans-in", "mouth/mouth-trans-out",
                  "nose/nose-trans-in", "nose/nose-trans-out", "eye-bag")  # fmt: skip
_OPPOSITES = {"decr": -1, "down": -1, "in": -1, "backward": -1, "concave": -1, "compress": -1,
              "incr": 1, "up": 1, "out": 1, "forward": 1, "convex": 1, "uncompress": 1}  # fmt: skip


HAIR_TINTS = ((0.4, 0.29, 0.22), (0.8, 0.56, 0.35), (1.6, 1.25, 0.8), (0.2, 0.17, 0.17),
              (1.2, 0.6, 0.32), (1.4, 1.38, 1.35))  # fmt: skip
"""Brown, chestnut, blond, black, red and (old people only) grey."""
EYE_TEXTURES = ("brown_eye", "brownlight_eye", "blue_eye", "green_eye", "grey_eye",
                "lightblue_eye", "bluegreen_eye", "deepblue_eye")  # fmt: skip
BROWS = ("001", "006", "007", "008", "009", "010", "011", "012")
"""Brow numbers; 002 to 005 slope so far towards the nose that every face looks angry."""


@dataclass(frozen=True)
class Person:
    """What decides an identity; tints are factors on linear texture colours.

    Attributes:
        vertices: ``(head vertices, 3)`` neutral head.
        skin: Texture name; also ``eyes``.
        hair: Proxy name, or ``None`` for bald; also ``brow`` and ``lash``.
        collar: Collar height, depth of the neckline and its width, in decimetres.
    """

    vertices: np.ndarray
    skin: str
    hair: str | None
    skin_tint: tuple[float, float, float]
    hair_tint: tuple[float, float, float]
    brow_tint: tuple[float, float, float]
    eyes: str
    brow: str
    lash: str
    mirror_hair: bool
    collar: tuple[float, float, float]


def sample_person(assets: MakeHumanAssets, rng: np.random.Generator, *, split: Split) -> Person:
    """Draws skin, shape, hair and colours; held-out assets appear in the held-out split only."""
    held_out = split == "held-out"
    skin = _sample_skin(assets, rng, held_out=held_out)
    male, dark = "_male_" in skin, "darkskinned" in skin
    age = float(rng.uniform(*next(r for word, r in AGE_RANGE.items() if word in skin)))
    vertices = assets.vertices + _macro_shape(assets, rng, male=male, age=age, dark=dark)
    vertices = vertices + _detail_shape(assets, rng)
    hair = _sample_hair(rng, male=male, held_out=held_out)
    skin_tint = sample_skin_tint(rng, dark=dark)
    colour = int(rng.choice([0, 3, 3, 3]) if dark else rng.integers(len(HAIR_TINTS) - 1))
    if age > 0.6 and rng.random() < 0.6:
        colour = len(HAIR_TINTS) - 1
    hair_tint = np.array(HAIR_TINTS[colour]) * rng.uniform(0.8, 1.2)
    brown_only = dark or rng.random() < 0.4
    return Person(
        vertices=vertices,
        skin=skin,
        hair=hair,
        skin_tint=tuple(skin_tint),
        hair_tint=tuple(hair_tint),
        brow_tint=tuple(np.clip(hair_tint * 0.5, 0.08, 0.6)),
        eyes=EYE_TEXTURES[rng.integers(2 if brown_only else len(EYE_TEXTURES))],
        brow=f"eyebrow{BROWS[rng.integers(len(BROWS))]}",
        lash=f"eyelashes{rng.integers(2, 5):02d}",
        mirror_hair=bool(rng.random() < 0.5),
        collar=sample_collar(rng),
    )


def sample_skin_tint(rng: np.random.Generator, *, dark: bool) -> np.ndarray:
    """Factor ``(3,)`` on a skin texture's linear colour."""
    light = rng.uniform(0.95, 1.2) if dark else rng.uniform(0.72, 1.0)
    warmth = rng.uniform(-0.05, 0.06)
    return light * np.array([1 + warmth, 1.0, 1 - 1.3 * warmth]) * rng.uniform(0.98, 1.02, 3)


def sample_collar(rng: np.random.Generator) -> tuple[float, float, float]:
    """Collar height, depth of the neckline and its width, in decimetres."""
    return rng.uniform(5.62, 5.78), rng.uniform(0.0, 0.4), rng.uniform(0.08, 0.2)


def sample_skin_and_hair(
    assets: MakeHumanAssets, rng: np.random.Generator, *, split: Split
) -> tuple[str, str | None]:
    """Draws a skin texture and a hair mesh that goes with it; ``None`` is bald."""
    held_out = split == "held-out"
    skin = _sample_skin(assets, rng, held_out=held_out)
    return skin, _sample_hair(rng, male="_male_" in skin, held_out=held_out)


def _sample_skin(assets: MakeHumanAssets, rng: np.random.Generator, *, held_out: bool) -> str:
    skins = [s for s in assets.texture_names("skin_") if (s in HELD_OUT_SKINS) == held_out]
    return skins[rng.integers(len(skins))]


def _sample_hair(rng: np.random.Generator, *, male: bool, held_out: bool) -> str | None:
    hairs = MALE_HAIRS if male else FEMALE_HAIRS
    if held_out and rng.random() < 0.5:
        hairs = {name: 1.0 for name in hairs if name in HELD_OUT_HAIRS}
    else:
        hairs = {name: w for name, w in hairs.items() if name not in HELD_OUT_HAIRS}
    weights = np.array(list(hairs.values()))
    return list(hairs)[rng.choice(len(weights), p=weights / weights.sum())]


def _macro_shape(
    assets: MakeHumanAssets, rng: np.random.Generator, *, male: bool, age: float, dark: bool
) -> np.ndarray:
    """Displacement of sex, age, ancestry, muscle and weight, mixed multilinearly."""
    maleness = float(np.clip(rng.normal(0.08, 0.06), 0, 0.25))
    maleness = 1 - maleness if male else maleness
    african = rng.uniform(0.6, 1.0) if dark else rng.uniform(0.0, 0.12)
    asian = (1 - african) * (rng.beta(0.5, 0.7) if not dark else rng.uniform(0, 1))
    ancestry = {"african": african, "asian": asian, "caucasian": 1 - african - asian}
    muscle, weight = np.clip(rng.normal(0, 0.35, 2), -0.9, 0.9)
    muscles = {"minmuscle": max(-muscle, 0), "averagemuscle": 1 - abs(muscle),
               "maxmuscle": max(muscle, 0)}  # fmt: skip
    weights = {"minweight": max(-weight, 0), "averageweight": 1 - abs(weight),
               "maxweight": max(weight, 0)}  # fmt: skip
    factors = {"male": maleness, "female": 1 - maleness, "young": 1 - age, "old": age}
    factors |= ancestry | muscles | weights | {"universal": 1.0}
    shape = np.zeros_like(assets.vertices)
    for name, displacement in assets.macros.items():
        shape += displacement * float(np.prod([factors[word] for word in name.split("-")]))
    return shape


def _detail_shape(assets: MakeHumanAssets, rng: np.random.Generator) -> np.ndarray:
    """Displacement of the detail sliders; left and right move together."""
    sliders: dict[str, dict[int, list[str]]] = {}
    for name in assets.details:
        if any(word in name for word in _FIXED_DETAILS):
            continue
        group, stem = name.split("/")
        stem = stem.removeprefix("l-").removeprefix("r-")
        slider, _, end = stem.rpartition("-")
        key, sign = (
            (f"{group}/{slider}", _OPPOSITES[end]) if end in _OPPOSITES else (f"{group}/{stem}", 1)
        )
        sliders.setdefault(key, {}).setdefault(sign, []).append(name)
    shape = np.zeros_like(assets.vertices)
    for key, ends in sliders.items():
        group = key.split("/")[0]
        scale = DETAIL_SCALE * (0.6 if group == "head" else 1.0)
        amount = float(np.clip(rng.normal(_FRIENDLY_MEANS.get(key, 0.0), scale), -0.8, 0.8))
        names = ends.get(1 if amount > 0 else -1, [])
        for name in names if abs(amount) > 0.05 else []:
            shape += assets.details[name].astype(np.float32) * abs(amount)
    return shape
