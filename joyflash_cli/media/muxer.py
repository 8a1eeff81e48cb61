"""Video out: what every writer of frames and sound offers, and which one writes a given file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from joyflash_cli.errors import OutputError
from joyflash_cli.media.probe import MediaInfo
from joyflash_cli.types import AudioClip

PYAV_SUFFIXES = (".mp4", ".m4v")
FFMPEG_SUFFIXES = (".mkv", ".mov", ".webm")


class Muxer(Protocol):
    """Frames and the original sound into one file, frame i at i / fps.

    Used in a ``with`` statement; leaving it without :meth:`finish` or :meth:`keep_partial`
    discards what was written.
    """

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        ...

    def write(self, frames: np.ndarray) -> None:
        """Appends ``(F, H, W, 3)`` uint8 RGB frames and the sound that belongs to them.

        Raises:
            OutputError: Disk full or another failure; what plays was kept as partial.
        """
        ...

    def finish(self) -> MediaInfo:
        """Completes the file, reads it back and gives it its name.

        Raises:
            OutputError: If it cannot be written or its tracks differ by more than a frame.
        """
        ...

    def keep_partial(self) -> Path | None:
        """Completes what there is as ``<stem>.partial<suffix>``, sound cut to the video.

        Returns:
            The partial file, ``None`` if no frame was written.
        """
        ...

    def discard(self) -> None:
        """Removes every trace; safe to call at any time."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_muxer(
    path: Path,
    *,
    size: tuple[int, int],
    fps: float | Fraction,
    audio: AudioClip | None = None,
    metadata: dict[str, str] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Muxer:
    """The writer for a file by its suffix: PyAV for MP4, the ffmpeg program for the others.

    Args:
        path: Where the finished video goes.
        size: Width and height of the frames that will be written.
        fps: Frames per second.
        audio: The original sound; ``None`` for a silent film.
        metadata: Tags of the file; containers keep well-known keys such as ``comment``.
        overwrite: Whether a file already there may be replaced.
        options: Passed to the writer: ``crf``, ``preset``.

    Raises:
        OutputError: ``E-OUTPUT-SUFFIX`` for an unknown suffix; otherwise as the writer.
    """
    path = Path(path)
    check_suffix(path)
    if path.suffix.lower() in PYAV_SUFFIXES:
        from joyflash_cli.media.mp4 import Mp4Muxer as writer
    else:
        from joyflash_cli.media.ffmpeg import FfmpegMuxer as writer  # type: ignore[assignment]
    return writer(
        path,
        size=size,
        fps=fps,
        audio=audio,
        metadata=metadata,
        overwrite=overwrite,
        **options,
    )


def check_suffix(path: Path) -> None:
    """Refuses a file name whose suffix no writer knows.

    Raises:
        OutputError: ``E-OUTPUT-SUFFIX``, naming the suffixes that work.
    """
    known = PYAV_SUFFIXES + FFMPEG_SUFFIXES
    suffix = Path(path).suffix
    if suffix.lower() not in known:
        raise OutputError(
            f"{path} ends in {suffix or 'no suffix'}; {', '.join(known)} can be written",
            hint="end the name in .mp4",
            code="E-OUTPUT-SUFFIX",
        )


def samples_until(num_frames: int, rate_hz: int, fps: Fraction) -> int:
    """Audio samples that lie before the end of a number of frames: ``floor(n * rate / fps)``.

    Differences of neighbours are what is muxed with each frame, so that any cut leaves tracks
    of the same length.
    """
    return num_frames * rate_hz * fps.denominator // fps.numerator


def exact_fps(fps: float | Fraction) -> Fraction:
    """Frames per second as a fraction: 25 stays 25, 29.97 becomes 30000/1001.

    Raises:
        OutputError: ``E-OUTPUT-FPS`` outside 1..240.
    """
    if not 1 <= fps <= 240:
        raise OutputError(
            f"{fps} frames a second cannot be written; 1 to 240 can", code="E-OUTPUT-FPS"
        )
    if isinstance(fps, Fraction):
        return fps
    for rate in (24, 30, 48, 60, 120):
        if abs(fps - rate * 1000 / 1001) < 5e-3:
            return Fraction(rate * 1000, 1001)
    return Fraction(fps).limit_denominator(1001)


def even_frames(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames with odd sides made even by repeating the last row or column; never rescaled.

    H.264 with 4:2:0 colour needs even sides: 129 x 100 becomes 130 x 100.

    Args:
        frames: ``(F, H, W, 3)`` uint8.
        size: Width and height that were announced.

    Raises:
        ValueError: If shape or dtype are not as announced: a mistake of the calling code.
    """
    width, height = size
    if frames.ndim != 4 or frames.shape[1:] != (height, width, 3) or frames.dtype != np.uint8:
        raise ValueError(
            f"frames are {frames.shape} {frames.dtype}; (F, {height}, {width}, 3) uint8 expected"
        )
    if width % 2 == 0 and height % 2 == 0:
        return frames
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
