"""Pictures out: PNG files of frames and of contact sheets."""

from pathlib import Path

import numpy as np


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write ``(H, W, 3)`` uint8 RGB as PNG, without loss, making the folder if need be."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG", optimize=True)


def picture_bytes(pixels: np.ndarray, *, quality: int | None = None) -> bytes:
    """``(H, W, 3)`` uint8 RGB as a PNG, or as a JPEG of the given quality (1..95)."""
    import io

    from PIL import Image

    file = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if quality is None:
        picture.save(file, format="PNG")
    else:
        # 4:4:4 keeps the colour edges of small lips.
        picture.save(file, format="JPEG", quality=quality, subsampling=0, optimize=True)
    return file.getvalue()


def resized(pixels: np.ndarray, *, height_px: int) -> np.ndarray:
    """A picture ``(h, w, 3)`` uint8 with antialiasing at another height, its aspect kept."""
    from PIL import Image

    height, width = pixels.shape[:2]
    if height == height_px:
        return pixels
    size = (max(1, round(width * height_px / height)), height_px)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(picture.resize(size, Image.Resampling.LANCZOS))


def tile(rows: list[list[np.ndarray]], *, gap_px: int = 2) -> np.ndarray:
    """One picture ``(H, W, 3)`` uint8 of rows of equally tall pictures, white between them.

    Args:
        rows: Pictures ``(h, w, 3)`` uint8; heights may differ between rows, widths anywhere.
        gap_px: White pixels around every picture.

    Raises:
        ValueError: If there is no picture.
    """
    if not rows or not all(rows):
        raise ValueError("a sheet needs at least one picture in every row")
    width = max(sum(part.shape[1] + gap_px for part in row) for row in rows) + gap_px
    height = sum(max(part.shape[0] for part in row) + gap_px for row in rows) + gap_px
    sheet = np.full((height, width, 3), 255, np.uint8)
    top = gap_px
    for row in rows:
        left = gap_px
        for part in row:
            sheet[top : top + part.shape[0], left : left + part.shape[1]] = part
            left += part.shape[1] + gap_px
        top += max(part.shape[0] for part in row) + gap_px
    return sheet


def enlarge(pixels: np.ndarray, factor: int) -> np.ndarray:
    """A picture ``(h, w, 3)`` with every pixel repeated ``factor`` times both ways."""
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
