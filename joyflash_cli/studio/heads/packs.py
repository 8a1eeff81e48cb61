"""Files of head packs: arrays, and texture pictures as RGBA, reduced for small renderings."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np

from joyflash_cli.errors import DataError

Pack = TypeVar("Pack")


def read_pack(
    path: Path,
    unpack: Callable[[np.lib.npyio.NpzFile], Pack],
    *,
    kind: str,
    folder: Path | None = None,
) -> Pack:
    """What ``unpack`` makes of a pack's arrays.

    Args:
        path: The pack.
        unpack: Raises ``KeyError`` or ``ValueError`` where it is another kind of pack.
        kind: For the message.
        folder: Of textures that belong to it.

    Raises:
        DataError: The file or the folder is missing, or it is not of this kind.
    """
    needed = path.name if folder is None else f"{path.name} and {folder.name}/"
    hint = f"point --assets at the folder that holds {needed}"
    if not path.is_file():
        raise DataError(f"The head pack {path} does not exist", hint=hint)
    if folder is not None and not folder.is_dir():
        raise DataError(f"The texture folder {folder} does not exist", hint=hint)
    try:
        with np.load(path) as pack:
            return unpack(pack)
    except (KeyError, ValueError, OSError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} is not {kind} head pack: {error}", hint=hint) from error


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
        height, width = texels.shape[0] // 2, texels.shape[1] // 2
        cells = texels[: 2 * height, : 2 * width].astype(np.float32)
        cells = cells.reshape(height, 2, width, 2, 4)
        alpha, weight = cells[..., 3:].mean((1, 3)), cells[..., 3:] + 1e-3
        colour = (cells[..., :3] * weight).sum((1, 3)) / weight.sum((1, 3))
        texels = np.concatenate([colour, alpha], -1).round().astype(np.uint8)
    return texels
