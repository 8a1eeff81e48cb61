"""What happens to faces before the networks see them: covers, erasures, cameras of all kinds."""

import numpy as np

from joyflash_cli.media.inputs.face_points import LIPS_OUTER, NOSE_TIP, OUTLINE
from joyflash_cli.media.inputs.similarity import Similarity, cut
from joyflash_cli.studio.clips.photo_look import jpeg_round_trip
from joyflash_cli.studio.training.points_pictures import eyes_and_mouth

_LOWER_FACE = OUTLINE[9:28]
"""The outline from cheek to cheek below the eyes."""


def polygon_mask(corners: np.ndarray, size_px: int) -> np.ndarray:
    """Coverage ``(S, S)`` bool of a closed polygon ``(n, 2)``, by crossing numbers."""
    y = np.arange(size_px) + 0.5
    inside = np.zeros((size_px, size_px), bool)
    starts, ends = corners, np.roll(corners, -1, 0)
    for (x0, y0), (x1, y1) in zip(starts, ends, strict=True):
        rows = np.flatnonzero((y0 > y) != (y1 > y))
        if len(rows):
            crossing = (x1 - x0) * (y[rows] - y0) / (y1 - y0) + x0
            inside[rows] ^= y[None, :] < crossing[:, None]
    return inside


def ellipse_mask(centre: np.ndarray, radii: np.ndarray, degrees: float, size_px: int) -> np.ndarray:
    """Coverage ``(S, S)`` bool of an ellipse."""
    axis = np.arange(size_px) + 0.5
    dx, dy = axis[None] - centre[0], axis[:, None] - centre[1]
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    across, along = dx * cosine + dy * sine, dy * cosine - dx * sine
    return (across / radii[0]) ** 2 + (along / radii[1]) ** 2 < 1


def cover_mouth(
    crop: np.ndarray, points: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A crop whose mouth is hidden: by a mask, a hand, a scarf, a microphone, a bar.

    Args:
        crop: ``(S, S, 3)`` uint8.
        points: ``(P, 2)`` in its pixels.
        other: Another picture ``(S, S, 3)``, the stuff of the cover.
        rng: Draws the kind.
    """
    size = len(crop)
    eyes, mouth = eyes_and_mouth(points)
    down = mouth - eyes
    across = np.array([down[1], -down[0]])
    lips = _known_lips(points)
    kind = rng.random()
    if kind < 0.4 and np.isfinite(points[OUTLINE]).all():
        lower = points[_LOWER_FACE]
        middle = lower.mean(0)
        top = points[NOSE_TIP] - down * rng.uniform(-0.15, 0.35)
        corners = np.concatenate([middle + (lower - middle) * rng.uniform(0.95, 1.2), top[None]])
        mask = polygon_mask(corners, size)
    elif kind < 0.75:
        spread = np.abs(lips - mouth).max(0) + 2
        radii = spread.max() * rng.uniform(1.0, 1.9, 2) * [1.0, 0.85]
        mask = ellipse_mask(lips.mean(0), radii, rng.uniform(-40, 40), size)
    else:
        half, reach = rng.uniform(0.3, 0.6), rng.uniform(0.6, 2.5)
        shift = lips.mean(0) + across * rng.uniform(-0.3, 0.3) * (reach > 1)
        sides = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
        corners = np.array([shift + x * reach * across + y * half * down for x, y in sides])
        mask = polygon_mask(corners, size)
    return np.where(mask[..., None], _stuff(crop, other, points, rng), crop)


def _known_lips(points: np.ndarray) -> np.ndarray:
    lips = points[LIPS_OUTER]
    return lips[np.isfinite(lips).all(1)]


def _stuff(
    crop: np.ndarray, other: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """What covers are made of: cloth of one colour, skin, or any picture."""
    size = len(crop)
    kind = rng.random()
    if kind < 0.3:
        return other
    colour = rng.integers(0, 256, 3).astype(float)
    if kind < 0.5:
        colour[:] = rng.choice([15, 40, 210, 240])
    elif kind < 0.8:
        eyes, mouth = eyes_and_mouth(points)
        spot = np.clip(eyes + 0.45 * (mouth - eyes) + rng.uniform(-12, 12, 2), 0, size - 1)
        colour = crop[int(spot[1]), int(spot[0])] * rng.uniform(0.75, 1.2)
    axis = np.linspace(-1, 1, size)
    light = 1 + rng.uniform(-0.3, 0.3) * axis[None] + rng.uniform(-0.3, 0.3) * axis[:, None]
    folds = rng.uniform(0, 0.12) * np.sin(rng.uniform(5, 30) * axis + rng.uniform(0, 6))[:, None]
    stuff = colour * (light + folds)[..., None] + rng.normal(0, rng.uniform(0, 8), (size, size, 1))
    return np.clip(stuff, 0, 255).astype(np.uint8)


def hide_some(
    crop: np.ndarray, other: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """A crop with something small before it, and the share of the mouth that it hides."""
    size = len(crop)
    centre, radii = rng.uniform(0.1, 0.9, 2) * size, rng.uniform(0.04, 0.2, 2) * size
    mask = ellipse_mask(centre, radii, rng.uniform(0, 180), size)
    lips = np.clip(_known_lips(points), 0, size - 1).astype(int)
    hidden = float(mask[lips[:, 1], lips[:, 0]].mean())
    return np.where(mask[..., None], _stuff(crop, other, points, rng), crop), hidden


def without_face(
    crop: np.ndarray, points: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A crop whose face is gone: scrambled, painted over, or turned upside down within the head."""
    size = len(crop)
    eyes, mouth = eyes_and_mouth(points)
    reach = float(np.linalg.norm(mouth - eyes))
    kind = rng.random()
    if kind < 0.4:
        parts = int(rng.integers(3, 6))
        step = size // parts
        tiles = [
            crop[r * step : (r + 1) * step, c * step : (c + 1) * step]
            for r in range(parts)
            for c in range(parts)
        ]
        tiles = [tiles[i] for i in rng.permutation(len(tiles))]
        rows = [np.concatenate(tiles[r * parts : (r + 1) * parts], 1) for r in range(parts)]
        whole = np.concatenate(rows)
        return np.pad(whole, ((0, size - len(whole)), (0, size - len(whole)), (0, 0)), "edge")
    middle = (eyes + mouth) / 2
    mask = ellipse_mask(middle, reach * rng.uniform(0.8, 1.3, 2), rng.uniform(-20, 20), size)
    if kind < 0.8:
        return np.where(mask[..., None], _stuff(crop, other, points, rng), crop)
    turned = crop[::-1] if rng.random() < 0.5 else np.roll(crop, int(reach), rng.integers(0, 2))
    shifted = np.roll(turned, int(2 * (middle[1] - size / 2)), 0)
    return np.where(mask[..., None], shifted, crop)


def as_shown(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop ``(S, S, 3)`` uint8 as another camera, painter, printer or small file shows it."""
    return _stored(_taken(crop, rng), rng)


def _taken(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other light, colours, contrast, noise and tone curve."""
    saturation = rng.uniform(0, 0.1) if rng.random() < 0.25 else rng.uniform(0.4, 1.5)
    mixed = saturation * np.eye(3) + (1 - saturation) * np.array([0.3, 0.59, 0.11])
    mixed = np.diag(rng.uniform(0.8, 1.2, 3)) @ mixed * rng.uniform(0.5, 1.4)
    shown = crop.reshape(-1, 3).astype(np.float32) @ mixed.T.astype(np.float32)
    shown += np.float32(rng.uniform(100, 145) - shown.mean() * rng.uniform(0.7, 1.0))
    if rng.random() < 0.5:
        channels = 1 if rng.random() < 0.5 else 3
        noise = rng.standard_normal((len(shown), channels), np.float32)
        shown += np.float32(np.exp(rng.uniform(np.log(1), np.log(20)))) * noise
    tone = (np.arange(256) / 255) ** np.exp(rng.uniform(-0.5, 0.5)) * 255
    return tone.astype(np.uint8)[np.clip(shown, 0, 255).astype(np.uint8)].reshape(crop.shape)


def _stored(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through a small or soft file: fewer pixels, JPEG."""
    size = len(crop)
    if rng.random() < 0.4:
        small = max(int(size / np.exp(rng.uniform(np.log(1.1), np.log(4.5)))), 8)
        crop = cut(crop, Similarity(size / small, 0.0, 0.0, 0.0), small)
        crop = cut(crop, Similarity(small / size, 0.0, 0.0, 0.0), size)
    if rng.random() < 0.2:
        crop = jpeg_round_trip(crop, quality=int(rng.integers(15, 80)))
    return crop
