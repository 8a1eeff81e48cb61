"""Films of speaking people: frames at a steady rate and the sound, on one clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from joyflash_cli.errors import AudioError, DataError
from joyflash_cli.media.inputs.audio import read_audio, to_model_waveform
from joyflash_cli.media.inputs.kinds import open_container
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

_FILM_CONTAINERS = "3gp,3g2,mj2,avi,mpegts,mpeg"
"""Containers that may be opened: no playlists, which could make libavformat open other files."""


@dataclass(frozen=True)
class VideoFacts:
    """What a video says of itself without being decoded.

    Attributes:
        fps: Frames per second; their mean where it varies.
        has_sound: Whether it has a sound track.
        metadata: The container's tags.
    """

    fps: float
    has_sound: bool
    metadata: dict[str, str]


def read_facts(video: Path) -> VideoFacts:
    """The facts of a video.

    Raises:
        DataError: If it cannot be opened or shows no picture.
    """
    import av

    try:
        with _opened(video) as container:
            track = _pictures(container, video.name)
            rate = track.average_rate or track.guessed_rate
            if not rate:
                raise DataError(f"{video.name} does not say how many frames a second has")
            return VideoFacts(float(rate), bool(container.streams.audio), dict(container.metadata))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(
            f"{video.name} cannot be read: {error}", hint="check the file, or take it out"
        ) from error


@dataclass(frozen=True)
class TalkingVideo:
    """A video and its sound on one clock.

    Attributes:
        frames: ``(H, W, 3)`` uint8 each, at the rate that was asked for; frame p is shown at
            p / fps seconds. An iterator that decodes as it goes.
        waveform: 16 kHz mono float32; sample 0 belongs to frame 0.
    """

    frames: Iterator[np.ndarray]
    waveform: np.ndarray


def read_talking_video(
    video: Path | BinaryIO,
    *,
    fps: float,
    fit: Callable[[np.ndarray], np.ndarray],
    sound: Path | BinaryIO | None = None,
    name: str = "",
) -> TalkingVideo:
    """A video at a steady rate with its sound, aligned by their time stamps.

    Variable frame rates become steady: frame p is the newest one at p / fps. A sound track that
    begins later than the picture is preceded by silence, an earlier one is cut.

    Args:
        video: A file, or an open seekable stream.
        fps: Frames per second wanted.
        fit: Crops and resizes every decoded picture ``(H, W, 3)`` uint8 RGB.
        sound: A file of its own that begins with the video; the video's own track if ``None``.
        name: For messages; the file's by default.

    Raises:
        DataError: If there is no picture or no sound, or the file cannot be decoded.
    """
    import av

    name = name or (str(video) if isinstance(video, Path) else "a clip")
    try:
        with _opened(video) as container:
            start_s = _start_s(_pictures(container, name))
            delay_s = 0.0
            if sound is None:
                if not container.streams.audio:
                    hint = "put a sound file of the same name beside it"
                    raise DataError(f"{name} holds no sound.", hint=hint)
                delay_s = _start_s(container.streams.audio[0]) - start_s
        if not isinstance(video, Path):
            video.seek(0)
        waveform = to_model_waveform(read_audio(video if sound is None else sound))
        if not isinstance(video, Path):
            video.seek(0)
    except (AudioError, av.FFmpegError, OSError, ValueError) as error:
        raise DataError(
            f"{name} cannot be read: {error}", hint="check the file, or take it out of the folder"
        ) from error
    shift = round(delay_s * MODEL_SAMPLE_RATE_HZ)
    waveform = np.pad(waveform, (shift, 0)) if shift > 0 else waveform[-shift:]
    frames = steady_frames(video, start_s=start_s, fps=fps, fit=fit, name=name)
    return TalkingVideo(frames, np.ascontiguousarray(waveform, np.float32))


def _opened(video: Path | BinaryIO) -> Any:
    source = str(video.absolute()) if isinstance(video, Path) else video
    return open_container(source, also=_FILM_CONTAINERS)


def _pictures(container: Any, name: str) -> Any:
    """The track of pictures."""
    if not container.streams.video:
        raise DataError(f"{name} holds no pictures.", hint="take it out of the folder")
    return container.streams.video[0]


def _start_s(stream: Any) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def steady_frames(
    video: Path | BinaryIO,
    *,
    fps: float,
    fit: Callable[[np.ndarray], np.ndarray],
    name: str,
    start_s: float | None = None,
) -> Iterator[np.ndarray]:
    """Frames of a video as :func:`read_talking_video` gives them.

    Args:
        video: A file, or an open seekable stream.
        fps: Frames per second wanted.
        fit: Crops and resizes every decoded picture.
        name: For messages.
        start_s: When the first picture is due; what the file says if ``None``.

    Raises:
        DataError: If there is no picture, or the file cannot be decoded.
    """
    import av

    # A frame counts as shown at p / fps if it is due within half a millisecond of it.
    tolerance_s = 5e-4
    shown: Any = None
    fitted: np.ndarray | None = None
    num_given = 0
    try:
        with _opened(video) as container:
            track = _pictures(container, name)
            if start_s is None:
                start_s = _start_s(track)
            for frame in container.decode(track):
                due_s = 0.0 if frame.pts is None else float(frame.pts * frame.time_base) - start_s
                while shown is not None and num_given / fps < due_s - tolerance_s:
                    fitted = fit(_upright(shown)) if fitted is None else fitted
                    yield fitted
                    num_given += 1
                shown, fitted = frame, None
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{name} is damaged after {num_given / fps:.2f} s: {error}") from error
    if shown is None:
        raise DataError(f"{name} holds no frames.", hint="take it out of the folder")
    yield fit(_upright(shown))


def _upright(frame: Any) -> np.ndarray:
    """RGB as a player shows it: phones store rotated pictures and say so."""
    pixels = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(getattr(frame, "rotation", 0) / 90) % 4))
