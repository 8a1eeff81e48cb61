"""What is around a rendered person: light, the collar's cloth, and a calm background."""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.studio.heads.rasteriser import Lighting


@dataclass(frozen=True)
class Surroundings:
    """What is around one identity.

    Attributes:
        lighting: Lights and cloth.
        background: ``(size_px, size_px, 3)`` display RGB 0..1.
        framing_spread: Factor on how far the face's size and place vary around the nominal ones.
    """

    lighting: Lighting
    background: np.ndarray
    framing_spread: float = 1.0


def sample_lighting(rng: np.random.Generator) -> Lighting:
    """A key light from the front or the side, a weak fill and ambient light."""
    azimuth, height = rng.uniform(-1.0, 1.0), rng.uniform(0.15, 0.75)
    key = [np.sin(azimuth), height, np.cos(azimuth)]
    fill = [-np.sin(azimuth) - np.sign(azimuth) * 0.6, 0.15, 0.6]
    key_colour = rng.uniform(0.95, 1.35) * rng.uniform(0.93, 1.07, 3)
    fill_colour = rng.uniform(0.2, 0.45) * rng.uniform(0.9, 1.1, 3)
    return Lighting(
        directions=np.array([key, fill]),
        colours=np.stack([key_colour, fill_colour]),
        ambient=rng.uniform(0.5, 0.75) * rng.uniform(0.95, 1.05, 3),
        cloth=muted_colour(rng, 0.06, 0.75, colourful=0.6) ** 2,
    )


def sample_background(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """A calm gradient, sometimes with out-of-focus blobs, ``(size_px, size_px, 3)`` in 0..1."""
    y, x = np.mgrid[0:size_px, 0:size_px] / size_px
    angle = rng.uniform(0, 2 * np.pi)
    first = muted_colour(rng, 0.25, 0.8, colourful=0.3)
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


def muted_colour(
    rng: np.random.Generator, low: float, high: float, *, colourful: float = 0.35
) -> np.ndarray:
    """A colour ``(3,)`` between ``low`` and ``high``, grey or up to so colourful."""
    grey, colour = rng.uniform(low, high), rng.uniform(low, high, 3)
    amount = rng.uniform(0, colourful)
    return grey * (1 - amount) + colour * amount
