"""Texture pictures as RGBA arrays, optionally reduced for small renderings."""

from pathlib import Path

import numpy as np

from joyflash_cli.errors import DataError


def read_texture(path: Path, *, longest_side_px: int | None = None) -> np.ndarray:
    """Reads a picture as RGBA and reduces it by whole factors until it fits.

    Args:
        path: PNG or another format the picture library knows.
        longest_side_px: Reduce by averaging until no side is longer; ``None`` keeps the size.

    Returns:
        ``(height, width, 4)`` uint8; colour is averaged weighted by alpha, so that transparent
        texels do not bleed into the visible ones.

    Raises:
        DataError: The file is missing or no readable picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            texels = np.asarray(picture.convert("RGBA"))
    except FileNotFoundError as error:
        message = f"The texture {path} does not exist"
        raise DataError(message, hint="point --assets at the unpacked head assets") from error
    except OSError as error:
        message = f"The texture {path} cannot be read: {error}"
        raise DataError(message, hint="unpack the head assets again") from error
    while longest_side_px is not None and max(texels.shape[:2]) > longest_side_px:
        texels = _halve(texels)
    return texels


def _halve(texels: np.ndarray) -> np.ndarray:
    height, width = texels.shape[0] // 2 * 2, texels.shape[1] // 2 * 2
    blocks = texels[:height, :width].astype(np.float32)
    blocks = blocks.reshape(height // 2, 2, width // 2, 2, 4)
    alpha = blocks[..., 3:]
    weight = alpha + 1e-3
    colour = (blocks[..., :3] * weight).sum((1, 3)) / weight.sum((1, 3))
    return np.concatenate([colour, alpha.mean((1, 3))], -1).round().astype(np.uint8)
