"""Batches for the face networks: crops with points, and whole scenes with faces in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.media.inputs.face_points import (
    CROP_EYES_TO_MOUTH,
    CROP_PX,
    FINDER_REACH_PX,
    FINDER_STRIDE,
    MIRRORED,
)
from joyflash_cli.media.inputs.similarity import Similarity, cut, similarity_between
from joyflash_cli.studio.training.points_changes import (
    as_shown,
    cover_mouth,
    hide_some,
    without_face,
)
from joyflash_cli.studio.training.points_pictures import PictureStore, eyes_and_mouth
from joyflash_cli.types import to_signed

SCENE_PX = 160
UNKNOWN = -1.0
"""A label that the loss leaves out."""

_TURNED_TOO_FAR, _TURNED_ENOUGH = 0.85, 0.62
"""``turned`` above the first is refused, below the second accepted; between them is not judged."""


@dataclass(frozen=True)
class Collection:
    """What batches are drawn from.

    Attributes:
        stores: Faces; those that are held out are not drawn.
        shares: Of the stores in a batch.
        faceless: ``(N, S, S, 3)`` uint8 pictures without a face.
    """

    stores: Sequence[PictureStore]
    shares: Sequence[float]
    faceless: np.ndarray

    def pick(self, rng: np.random.Generator) -> tuple[PictureStore, int]:
        """A random face."""
        store = self.stores[int(rng.choice(len(self.stores), p=self.shares))]
        return store, int(rng.choice(store.trained_rows))

    def pick_faceless(self, rng: np.random.Generator) -> np.ndarray:
        """A random picture without a face."""
        return self.faceless[int(rng.integers(len(self.faceless)))]


def upright(points: np.ndarray, *, eyes_to_mouth_px: float, centre: np.ndarray) -> Similarity:
    """The frame in which a face stands upright, its eyes and mouth around ``centre``."""
    eyes, mouth = eyes_and_mouth(points)
    half = np.array([0.0, eyes_to_mouth_px / 2])
    return similarity_between(np.stack([centre - half, centre + half]), np.stack([eyes, mouth]))


def draw_crops(
    collection: Collection, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Random crops: faces with all kinds of disturbances, a quarter of them without any face.

    Returns:
        Crops ``(B, 3, S, S)`` in -1..1; points ``(B, P, 2)`` as fractions of the side, NaN where
        they are unknown; labels ``(B, 3)`` face, mouth seen, turned towards us, ``UNKNOWN`` where
        not judged.
    """
    rows = [_draw_crop(collection, rng) for _ in range(count)]
    crops, points, labels = (np.stack(column) for column in zip(*rows, strict=True))
    return to_signed(crops), torch.from_numpy(points), torch.from_numpy(labels)


def _draw_crop(
    collection: Collection, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    store, index = collection.pick(rng)
    points = store.points[index]
    turned = float(store.turned[index])
    other = _square_of(collection.pick_faceless(rng), CROP_PX, rng)
    fate = rng.random()
    if fate < 0.08:
        return _no_face(other, rng)
    if fate < 0.14:
        return _no_face(_detail(store, index, rng), rng)
    strange = fate < 0.18  # a face that is far from where it belongs
    middle = np.full(2, CROP_PX / 2)
    ideal = upright(points, eyes_to_mouth_px=CROP_EYES_TO_MOUTH * CROP_PX, centre=middle)
    place = _jittered(ideal, rng, strange=strange)
    beyond = tuple(rng.integers(0, 256, 3).tolist()) if rng.random() < 0.5 else (128, 128, 128)
    crop = cut(store.pixels[index], place, CROP_PX, beyond=beyond)
    found = place.to_frame(points)
    if strange:
        return _no_face(crop, rng)
    if fate < 0.27:
        return _no_face(without_face(crop, found, other, rng), rng)
    mouth_seen = 1.0
    if fate < 0.42:
        crop, mouth_seen = cover_mouth(crop, found, other, rng), 0.0
    elif fate < 0.58:
        crop, hidden = hide_some(crop, other, found, rng)
        mouth_seen = 1.0 if hidden < 0.2 else 0.0 if hidden > 0.75 else UNKNOWN
    towards = 0.0 if turned > _TURNED_TOO_FAR else 1.0 if turned < _TURNED_ENOUGH else UNKNOWN
    if turned > _TURNED_TOO_FAR:
        mouth_seen = UNKNOWN
    crop = as_shown(crop, rng)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
        found = found[MIRRORED] * [-1, 1] + [CROP_PX, 0]
    labels = np.array([1.0, mouth_seen, towards], np.float32)
    return np.ascontiguousarray(crop), (found / CROP_PX).astype(np.float32), labels


def _detail(store: PictureStore, index: int, rng: np.random.Generator) -> np.ndarray:
    """Hair, clothes, an eye or what is behind a person, enlarged to a crop, at any angle."""
    eyes, mouth = eyes_and_mouth(store.points[index])
    angle, reach = rng.uniform(0, 2 * np.pi), float(np.linalg.norm(mouth - eyes))
    near, far = (1.5, 2.2) if rng.random() < 0.5 else (0.0, 1.0)
    away = rng.uniform(near, far) * reach * np.array([np.cos(angle), np.sin(angle)])
    inside = store.inside[index]
    side = rng.uniform(0.3, 1.6) * reach
    centre = np.clip((eyes + mouth) / 2 + away, inside[:2] + side / 2, inside[2:] - side / 2)
    place = _placed(side / CROP_PX, rng.uniform(0, 360), np.full(2, CROP_PX / 2), centre)
    return cut(store.pixels[index], place, CROP_PX)


def _placed(scale: float, degrees: float, own: np.ndarray, shown: np.ndarray) -> Similarity:
    """The frame of this scale and turn that shows a point of the picture at a point of its own."""
    corner = shown - Similarity(scale, degrees, 0.0, 0.0).to_picture(own)
    return Similarity(scale, degrees, *corner.tolist())


def _no_face(
    crop: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    points = np.full((len(MIRRORED), 2), np.nan, np.float32)
    return as_shown(crop, rng), points, np.array([0.0, UNKNOWN, UNKNOWN], np.float32)


def _jittered(place: Similarity, rng: np.random.Generator, *, strange: bool) -> Similarity:
    """The place as a finder would give it, as the network itself would, or far off."""
    near = rng.random() < 0.4
    roll = rng.normal(0, 5.0) if near else rng.uniform(-40, 40)
    growth = np.exp(rng.normal(0, 0.07) if near else rng.uniform(-0.35, 0.35))
    shift = rng.normal(0, 0.03, 2) if near else rng.uniform(-0.13, 0.13, 2)
    if strange:
        kind = rng.integers(3)
        if kind == 0:
            roll = rng.uniform(100, 260)
        elif kind == 1:
            growth *= rng.choice([0.35, 2.8])
        else:
            angle = rng.uniform(0, 2 * np.pi)
            shift = rng.uniform(0.42, 0.7) * np.array([np.cos(angle), np.sin(angle)])
    middle = np.full(2, CROP_PX / 2)
    shown = place.to_picture(middle)
    return _placed(place.scale * growth, place.degrees + roll, middle + shift * CROP_PX, shown)


def _square_of(picture: np.ndarray, size_px: int, rng: np.random.Generator) -> np.ndarray:
    """A random part of a picture, at any angle."""
    side = len(picture)
    scale = np.exp(rng.uniform(np.log(0.35), np.log(1.0))) * side / size_px
    middle = np.full(2, size_px / 2)
    shown = rng.uniform(0, 1, 2) * (side - scale * size_px) + scale * middle
    place = _placed(scale, rng.choice([0.0, 90.0, 180.0, 270.0]), middle, shown)
    return cut(picture, place, size_px)


def draw_scenes(
    collection: Collection, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Random scenes with none to three faces of any size at any angle.

    Returns:
        Scenes ``(B, 3, S, S)`` in -1..1; heat ``(B, h, w)`` 0..1, 1 at the faces' places and
        ``UNKNOWN`` where not judged; ``(B, 5, h, w)`` the numbers that belong to the nearest face.
    """
    rows = [_draw_scene(collection, rng) for _ in range(count)]
    scenes, heat, shape = (np.stack(column) for column in zip(*rows, strict=True))
    return to_signed(scenes), torch.from_numpy(heat), torch.from_numpy(shape)


def _draw_scene(
    collection: Collection, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scene = _square_of(collection.pick_faceless(rng), SCENE_PX, rng).copy()
    cells = SCENE_PX // FINDER_STRIDE
    heat, shape = np.zeros((cells, cells), np.float32), np.zeros((5, cells, cells), np.float32)
    for _ in range(int(rng.choice(4, p=[0.12, 0.58, 0.2, 0.1]))):
        store, index = collection.pick(rng)
        low, high = FINDER_REACH_PX
        distance = np.exp(rng.uniform(np.log(0.6 * low), np.log(1.3 * high)))
        if rng.random() < 0.15:  # so large that only its parts look like something
            distance = np.exp(rng.uniform(np.log(1.6 * high), np.log(5 * high)))
        centre = rng.uniform(0.05, 0.95, 2) * SCENE_PX
        place = upright(store.points[index], eyes_to_mouth_px=distance, centre=centre)
        roll = rng.normal(0, 12) if rng.random() < 0.5 else rng.uniform(-180, 180)
        shown = place.to_picture(centre)
        place = _placed(place.scale, place.degrees + roll, centre, shown)
        _paste(scene, store, index, place, rng)
        known = place.to_frame(store.points[index])
        fate = rng.random()
        if fate < 0.12:
            other = collection.pick_faceless(rng)[:SCENE_PX, :SCENE_PX]
            gone = without_face(scene, known, other, rng)
            near = _near(known, 2.2)
            scene[near] = gone[near]
            heat[_cells_near(known, 1.5)] = 0.0
            continue
        if fate < 0.25:
            scene = cover_mouth(scene, known, scene[::-1, ::-1], rng)
        judged, large = 0.9 * low < distance < 1.1 * high, distance > 1.5 * high
        _mark(heat, shape, known, judged=judged, large=large)
    return as_shown(scene, rng), heat, shape


def _paste(
    scene: np.ndarray, store: PictureStore, index: int, place: Similarity, rng: np.random.Generator
) -> None:
    """The stored picture laid over the scene, in place; sometimes only its middle."""
    left, top, right, bottom = store.inside[index]
    corners = place.to_frame(np.array([[left, top], [right, top], [left, bottom], [right, bottom]]))
    first = np.clip(np.floor(corners.min(0)).astype(int), 0, len(scene) - 1)
    side = int(np.clip(np.ceil(corners.max(0)) - first, 1, len(scene) - first).max())
    corner = place.to_picture(first.astype(float))
    place = Similarity(place.scale, place.degrees, *corner.tolist())
    head = cut(store.pixels[index], place, side)
    axis = np.arange(side) + 0.5
    grid = place.to_picture(np.stack(np.meshgrid(axis, axis), -1))
    x, y = grid[..., 0], grid[..., 1]
    mask = (x > left + 2) & (x < right - 2) & (y > top + 2) & (y < bottom - 2)
    if rng.random() < 0.25:
        middle = np.mean(eyes_and_mouth(store.points[index]), axis=0)
        mask &= np.hypot(x - middle[0], (y - middle[1]) / 1.2) < rng.uniform(70, 120)
    under = scene[first[1] : first[1] + side, first[0] : first[0] + side]
    height, width = under.shape[:2]
    np.copyto(under, head[:height, :width], where=mask[:height, :width, None])


def _near(points: np.ndarray, reach: float, size_px: int = SCENE_PX) -> np.ndarray:
    """Pixels ``(S, S)`` bool within ``reach`` eye-to-mouth distances of a face's middle."""
    eyes, mouth = eyes_and_mouth(points)
    middle, distance = (eyes + mouth) / 2, np.linalg.norm(mouth - eyes)
    axis = np.arange(size_px) + 0.5
    return np.hypot(axis[None] - middle[0], axis[:, None] - middle[1]) < reach * distance


def _cells_near(points: np.ndarray, reach: float) -> np.ndarray:
    return _near(points / FINDER_STRIDE, reach, SCENE_PX // FINDER_STRIDE)


def _mark(
    heat: np.ndarray, shape: np.ndarray, points: np.ndarray, *, judged: bool, large: bool
) -> None:
    """Write a face into a scene's labels, in place; it hides the faces behind it.

    A face that is ``large`` beyond the finder's reach is none for it; others are not ``judged``.
    """
    eyes, mouth = eyes_and_mouth(points / FINDER_STRIDE)
    middle, down = (eyes + mouth) / 2, mouth - eyes
    distance = float(np.linalg.norm(down))
    axis = np.arange(len(heat)) + 0.5
    dx, dy = middle[0] - axis[None, :], middle[1] - axis[:, None]
    away = np.hypot(dx, dy)
    heat[away < 1.2 * distance] = 0.0 if judged or large else UNKNOWN
    if not judged:
        return
    peak = np.exp(-((away / max(0.3 * distance, 0.6)) ** 2) / 2)
    if 0 <= middle[0] < len(heat) and 0 <= middle[1] < len(heat):
        peak[int(middle[1]), int(middle[0])] = 1.0
    ahead = peak > np.maximum(heat, 0.05)
    heat[ahead] = peak[ahead]
    values = (dx, dy, np.log(distance), down[1] / distance, -down[0] / distance)
    for channel, value in zip(shape, values, strict=True):
        np.copyto(channel, value, where=ahead, casting="same_kind")
