"""What the face networks see: faces with known points on disk, and pictures without a person.

Photographs, film frames, rendered and drawn heads are kept once as a square around the face, at one
size, so that training only has to warp it. A part of the collection is one ``NAME.npz`` without
pixels and one ``NAME.npy`` with them. Rooms and landscapes, textures, and drawn beasts with eyes
and muzzle teach the networks to say no; they are made from noise and simple shapes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.files import whole_file
from joyflash_cli.media.inputs.face_points import EYE_CORNERS, MOUTH_CORNERS
from joyflash_cli.media.inputs.similarity import Similarity, cut
from joyflash_cli.studio.clips.clips import ClipsConfig, identity_index, load_heads, sample_head
from joyflash_cli.studio.clips.photo_background import fractal_noise, sample_photo_background
from joyflash_cli.studio.clips.photo_look import apply_photo_look, sample_photo_look
from joyflash_cli.studio.clips.real_faces import PointedPicture
from joyflash_cli.studio.heads.face_state import FaceState

SQUARE_PX = 256
_EYES_TO_MOUTH_PX = 52.0
"""Of a stored face; the square then reaches over hair and shoulders."""

_FACE_HEIGHT = 0.47
"""Height of the middle between eyes and mouth in the square, as a fraction."""

_STATES_PER_HEAD = 3
_PROFILE_SHARE = 0.12
"""Of rendered faces: turned by 55 to 90 degrees, to be refused."""

_FULLY_TURNED = 0.96
"""Sine of the yaw at which ``turned`` is 1."""


@dataclass(frozen=True)
class PictureStore:
    """Many faces, all in squares of one size.

    Attributes:
        pixels: ``(N, S, S, 3)`` uint8, perhaps a memory map.
        points: ``(N, P, 2)`` float32 in pixels of the square.
        inside: ``(N, 4)`` what the picture fills of the square: left, top, right, bottom.
        turned: ``(N,)`` see ``PointedPicture``.
        held_out: ``(N,)`` bool.
        kind: ``(N,)`` words.
    """

    pixels: np.ndarray
    points: np.ndarray
    inside: np.ndarray
    turned: np.ndarray
    held_out: np.ndarray
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def trained_rows(self) -> np.ndarray:
        """Indices of the faces that are not held out."""
        return np.flatnonzero(~self.held_out)


def eyes_and_mouth(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres ``(..., 2)`` of the eyes and of the mouth of points ``(..., P, 2)``."""
    return points[..., EYE_CORNERS, :].mean(-2), points[..., MOUTH_CORNERS, :].mean(-2)


def write_part(directory: Path, name: str, pictures: Iterator[PointedPicture]) -> None:
    """Write a part of the collection unless it is there; its ``.npz`` comes last.

    Raises:
        DataError: There is no picture.
    """
    if (directory / f"{name}.npz").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    rows = [_square(picture) for picture in pictures]
    if not rows:
        raise DataError(f"{name} has no picture to learn from", hint="complete its list")
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    np.save(directory / f"{name}.npy", columns[0])
    names = ("points", "inside", "turned", "held_out", "kind")
    arrays: dict[str, Any] = dict(zip(names, columns[1:], strict=True))
    with whole_file(directory / f"{name}.npz") as part, part.open("wb") as file:
        np.savez(file, **arrays)


def load_parts(directory: Path, names: tuple[str, ...]) -> list[PictureStore]:
    """The parts that are on disk, pixels by memory map.

    Raises:
        DataError: If one is missing.
    """
    stores = []
    for name in names:
        try:
            with np.load(directory / f"{name}.npz") as part:
                pixels = np.load(directory / f"{name}.npy", mmap_mode="r")
                stores.append(PictureStore(pixels, **{key: part[key] for key in part.files}))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{directory / name}.npz cannot be read", hint="delete it; it is made again"
            ) from error
    return stores


def _square(picture: PointedPicture) -> tuple[np.ndarray | np.generic, ...]:
    eyes, mouth = eyes_and_mouth(picture.points)
    # Width counts as well: of a face from above or below, eyes and mouth are close.
    corners = picture.points[EYE_CORNERS]
    wide = float(np.linalg.norm(corners[0] - corners[3]))
    distance = max(float(np.linalg.norm(mouth - eyes)), 0.6 * wide)
    scale = distance / _EYES_TO_MOUTH_PX
    corner = (eyes + mouth) / 2 - scale * SQUARE_PX * np.array([0.5, _FACE_HEIGHT])
    place = Similarity(scale, 0.0, *corner.tolist())
    height, width = picture.pixels.shape[:2]
    inside = place.to_frame(np.array([[0.0, 0.0], [width, height]])).reshape(4)
    return (
        cut(picture.pixels, place, SQUARE_PX),
        place.to_frame(picture.points).astype(np.float32),
        np.clip(inside, 0, SQUARE_PX).astype(np.float32),
        np.float32(picture.turned),
        np.bool_(picture.held_out),
        np.array(picture.kind, "U16"),
    )


def render_heads(num_heads: int, assets_dir: Path, *, seed: int) -> Iterator[PointedPicture]:
    """Heads with three expressions and poses each: ICT, MakeHuman and drawn ones in equal parts.

    Raises:
        DataError: A pack is missing or damaged.
    """
    config = ClipsConfig(size_px=SQUARE_PX, drawn_share=0.34, ict_share=0.33, seed=seed)
    assets = load_heads(config, assets_dir)
    for index in range(num_heads):
        rng = np.random.default_rng([seed, identity_index(index, split="train")])
        kind, head = sample_head(config, rng, assets=assets, photo=rng.random() < 0.4)
        for _ in range(_STATES_PER_HEAD):
            state = _state(rng, turns=kind != "drawn")
            pixels = head.render(state)
            if kind != "drawn" and rng.random() < 0.5:
                pixels = apply_photo_look(pixels[None], sample_photo_look(rng), rng)[0]
            turned = abs(np.sin(state.yaw)) / _FULLY_TURNED
            yield PointedPicture(pixels, head.canonical_points(state), turned, False, kind)


def _state(rng: np.random.Generator, *, turns: bool) -> FaceState:
    """A random moment of speech; a share of the heads that can turn shows a profile."""
    visemes = np.array(rng.beta(0.6, 1.6, 6), np.float32)
    visemes[3] *= rng.random() < 0.3
    state = FaceState(
        visemes=visemes,
        blink=float(rng.choice([0.0, rng.random(), 1.0], p=[0.7, 0.2, 0.1])),
        smile=float(rng.beta(0.5, 1.5)),
        brow=float(rng.beta(0.5, 1.5)),
        yaw=float(rng.normal(0, 0.12)),
        pitch=float(rng.normal(0, 0.08)),
    )
    if not turns:
        return state
    if rng.random() < _PROFILE_SHARE:
        return replace(state, yaw=float(rng.choice([-1, 1]) * np.deg2rad(rng.uniform(55, 90))))
    return replace(state, yaw=float(rng.normal(0, 0.3)))


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
