"""Backgrounds like those of snapshots: rooms, shelves, windows, leaves, streets at night, sky.

All are made from noise and simple shapes and then thrown out of focus.
"""

from collections.abc import Callable

import numpy as np

from joyflash_cli.studio.heads.surroundings import muted_colour

Canvas = np.ndarray
"""``(side, side, 3)`` float32 display RGB 0..1."""


def sample_photo_background(rng: np.random.Generator, size_px: int) -> Canvas:
    """Draws a background ``(size_px, size_px, 3)`` float32 in 0..1."""
    from scipy.ndimage import gaussian_filter

    scene = SCENES[int(rng.choice(len(SCENES), p=SCENE_WEIGHTS))]
    picture = scene(rng, size_px)
    grain = fractal_noise(rng, size_px, roughness=1.0)
    picture = picture * (1 + 0.06 * grain[..., None])
    sigma = np.exp(rng.uniform(np.log(0.5), np.log(7.0))) * size_px / 128
    picture = gaussian_filter(picture, (sigma, sigma, 0), mode="nearest")
    picture *= rng.uniform(0.6, 1.15)
    return np.clip(picture, 0.01, 1.0).astype(np.float32)


def fractal_noise(rng: np.random.Generator, size_px: int, *, roughness: float) -> np.ndarray:
    """Noise ``(size_px, size_px)`` of unit variance whose power falls as 1 / f^(2 roughness)."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size_px), np.fft.rfftfreq(size_px),
                                      indexing="ij"))  # fmt: skip
    frequency[0, 0] = 1.0
    spectrum = rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)
    spectrum /= frequency**roughness
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(size_px, size_px))
    return (noise / noise.std()).astype(np.float32)


def _room(rng: np.random.Generator, size_px: int) -> Canvas:
    """A wall with uneven light, sometimes a door frame, a picture or a corner."""
    wall = muted_colour(rng, 0.35, 0.9)
    picture = np.tile(wall, (size_px, size_px, 1)).astype(np.float32)
    corner = rng.uniform(-0.3, 1.3)
    x, y = _axes(size_px)
    picture = np.where((x > corner)[..., None], picture * rng.uniform(0.7, 0.95), picture)
    for _ in range(int(rng.integers(0, 4))):
        colour = muted_colour(rng, 0.1, 0.9)
        left, top = rng.uniform(-0.2, 1.0, 2)
        width, height = rng.uniform(0.1, 0.5, 2)
        _fill(picture, left, top, left + width, top + height, colour)
    light = np.exp(0.5 * rng.normal() * (x - 0.5) + 0.5 * rng.normal() * (y - 0.5))
    return picture * light[..., None]


def _shelves(rng: np.random.Generator, size_px: int) -> Canvas:
    """Rows of books or boxes."""
    picture = np.tile(muted_colour(rng, 0.15, 0.5), (size_px, size_px, 1)).astype(np.float32)
    rows = int(rng.integers(3, 6))
    for row in range(rows):
        bottom, left = (row + 0.92) / rows, rng.uniform(-0.1, 0)
        while left < 1:
            width = rng.uniform(0.02, 0.08)
            top = (row + rng.uniform(0.1, 0.45)) / rows
            colour = muted_colour(rng, 0.1, 0.8, colourful=0.8)
            _fill(picture, left, top, left + width, bottom, colour)
            left += width * rng.choice([1.0, 1.05, 2.5], p=[0.7, 0.2, 0.1])
    return picture


def _window(rng: np.random.Generator, size_px: int) -> Canvas:
    """A dim wall with a bright window and its frame."""
    picture = _room(rng, size_px) * 0.6
    left, top = rng.uniform(-0.2, 0.7), rng.uniform(-0.2, 0.2)
    width, height = rng.uniform(0.25, 0.6), rng.uniform(0.4, 0.9)
    sky = np.clip(muted_colour(rng, 0.8, 1.0) + np.array([0, 0.02, 0.06]), 0, 1)
    _fill(picture, left, top, left + width, top + height, sky)
    frame = muted_colour(rng, 0.3, 0.9)
    middle = left + width * 0.5
    _fill(picture, middle - 0.012, top, middle + 0.012, top + height, frame)
    _fill(picture, left, top + height, left + width, top + height + 0.04, frame)
    return picture


def _leaves(rng: np.random.Generator, size_px: int) -> Canvas:
    """Foliage: rough noise between dark and sunlit green."""
    noise = fractal_noise(rng, size_px, roughness=0.8)
    spots = fractal_noise(rng, size_px, roughness=0.5)
    dark = np.array([0.08, 0.14, 0.05]) * rng.uniform(0.7, 1.5)
    lit = np.array([rng.uniform(0.35, 0.65), rng.uniform(0.5, 0.65), rng.uniform(0.15, 0.3)])
    mix = np.clip(0.45 + 0.28 * noise + 0.1 * spots, 0, 1)[..., None]
    sun = np.clip(spots - 1.8, 0, 1)[..., None]
    return (dark * (1 - mix) + lit * mix) * (1 - sun) + 0.95 * sun


def _night(rng: np.random.Generator, size_px: int) -> Canvas:
    """Lights out of focus on a dark ground."""
    x, y = _axes(size_px)
    picture = np.tile(muted_colour(rng, 0.03, 0.2, colourful=0.5), (size_px, size_px, 1))
    for _ in range(int(rng.integers(6, 30))):
        centre_x, centre_y, radius = rng.random(), rng.random(), rng.uniform(0.015, 0.07)
        distance = np.hypot(x - centre_x, y - centre_y)
        disc = 1 / (1 + np.exp((distance - radius) * 400))
        warm = np.array([1.0, rng.uniform(0.5, 0.95), rng.uniform(0.25, 0.9)])
        picture = picture + disc[..., None] * warm * rng.uniform(0.2, 0.9)
    return picture


def _outside(rng: np.random.Generator, size_px: int) -> Canvas:
    """Sky above ground, houses or hills at the horizon."""
    x, y = _axes(size_px)
    horizon = rng.uniform(0.25, 0.75)
    blue = np.array([rng.uniform(0.4, 0.75), rng.uniform(0.6, 0.82), rng.uniform(0.75, 0.95)])
    haze = np.array([0.88, 0.89, 0.9])
    up = np.clip((horizon - y) / max(horizon, 0.1), 0, 1)[..., None]
    clouds = np.clip(0.5 * fractal_noise(rng, size_px, roughness=1.6), 0, 1)[..., None]
    sky = (haze * (1 - up) + blue * up) * (1 - clouds) + 0.95 * clouds
    ground = muted_colour(rng, 0.2, 0.6, colourful=0.4)
    ground = ground * (1 + 0.25 * fractal_noise(rng, size_px, roughness=1.2)[..., None])
    hills = 0.05 * fractal_noise(rng, size_px, roughness=1.8)[0][None, :]
    picture = np.where((y > horizon + hills)[..., None], ground, sky)
    for _ in range(int(rng.integers(0, 5))):
        left, width = rng.uniform(-0.1, 0.95), rng.uniform(0.08, 0.35)
        top = horizon - rng.uniform(0.05, 0.4)
        _fill(picture, left, top, left + width, horizon + 0.05, muted_colour(rng, 0.25, 0.8))
    return picture


def _studio(rng: np.random.Generator, size_px: int) -> Canvas:
    """A plain backdrop with a spot of light, as in portraits."""
    x, y = _axes(size_px)
    centre = rng.uniform(0.2, 0.8, 2)
    spot = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / rng.uniform(0.1, 0.6))
    base = muted_colour(rng, 0.05, 0.7, colourful=0.5)
    mottle = 0.12 * fractal_noise(rng, size_px, roughness=1.8)
    return base * (0.6 + rng.uniform(0.2, 0.9) * spot + mottle)[..., None]


SCENES: tuple[Callable[[np.random.Generator, int], Canvas], ...] = (
    _room, _shelves, _window, _leaves, _night, _outside, _studio,
)  # fmt: skip
SCENE_WEIGHTS = (0.26, 0.12, 0.14, 0.12, 0.06, 0.14, 0.16)


def _axes(size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of every pixel as 0..1."""
    axis = (np.arange(size_px) + 0.5) / size_px
    x, y = np.meshgrid(axis, axis)
    return x, y


def _fill(
    picture: Canvas, left: float, top: float, right: float, bottom: float, colour: np.ndarray
) -> None:
    """Paints a rectangle given as fractions of the picture, in place."""
    side = len(picture)
    x0, y0, x1, y1 = (int(np.clip(v, 0, 1) * side) for v in (left, top, right, bottom))
    picture[y0:y1, x0:x1] = colour
