"""Picture quality of a stream: likeness to a known picture, sharpness, colour, flicker, speckle."""

import numpy as np

FIRST_BLOCK_FRAMES = 9
BLOCK_FRAMES = 12
LATENT_FRAMES = 4
"""Blocks decode to 9, 12, 12, ... frames and latent frames to 1, 4, 4, ... (codec/protocol.py)."""

Box = tuple[int, int, int, int]
"""``(x0, y0, x1, y1)`` in pixels."""


def psnr_db(first: np.ndarray, second: np.ndarray, *, box: Box | None = None) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures or clips ``(..., H, W, 3)``.

    Equal pictures give 99 dB instead of infinity, so that the figure stays valid JSON.

    Args:
        first: Picture or clip.
        second: Picture or clip of the same shape.
        box: Region to compare, the whole picture if ``None``.
    """
    if box is not None:
        first, second = crop(first, box), crop(second, box)
    error = float(np.mean((first.astype(np.float32) - second.astype(np.float32)) ** 2))
    return min(99.0, 10.0 * float(np.log10(255.0**2 / max(error, 1e-9))))


def crop(frames: np.ndarray, box: Box) -> np.ndarray:
    """The pixels of ``frames (..., H, W, 3)`` inside the box."""
    x0, y0, x1, y1 = (int(edge) for edge in box)
    return frames[..., max(0, y0) : y1, max(0, x0) : x1, :]


def luma(pixels: np.ndarray) -> np.ndarray:
    """Luma (ITU-R BT.601) of RGB pixels ``(..., 3)`` in 0..255, ``(...)`` float32."""
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def sharpness(frames: np.ndarray, *, box: Box | None = None) -> np.ndarray:
    """Mean gradient magnitude of the luma of each frame in 0..1 units per pixel, ``(F,)``.

    Args:
        frames: ``(F, H, W, 3)`` uint8.
        box: The face; the whole picture if ``None``.
    """
    region = frames if box is None else crop(frames, box)
    light = luma(region) / np.float32(255.0)
    down = np.diff(light, axis=1)[:, :, :-1]
    right = np.diff(light, axis=2)[:, :-1, :]
    return np.sqrt(down**2 + right**2).mean((1, 2))


def mean_colour(frames: np.ndarray) -> np.ndarray:
    """Mean colour of each frame in 0..255, ``(F, 3)``."""
    return frames.reshape(len(frames), -1, 3).mean(1, dtype=np.float64)


def rgb_to_lab(colour: np.ndarray) -> np.ndarray:
    """Colours ``(n, 3)`` of sRGB in 0..255 as CIE 1976 L*a*b* for the D65 white (IEC 61966-2-1)."""
    encoded = colour / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    relative = (linear @ to_xyz.T) / to_xyz.sum(1)
    root = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative * 841 / 108 + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def frame_changes(frames: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame to the one before in 0..255, ``(F - 1,)``."""
    return np.array(
        [
            np.abs(after.astype(np.int16) - before.astype(np.int16)).mean()
            for before, after in zip(frames[:-1], frames[1:], strict=True)
        ]
    )


def border_positions(num_frames: int) -> np.ndarray:
    """Indices of the first frame of every block but the first: 9, 21, 33, ..."""
    return np.arange(FIRST_BLOCK_FRAMES, num_frames, BLOCK_FRAMES)


def border_flicker(changes: list[np.ndarray]) -> dict[str, float | None]:
    """How much more frames change across block borders than inside blocks.

    Args:
        changes: ``frame_changes`` of each clip; pooled, so that short clips may be given too.

    Returns:
        ``all``: mean change at borders over the mean of all other changes. ``latent_steps``: over
        the changes at the other latent-frame steps only, which is what a border is also, so that a
        codec's own four-frame rhythm does not count as block flicker. ``local``: over the four
        changes before and after each border, so that calm and lively moments count alike.
        ``None`` without movement.
    """
    at_border, inside, at_latent_step, near, near_border = [], [], [], [], []
    for values in changes:
        frame = np.arange(1, len(values) + 1)
        border = (frame >= FIRST_BLOCK_FRAMES) & ((frame - FIRST_BLOCK_FRAMES) % BLOCK_FRAMES == 0)
        at_border.append(values[border])
        inside.append(values[~border])
        at_latent_step.append(values[~border & (frame % LATENT_FRAMES == 1)])
        for index in np.flatnonzero(border):
            around = np.r_[values[index - 4 : index], values[index + 1 : index + 5]]
            if len(around) == 8:
                near.append(around)
                near_border.append(values[index : index + 1])
    border_mean = _mean(at_border)
    return {
        "all": _ratio(border_mean, _mean(inside)),
        "latent_steps": _ratio(border_mean, _mean(at_latent_step)),
        "local": _ratio(_mean(near_border), _mean(near)),
    }


def speckle(frames: np.ndarray, still: np.ndarray) -> float | None:
    """High-frequency noise in a background that should stand still, in 0..255.

    The mean over still pixels of the temporal standard deviation that is left after removing what
    is smooth in space (a 3 x 3 mean): flicker from frame to frame of single pixels.

    Args:
        frames: ``(F, H, W, 3)`` uint8.
        still: Where the truth does not move, ``(H, W)`` bool.

    Returns:
        ``None`` if fewer than 64 pixels stand still.
    """
    if int(still[1:-1, 1:-1].sum()) < 64:
        return None
    second = np.diff(frames.astype(np.float32), n=2, axis=0) / np.sqrt(6.0)
    neighbourhood = sum(
        second[:, 1 + dy : second.shape[1] - 1 + dy, 1 + dx : second.shape[2] - 1 + dx]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    )
    fine = second[:, 1:-1, 1:-1] - neighbourhood / 9.0
    return float(np.sqrt((fine**2).mean(0)).mean(-1)[still[1:-1, 1:-1]].mean())


def _mean(parts: list[np.ndarray]) -> float:
    values = np.concatenate(parts) if parts else np.zeros(0)
    return float(values.mean()) if len(values) else 0.0


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator > 1e-6 else None
