"""Pictures through JPEG in memory: the traces that nearly every photo on disk carries."""

import io

import numpy as np


def jpeg_round_trip(
    picture: np.ndarray, *, quality: int, subsample_colour: bool = True
) -> np.ndarray:
    """Encodes a picture as JPEG and decodes it again.

    Args:
        picture: ``(height, width, 3)`` uint8 RGB.
        quality: 1 coarse .. 95 fine.
        subsample_colour: Store colour at half the resolution (4:2:0), as cameras do.

    Returns:
        ``(height, width, 3)`` uint8 RGB.
    """
    from PIL import Image

    stored = io.BytesIO()
    Image.fromarray(picture).save(
        stored, "JPEG", quality=quality, subsampling=2 if subsample_colour else 0
    )
    with Image.open(stored) as decoded:
        return np.asarray(decoded.convert("RGB"))
