"""Video out: what every writer of frames and sound offers, and which one writes a given file."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import numpy as np

from joyflash_cli.errors import OutputError
from joyflash_cli.media.names import (
    PICTURE_SUFFIXES,
    PLAYLIST_SUFFIX,
    PYAV_SUFFIXES,
    check_is_no_folder,
    check_suffix,
    followed,
)
from joyflash_cli.media.probe import MediaInfo
from joyflash_cli.types import AudioClip, SoundFormat, exact_rate


class Muxer(Protocol):
    """Frames and the original sound into one file, frame i at i / fps.

    Used in a ``with`` statement; leaving it without :meth:`finish` or :meth:`keep_partial`
    discards what was written.
    """

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        ...

    def write(self, frames: np.ndarray, sound: AudioClip | None = None) -> None:
        """Appends ``(F, H, W, 3)`` uint8 RGB frames and the sound that belongs to them.

        Args:
            frames: Of the announced size.
            sound: The sound that follows what was given before; nothing where all of it was given
                when the file was opened.

        Raises:
            OutputError: Disk full or another failure; what plays was kept as partial.
        """
        ...

    def finish(self) -> MediaInfo | None:
        """Completes the file, reads it back and gives it its name.

        Returns:
            What it holds; ``None`` where it is no single file that could be read back.

        Raises:
            OutputError: If it cannot be written or its tracks differ by more than a frame.
        """
        ...

    def keep_partial(self) -> Path | None:
        """Completes what there is as ``<stem>.partial<suffix>``, sound cut to the video.

        Returns:
            The partial file, ``None`` if no frame was written or the output is a pipe.
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
    output: Path | BinaryIO,
    *,
    size: tuple[int, int],
    fps: float | Fraction,
    audio: AudioClip | SoundFormat | None = None,
    overwrite: bool = False,
    **encoding: Any,
) -> Muxer:
    """The writer for an output by its suffix; for a binary stream, fragmented MP4.

    Args:
        output: Where the video goes.
        size: Width and height of the frames that will be written.
        fps: Frames per second.
        audio: The original sound, or its format where the sound comes with the frames; ``None``
            for a silent film.
        overwrite: Whether a file already there may be replaced.
        encoding: ``metadata`` (tags; containers keep well-known keys such as ``comment``), ``crf``
            and ``preset``.

    Raises:
        OutputError: ``E-OUTPUT-SUFFIX`` for an unknown suffix; otherwise as the writer.
    """
    common: dict[str, Any] = {"size": size, "fps": fps, "audio": audio, **encoding}
    if not isinstance(output, str | Path):
        from joyflash_cli.media.pipe import PipeMuxer

        return PipeMuxer(output, **common)
    check_is_no_folder(str(output))
    path = followed(Path(output))
    check_suffix(path)
    writer: Any
    if path.suffix.lower() in PYAV_SUFFIXES:
        from joyflash_cli.media.mp4 import Mp4Muxer as writer
    elif path.suffix.lower() == PLAYLIST_SUFFIX:
        from joyflash_cli.media.hls import HlsMuxer as writer
    elif path.suffix.lower() in PICTURE_SUFFIXES:
        from joyflash_cli.media.pictures import PictureMuxer as writer
    else:
        from joyflash_cli.media.ffmpeg import FfmpegMuxer as writer
    muxer: Muxer = writer(path, overwrite=overwrite, **common)
    return muxer


class SoundTrack:
    """Sound on its way into a file: given in pieces of any length, taken frame by frame.

    Args:
        audio: All of the sound, or its format where it is added later.
        fps: Frames per second.
    """

    def __init__(self, audio: AudioClip | SoundFormat, fps: Fraction) -> None:
        self._fps = fps
        self._pieces: deque[np.ndarray] = deque()
        self.num_taken = 0
        if isinstance(audio, AudioClip):
            self.format = SoundFormat(audio.sample_rate_hz, audio.samples.shape[1])
            self.add(audio)
        else:
            self.format = audio

    @property
    def duration_s(self) -> float:
        """Seconds of sound given so far, taken or not."""
        waiting = sum(len(piece) for piece in self._pieces)
        return (self.num_taken + waiting) / self.format.sample_rate_hz

    def add(self, sound: AudioClip) -> None:
        """Appends sound."""
        if sound.samples.shape[1] != self.format.channels:
            raise ValueError(f"{sound.samples.shape[1]} channels for {self.format}")
        if len(sound.samples):
            self._pieces.append(sound.samples)

    def take(self, num_frames: int) -> np.ndarray:
        """The samples ``(n, channels)`` not taken yet that lie before the end of so many frames."""
        wanted = samples_until(num_frames, self.format.sample_rate_hz, self._fps) - self.num_taken
        parts = [np.zeros((0, self.format.channels), np.float32)]
        while self._pieces and wanted > 0:
            piece = self._pieces.popleft()
            if len(piece) > wanted:
                self._pieces.appendleft(piece[wanted:])
                piece = piece[:wanted]
            parts.append(piece)
            wanted -= len(piece)
            self.num_taken += len(piece)
        return np.concatenate(parts)


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
    return exact_rate(fps)


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
