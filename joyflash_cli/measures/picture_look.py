"""How clear and how noisy a picture is, by its pixels alone."""

from typing import TYPE_CHECKING

import numpy as np

from joyflash_cli.measures.quality import luma, sharpness

if TYPE_CHECKING:
    from torch import Tensor

FACE_PX = 224


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
