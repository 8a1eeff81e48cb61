"""Picture sheets for looking at results: frames at even spacing and mouths enlarged."""

import numpy as np

from joyflash_cli.media.sheet import enlarge, tile
from joyflash_cli.studio.evaluation.pack import HeldOutClip

MOUTH_ZOOM = 3


def clip_sheet(generated: np.ndarray, clip: HeldOutClip, *, columns: int = 9) -> np.ndarray:
    """A picture ``(h, w, 3)``: generated frames, true frames, then both mouths at 3x.

    Args:
        generated: ``(F, H, W, 3)`` uint8, as many as the clip's frames.
        clip: The truth and the mouth's box.
        columns: Moments shown, evenly spaced.
    """
    moments = np.linspace(0, len(clip.frames) - 1, columns).round().astype(int)
    rows = [list(frames[moments]) for frames in (generated, clip.frames)]
    return tile(rows + [[mouth(frame, clip.mouth_box) for frame in row] for row in rows])


def stream_sheet(
    frames: np.ndarray, clip: HeldOutClip, *, columns: int = 10, rows: int = 4
) -> np.ndarray:
    """A contact sheet of a long stream in reading order, each frame with its mouth below.

    Args:
        frames: Frames kept from the stream, ``(F, H, W, 3)`` uint8.
        clip: Gives the mouth's box.
        columns: Frames a row.
        rows: Rows of frames.
    """
    count = min(len(frames), columns * rows)
    shown = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    lines = [list(shown[start : start + columns]) for start in range(0, count, columns)]
    return tile([row for line in lines for row in (line, [mouth(f, clip.mouth_box) for f in line])])


def mouth(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The mouth's box of a frame ``(H, W, 3)``, three times as large."""
    x0, y0, x1, y1 = (max(0, int(edge)) for edge in box)
    return enlarge(frame[y0:y1, x0:x1], MOUTH_ZOOM)
