"""Faces with known points on disk: photographs, film frames, rendered and drawn heads.

Every face is kept once as a square around it, at one size, so that training only has to warp it.
A part of the collection is one ``NAME.npz`` without pixels and one ``NAME.npy`` with them.
"""

from collections.abc import Iterator
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
