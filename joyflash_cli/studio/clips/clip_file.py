"""Clips on disk: recorded test material, and videos of users to train on.

Test material is frames as nearly lossless H.264 and sound as FLAC or Opus. Videos for users are
written by the muxer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from joyflash_cli.errors import AudioError, DataError
from joyflash_cli.media.inputs.audio import read_audio, to_model_waveform
from joyflash_cli.media.inputs.containers import open_container
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

_FILM_CONTAINERS = "3gp,3g2,mj2,avi,mpegts,mpeg"
"""Containers that may be opened: no playlists, which could make libavformat open other files."""


def write_frames(path: Path, frames: np.ndarray, *, fps: int = 25, crf: int = 14) -> None:
    """Write frames as H.264 4:4:4, which keeps the colour edges of lips.

    Args:
        path: An ``.mp4`` file.
        frames: ``(F, H, W, 3)`` uint8 RGB, even sizes.
        fps: Frames per second.
        crf: x264's quality, 0 (lossless) .. 51.
    """
    import av

    options = {"crf": str(crf), "preset": "veryslow", "threads": "1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for pixels in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def read_frames(path: Path) -> np.ndarray:
    """All frames of a video, ``(F, H, W, 3)`` uint8 RGB.

    Raises:
        DataError: If the file is missing or cannot be decoded.
    """
    import av

    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.FFmpegError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as video.", hint="restore the file or reinstall joyflash"
        ) from error
    if not frames:
        raise DataError(f"{path} holds no frames.", hint="restore the file or reinstall joyflash")
    return np.stack(frames)


def write_sound(
    path: Path, waveform: np.ndarray, *, sample_rate_hz: int = 16_000, bit_rate: int | None = None
) -> None:
    """Write mono sound: FLAC for ``.flac``, Opus for ``.ogg`` or ``.opus``.

    Args:
        path: Its suffix chooses the codec.
        waveform: ``(samples,)`` float in -1..1.
        sample_rate_hz: Of the waveform; one that the codec knows.
        bit_rate: Bits per second for Opus.
    """
    import av

    lossless = path.suffix == ".flac"
    pcm = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
    container_format = "flac" if lossless else "ogg"
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream("flac" if lossless else "libopus", rate=sample_rate_hz)
        stream.layout = "mono"
        stream.format = "s16"
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        fifo = av.AudioFifo()
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = sample_rate_hz
        frame.time_base = Fraction(1, sample_rate_hz)
        frame.pts = 0
        fifo.write(frame)
        size = stream.codec_context.frame_size or sample_rate_hz // 50
        while (part := fifo.read(size)) is not None:
            container.mux(stream.encode(part))
        if (rest := fifo.read(0)) is not None:
            container.mux(stream.encode(rest))
        container.mux(stream.encode(None))


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
            start_s, delay_s = _start_times(container, name, has_sound=sound is not None)
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
    frames = _steady_frames(video, start_s=start_s, fps=fps, fit=fit, name=name)
    return TalkingVideo(frames, np.ascontiguousarray(waveform, np.float32))


def _opened(video: Path | BinaryIO) -> Any:
    source = str(video.absolute()) if isinstance(video, Path) else video
    return open_container(source, also=_FILM_CONTAINERS)


def _start_times(container: Any, name: str, *, has_sound: bool) -> tuple[float, float]:
    """Seconds at which the picture begins, and by how much later the sound does."""
    if not container.streams.video:
        raise DataError(f"{name} holds no pictures.", hint="take it out of the folder")
    picture_s = _start_s(container.streams.video[0])
    if has_sound:
        return picture_s, 0.0
    if not container.streams.audio:
        raise DataError(
            f"{name} holds no sound.", hint="put a sound file of the same name beside it"
        )
    return picture_s, _start_s(container.streams.audio[0]) - picture_s


def _start_s(stream: Any) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def _steady_frames(
    video: Path | BinaryIO,
    *,
    start_s: float,
    fps: float,
    fit: Callable[[np.ndarray], np.ndarray],
    name: str,
) -> Iterator[np.ndarray]:
    import av

    # A frame counts as shown at p / fps if it is due within half a millisecond of it.
    tolerance_s = 5e-4
    shown: Any = None
    fitted: np.ndarray | None = None
    num_given = 0
    try:
        with _opened(video) as container:
            for frame in container.decode(video=0):
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
