"""Textures of an ICT head: a MakeHuman skin carried over, then lips, brows, stubble and scalp."""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.studio.heads.ict_atlas import Tile
from joyflash_cli.studio.heads.painter import smoothstep

INSIDE = np.array([112, 46, 46], np.float32)
"""The mouth's lining, display RGB."""
EYE_PX = 128
LASH_PX = (64, 128)


@dataclass(frozen=True)
class Paint:
    """Colours of one face, display RGB 0..255, and amounts 0..1.

    Attributes:
        hair: Of brows, stubble and a shaved scalp.
        lip_tint: Factor on the skin's mean colour.
        lip_amount: How much of the lips' paint covers the skin's own lips.
        brow_amount: Density of the brows.
        stubble: Density of the beard's shadow.
        scalp: Density of short hair on the scalp: 0 bald .. 1.
        hairline: Shift of the hairline in decimetres, positive for a receding one.
        freckles: Density of freckles.
    """

    hair: np.ndarray
    lip_tint: np.ndarray
    lip_amount: float
    brow_amount: float
    stubble: float
    scalp: float
    hairline: float
    freckles: float


def paint_skin(tile: Tile, skin: np.ndarray, paint: Paint, rng: np.random.Generator) -> np.ndarray:
    """Texture of one tile.

    Args:
        tile: What lies where.
        skin: ``(height, width, 4)`` uint8 MakeHuman skin.
        paint: Colours.
        rng: Draws pores and hairs.

    Returns:
        ``(side, side, 4)`` uint8, opaque.
    """
    colour = sample_texture(skin, tile.skin_uv)
    fine = _grain(rng, tile, (0.8, 0.8)) * 0.6 + _grain(rng, tile, (2.5, 2.5))
    colour = colour * (1 + 0.014 * fine[..., None])
    spots = smoothstep(_grain(rng, tile, (1.6, 1.6)), 2.0 - 0.5 * paint.freckles, 2.8)
    amount = 0.5 * paint.freckles * spots * (0.25 + tile.blush)
    colour = _blend(colour, colour * np.array([0.72, 0.58, 0.5]), amount)
    colour = colour * (1 - 0.1 * tile.blush[..., None] * np.array([0.0, 0.5, 0.45]))
    colour = _paint_lips(colour, tile, paint, fine)
    strands = 0.85 + 0.15 * _grain(rng, tile, (0.6, 1.2))
    colour = _blend(colour, paint.hair * 0.8, paint.brow_amount * tile.brows * strands)
    speckle = 0.7 + 0.3 * _grain(rng, tile, (0.9, 0.9))
    shadow = 0.55 * paint.hair + 0.45 * colour * np.array([0.72, 0.76, 0.82])
    colour = _blend(colour, shadow, paint.stubble * tile.beard * speckle)
    # Short hair ends in single hairs, not in a line.
    edge = tile.scalp - paint.hairline + 0.035 * _grain(rng, tile, (1.2, 1.2))
    cover = smoothstep(edge, -0.05, 0.09) * (0.9 + 0.12 * _grain(rng, tile, (2.2, 0.9)))
    colour = _blend(colour, paint.hair * (0.9 + 0.12 * fine[..., None]), paint.scalp * cover)
    colour = _blend(colour, INSIDE * (1 + 0.05 * fine[..., None]), tile.inside)
    return _opaque(colour)


def paint_eye(iris: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Eyeball seen from the front, iris in the middle, ``(EYE_PX, EYE_PX, 4)`` uint8.

    The picture spans the eyeball's width; its upper part is darker: the lid's shadow.
    """
    y, x = np.mgrid[0:EYE_PX, 0:EYE_PX] / (EYE_PX - 1) * 2 - 1
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    rim = smoothstep(np.abs(x), 0.35, 0.8)[..., None]
    white = np.array([226, 219, 213]) - 26 * rim * (0.3, 1, 1)
    iris_radius = 0.385
    streaks = sum(
        rng.uniform(0.3, 1) * np.sin(rng.integers(7, 40) * angle + rng.uniform(0, 6.28))
        for _ in range(6)
    )
    inner = radius / iris_radius
    tone = 0.9 + 0.1 * streaks + 0.35 * smoothstep(inner, 0.75, 0.45)
    tone = tone * (1 - 0.6 * smoothstep(inner, 0.78, 1.0))
    colour = _blend(white, iris * tone[..., None], smoothstep(inner, 1.05, 0.95))
    colour = _blend(colour, np.full(3, 9.0), smoothstep(inner, 0.46, 0.38))
    shade = 1 - 0.5 * smoothstep(y, -0.12, -0.5)
    return _opaque(colour * shade[..., None])


def paint_lashes(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lashes: u along the lid, v from the root (0) to the tip (1)."""
    height, width = LASH_PX
    v = 1 - (np.arange(height)[:, None] + 0.5) / height
    u = (np.arange(width)[None] + 0.5) / width
    phase = rng.uniform(0, 6.28)
    strands = 0.6 + 0.4 * np.sin(u * 2 * np.pi * 30 + phase + 0.8 * v)
    alpha = np.where(v < 0.2, 0.75, strands * (0.7 - 0.7 * v))
    picture = np.empty((height, width, 4), np.float32)
    picture[..., :3], picture[..., 3] = colour, 255 * alpha
    return picture.astype(np.uint8)


def solid(colour: tuple[float, float, float]) -> np.ndarray:
    """A texture of one colour."""
    return np.full((2, 2, 4), (*colour, 255), np.uint8)


def sample_texture(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear RGB float32 ``(..., 3)`` of a texture at ``uv (..., 2)``, v upwards."""
    height, width = texture.shape[:2]
    x = np.clip(uv[..., 0] * width - 0.5, 0, width - 1)
    y = np.clip((1 - uv[..., 1]) * height - 0.5, 0, height - 1)
    column, row = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    dx, dy = (x - column)[..., None], (y - row)[..., None]
    rgb = texture[..., :3].astype(np.float32)
    upper = rgb[row, column] * (1 - dx) + rgb[row, column + 1] * dx
    lower = rgb[row + 1, column] * (1 - dx) + rgb[row + 1, column + 1] * dx
    return upper * (1 - dy) + lower * dy


def _paint_lips(colour: np.ndarray, tile: Tile, paint: Paint, fine: np.ndarray) -> np.ndarray:
    cheek = (tile.blush > 0.3) & (tile.lips < 0.01) & (tile.place[..., 2] > 1.0)
    base = colour[cheek].mean(0) if cheek.any() else colour.mean((0, 1))
    red = base * paint.lip_tint * (1 + 0.02 * fine[..., None])
    # A fuller lower lip catches more light.
    red = red * (1 + 0.06 * smoothstep(tile.place[..., 1], 6.6, 6.52))[..., None]
    return _blend(colour, red, paint.lip_amount * tile.lips)


def _grain(rng: np.random.Generator, tile: Tile, sigma: tuple[float, float]) -> np.ndarray:
    """Smooth noise of unit variance, ``sigma`` in texels (rows, columns)."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal(tile.lips.shape, np.float32), sigma, mode="wrap")
    return noise / noise.std()


def _blend(under: np.ndarray, over: np.ndarray, amount: np.ndarray) -> np.ndarray:
    amount = np.clip(amount, 0, 1)[..., None]
    return under * (1 - amount) + over * amount


def _opaque(colour: np.ndarray) -> np.ndarray:
    picture = np.full((*colour.shape[:2], 4), 255, np.uint8)
    picture[..., :3] = np.clip(colour + 0.5, 0, 255)
    return picture
