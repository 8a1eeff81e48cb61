"""Makes rendered clips look as if a camera had taken them.

The look of a clip (light, colour cast, lens, compression) is drawn once and stays; only the
sensor's noise is new in every frame.
"""

import io
from dataclasses import dataclass

import numpy as np

DISPLAY_GAMMA = 2.2


@dataclass(frozen=True)
class PhotoLook:
    """What a camera, its light and its file format do to a clip.

    Attributes:
        exposure: Factor on linear light.
        white_balance: ``(3,)`` factors on linear red, green, blue.
        gradient: Direction (x, y) and strength of light that falls off across the picture.
        vignette: Darkening of the corners, 0..1.
        contrast: Steepness of the tone curve around middle grey; 1 changes nothing.
        black: Lifted (positive) or crushed (negative) shadows, -0.1..0.1 of display white.
        saturation: 0 grey .. 1 unchanged .. more.
        blur_px: Standard deviation of the lens blur at 128 pixels.
        sharpening: Amount of the camera's unsharp mask.
        noise: Standard deviation of the noise in middle grey, of display white.
        colour_noise: The same for colour; cameras smear it over neighbours.
        resolution: Size of the stored picture relative to the shown one, at most 1.
        jpeg_quality: 1..95, or ``None`` for no compression.
    """

    exposure: float = 1.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gradient: tuple[float, float] = (0.0, 0.0)
    vignette: float = 0.0
    contrast: float = 1.0
    black: float = 0.0
    saturation: float = 1.0
    blur_px: float = 0.0
    sharpening: float = 0.0
    noise: float = 0.0
    colour_noise: float = 0.0
    resolution: float = 1.0
    jpeg_quality: int | None = None


def sample_photo_look(rng: np.random.Generator) -> PhotoLook:
    """Draws a look: from a good camera in daylight to a small file of a dim room."""
    warmth = rng.normal(0, 0.11)
    tint = rng.normal(0, 0.035)
    angle, fall = rng.uniform(0, 2 * np.pi), abs(rng.normal(0, 0.35))
    monochrome = rng.random() < 0.04
    poor = rng.beta(1.2, 2.5)
    return PhotoLook(
        exposure=float(np.exp(rng.normal(0, 0.22))),
        white_balance=(float(np.exp(warmth)), float(np.exp(tint)), float(np.exp(-warmth))),
        gradient=(float(np.cos(angle) * fall), float(np.sin(angle) * fall)),
        vignette=float(rng.beta(1.2, 4)),
        contrast=float(np.exp(rng.normal(0.05, 0.18))),
        black=float(rng.normal(0.0, 0.025)),
        saturation=0.0 if monochrome else float(np.exp(rng.normal(-0.15, 0.2))),
        blur_px=float(rng.uniform(0, 0.35) + 0.5 * poor * rng.random()),
        sharpening=float(rng.uniform(0, 0.8) if rng.random() < 0.5 else 0.0),
        noise=float(0.003 + 0.022 * poor * rng.random()),
        colour_noise=float(0.002 + 0.014 * poor * rng.random()),
        resolution=float(rng.uniform(0.6, 1.0)) if rng.random() < 0.25 else 1.0,
        jpeg_quality=None if rng.random() < 0.15 else int(rng.uniform(92 - 45 * poor, 95)),
    )


def apply_photo_look(frames: np.ndarray, look: PhotoLook, rng: np.random.Generator) -> np.ndarray:
    """Takes a clip with a camera.

    Args:
        frames: ``(F, S, S, 3)`` uint8.
        look: The same for all frames.
        rng: Draws the noise.

    Returns:
        ``(F, S, S, 3)`` uint8, a new array.
    """
    light = _light(frames.shape[1], look)
    # Everything up to the sensor is one function of the value and the place.
    return np.stack([_take(frame, look, light, rng) for frame in frames])


def _light(size_px: int, look: PhotoLook) -> np.ndarray:
    """Factor ``(S, S, 3)`` on linear light of every pixel."""
    axis = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px * 2 - 1
    x, y = axis[None, :], axis[:, None]
    falling = np.exp(look.gradient[0] * x + look.gradient[1] * y)
    corners = 1 - 0.45 * look.vignette * np.clip((x * x + y * y) / 2, 0, 1) ** 1.5
    colour = np.asarray(look.white_balance, np.float32) * look.exposure
    return (falling * corners)[..., None].astype(np.float32) * colour


def _take(
    frame: np.ndarray, look: PhotoLook, light: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    size_px = frame.shape[0]
    linear = (frame.astype(np.float32) / 255) ** DISPLAY_GAMMA * light
    linear = _blurred(linear, look.blur_px * size_px / 128)
    # A soft shoulder keeps bright skin from clipping flat.
    linear = np.where(linear > 0.8, 0.8 + 0.2 * np.tanh((linear - 0.8) / 0.2), linear)
    shown = np.maximum(linear, 0) ** (1 / DISPLAY_GAMMA)
    grey = shown @ np.array([0.299, 0.587, 0.114], np.float32)
    shown = grey[..., None] + look.saturation * (shown - grey[..., None])
    shown = 0.5 + (shown - 0.5) * look.contrast
    shown = look.black + (1 - look.black) * shown
    shown += _noise(shown, look, rng)
    if look.sharpening:
        shown += look.sharpening * (shown - _blurred(shown, 0.8 * size_px / 128))
    if look.resolution < 1:
        shown = _through_small(shown, look.resolution)
    picture = (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)
    if look.jpeg_quality is None:
        return picture
    return jpeg_round_trip(picture, quality=look.jpeg_quality)


def _noise(shown: np.ndarray, look: PhotoLook, rng: np.random.Generator) -> np.ndarray:
    """Sensor noise: stronger in the shadows once the tone curve has lifted them."""
    from scipy.ndimage import gaussian_filter

    shape = shown.shape
    level = 1.3 - 0.6 * np.clip(shown.mean(-1, keepdims=True), 0, 1)
    luma = rng.standard_normal((*shape[:2], 1), np.float32)
    chroma = gaussian_filter(rng.standard_normal(shape, np.float32), (1.0, 1.0, 0)) * 3.5
    return level * (look.noise * luma + look.colour_noise * chroma)


def _blurred(picture: np.ndarray, sigma_px: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    if sigma_px < 0.15:
        return picture
    return gaussian_filter(picture, (sigma_px, sigma_px, 0), mode="nearest")


def _through_small(picture: np.ndarray, resolution: float) -> np.ndarray:
    """Down to the stored size and back, as a small file shown large."""
    from scipy.ndimage import zoom

    size_px = picture.shape[0]
    small = zoom(picture, (resolution, resolution, 1), order=1, grid_mode=True, mode="nearest")
    scale = size_px / small.shape[0]
    return zoom(small, (scale, scale, 1), order=1, grid_mode=True, mode="nearest")


def jpeg_round_trip(picture: np.ndarray, *, quality: int) -> np.ndarray:
    """A picture ``(H, W, 3)`` uint8 as JPEG of quality 1..95, colour at half the resolution."""
    from PIL import Image

    stored = io.BytesIO()
    Image.fromarray(picture).save(stored, "JPEG", quality=quality, subsampling=2)
    with Image.open(stored) as decoded:
        return np.asarray(decoded.convert("RGB"))
