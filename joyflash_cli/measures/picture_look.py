"""How clear and how noisy a picture is, by its pixels alone, and the face cut out of it."""

from typing import TYPE_CHECKING

import numpy as np

from joyflash_cli.measures.quality import luma, sharpness
from joyflash_cli.media.inputs.face_points import OUTLINE
from joyflash_cli.media.inputs.faces import find_faces

if TYPE_CHECKING:
    from torch import Tensor

FACE_PX = 224
FACE_MARGIN = 1.3
"""A face crop's side over the longer side of the outline of the face."""


def face_crop(frame: np.ndarray) -> np.ndarray | None:
    """The square around the largest face of a frame ``(H, W, 3)``; ``None`` without a face."""
    faces = find_faces(frame)
    if not faces:
        return None
    outline = faces[0].points[OUTLINE]
    low, high = outline.min(0), outline.max(0)
    half = FACE_MARGIN * float((high - low).max()) / 2
    x, y = ((low + high) / 2).tolist()
    height, width = frame.shape[:2]
    rows = slice(max(0, round(y - half)), min(height, round(y + half)))
    columns = slice(max(0, round(x - half)), min(width, round(x + half)))
    return frame[rows, columns]


def clarity(face: np.ndarray) -> float:
    """Mean gradient over the spread of the luma, of a face ``(H, W, 3)`` uint8 at 224 pixels.

    The size makes faces of different videos comparable, the spread those of different contrast.
    """
    pixels = resized(face, (FACE_PX, FACE_PX)).byte().permute(1, 2, 0).numpy()
    return float(sharpness(pixels[None])[0]) * 255 / max(float(luma(pixels).std()), 1.0)


def resized(picture: np.ndarray, size: tuple[int, int]) -> "Tensor":
    """The picture ``(3, *size)`` float in 0..255, bicubic and antialiased, in whole levels."""
    import torch
    from torch.nn import functional

    pixels = torch.tensor(picture).permute(2, 0, 1)[None].float()
    made = functional.interpolate(pixels, size, mode="bicubic", antialias=True)
    return made[0].round().clamp(0, 255)


def noise_levels(picture: np.ndarray) -> float:
    """Standard deviation of the noise of a picture ``(H, W, 3)`` uint8, in levels of 255.

    J. Immerkaer, Fast noise variance estimation, 1996: the difference of two Laplacians, which
    straight edges do not pass.
    """
    light = luma(picture)
    if min(light.shape) < 3:
        return 0.0
    down = light[:-2] - 2 * light[1:-1] + light[2:]
    both = down[:, :-2] - 2 * down[:, 1:-1] + down[:, 2:]
    return float(np.sqrt(np.pi / 2) * np.abs(both).mean() / 6)
