"""Pictures without a person: rooms and landscapes, textures, and drawn beasts with eyes and muzzle.

They teach the face networks to say no. All are made from noise and simple shapes.
"""

from collections.abc import Callable

import numpy as np

from joyflash_cli.studio.clips.photo_background import fractal_noise, sample_photo_background

Canvas = np.ndarray
"""``(S, S, 3)`` float32 in 0..1."""


def sample_faceless(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """A picture without a face, ``(S, S, 3)`` uint8."""
    kind = rng.random()
    if kind < 0.35:
        picture = sample_photo_background(rng, size_px)
    elif kind < 0.65:
        picture = _beast(rng, size_px)
    else:
        texture = TEXTURES[int(rng.integers(len(TEXTURES)))]
        picture = _coloured(rng, texture(rng, size_px))
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _axes(rng: np.random.Generator, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of every pixel in -1..1, turned by any angle."""
    axis = np.linspace(-1, 1, size_px)
    x, y = np.meshgrid(axis, axis)
    angle = rng.choice([0.0, rng.uniform(0, np.pi)])
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _coloured(rng: np.random.Generator, grey: np.ndarray) -> Canvas:
    """Two colours, mixed by ``grey`` (any range), with some grain."""
    low, high = np.percentile(grey, [2, 98])
    share = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)[..., None]
    first, second = rng.random(3), rng.random(3)
    if rng.random() < 0.5:
        second = np.clip(first + rng.uniform(-0.5, 0.5), 0, 1)
    grain = rng.uniform(0, 0.08) * rng.standard_normal((*grey.shape, 1))
    return first * (1 - share) + second * share + grain


def _waves(rng: np.random.Generator, size_px: int) -> np.ndarray:
    x, y = _axes(rng, size_px)
    bent = x + rng.uniform(0, 0.3) * np.sin(rng.uniform(1, 8) * y)
    return np.sign(np.sin(rng.uniform(6, 60) * bent)) * rng.random() + np.sin(9 * bent)


def _tiles(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """Bricks, boards and chequers, each with its own shade."""
    x, y = _axes(rng, size_px)
    rows, columns = rng.uniform(3, 18, 2)
    row = np.floor((y + 1) * rows)
    column = np.floor((x + 1) * columns + 0.5 * (row % 2) * rng.integers(0, 2))
    if rng.random() < 0.3:
        return (row + column) % 2
    shade = rng.random((64, 64))[row.astype(int) % 64, column.astype(int) % 64]
    across = np.minimum((y + 1) * rows - row, (x + 1) * columns - np.floor((x + 1) * columns))
    return shade * rng.random() + (across > rng.uniform(0.05, 0.2))


def _stones(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """Gravel, coins, cells: round things, some bright, some dark, lit from one side."""
    axis = np.linspace(-1, 1, size_px)
    x, y = np.meshgrid(axis, axis)
    grey = rng.uniform(0, 1) + 0.1 * fractal_noise(rng, size_px, roughness=1.0)
    largest = np.exp(rng.uniform(np.log(0.05), np.log(0.4)))
    tilt = rng.uniform(-0.5, 0.5, 2)
    for _ in range(int(min(3 / largest**1.5, 60))):
        centre, radius = rng.uniform(-1, 1, 2), largest * rng.uniform(0.4, 1.0)
        dx, dy = (x - centre[0]) / radius, (y - centre[1]) / (radius * rng.uniform(0.6, 1.2))
        disc = dx**2 + dy**2 < 1
        grey[disc] = (rng.random() + tilt[0] * dx + tilt[1] * dy)[disc]
    return grey


def _clouds(rng: np.random.Generator, size_px: int) -> np.ndarray:
    return fractal_noise(rng, size_px, roughness=rng.uniform(0.3, 1.8))


def _page(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """Lines of words, or rows of windows."""
    grey = np.ones((size_px, size_px))
    height = int(rng.integers(4, 16))
    for top in range(int(rng.integers(height)), size_px - height, int(height * 1.7)):
        left = int(rng.integers(0, 20))
        while left < size_px:
            width = int(rng.integers(1, 5)) * height // 2
            grey[top : top + height, left : left + width] = rng.uniform(0, 0.6)
            left += width + int(rng.integers(1, height))
    return grey


TEXTURES: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (
    _waves, _tiles, _stones, _stones, _clouds, _page,
)  # fmt: skip


def _beast(rng: np.random.Generator, size_px: int) -> Canvas:
    """A furry head with ears, two far eyes and a short muzzle: a cat, a dog, an owl, a bear."""
    from scipy.ndimage import gaussian_filter

    axis = np.linspace(-1, 1, size_px)
    x, y = np.meshgrid(axis - rng.uniform(-0.2, 0.2), axis - rng.uniform(-0.2, 0.2))
    scale = rng.uniform(0.45, 0.9)
    x, y = x / scale, y / scale
    streaks = rng.standard_normal((size_px, size_px))
    fur = gaussian_filter(streaks, (rng.uniform(2, 6), rng.uniform(0.6, 1.5)))
    fur = fur / fur.std() + fractal_noise(rng, size_px, roughness=1.2)
    stripes = np.sin(rng.uniform(8, 25) * np.hypot(x, y + 1.0)) * rng.choice([0.0, 1.0])
    base = rng.uniform(0.05, 0.9) + rng.uniform(-0.2, 0.2, 3) * [1.0, 0.5, 0.2]
    coat = base * (1 + 0.13 * fur[..., None] + 0.25 * stripes[..., None])
    picture = sample_photo_background(rng, size_px)
    wide = rng.uniform(0.8, 1.15)
    head = (x / wide) ** 2 + y**2 < 0.5 + 0.06 * fur
    reach, tip = rng.uniform(0.35, 0.6), rng.uniform(0.7, 1.3)
    for side in (-1, 1):
        ear = (np.abs(x - side * reach - side * 0.15 * (-y)) < 0.35 * (y + tip)) & (y < -0.2)
        head |= ear & (y > -tip)
    head |= (y > 0.3) & (np.abs(x) < 0.6 + 0.5 * y)
    picture = np.where(head[..., None], coat, picture)
    muzzle = np.exp(-((x / 0.28) ** 2) - ((y - 0.3) / 0.25) ** 2)[..., None]
    picture = picture * (1 - 0.6 * muzzle) + 0.6 * muzzle * np.clip(
        base + rng.uniform(-0.2, 0.5), 0, 1
    )
    eye_x, eye_y, radius = rng.uniform(0.22, 0.42), rng.uniform(-0.25, 0.0), rng.uniform(0.07, 0.16)
    iris = rng.random(3) * [1.0, 0.9, 0.5]
    slit = rng.uniform(0.2, 0.9)
    for side in (-1, 1):
        away = np.hypot(x - side * eye_x, (y - eye_y) / rng.uniform(0.7, 1.0))
        picture[away < radius * 1.2] = 0.05
        picture[away < radius] = iris
        pupil = np.hypot((x - side * eye_x) / slit, y - eye_y) < radius * 0.8
        picture[pupil & (away < radius)] = 0.03
    nose = (np.abs(x) < 0.13 - 0.6 * np.abs(y - 0.2)) | (np.hypot(x / 1.3, y - 0.2) < 0.07)
    picture[nose] = rng.uniform(0.02, 0.4) * np.array([1.0, 0.8, 0.8])
    line = (np.abs(np.abs(x) - 0.9 * (y - 0.27)) < 0.015) & (y > 0.27) & (y < 0.45)
    picture[line] *= 0.3
    whiskers = (
        np.abs(y - 0.3 - rng.uniform(-0.2, 0.2) * np.abs(x) * np.sign(np.sin(40 * y))) < 0.008
    )
    picture[whiskers & (np.abs(x) > 0.2) & (np.abs(x) < 0.9)] = rng.random()
    return gaussian_filter(picture, (*[rng.uniform(0, 1.5)] * 2, 0))
