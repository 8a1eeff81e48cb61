"""Recorded test material on disk: frames as nearly lossless H.264 and sound as FLAC or Opus.

Videos for users are written by the muxer.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np

from joyflash_cli.errors import DataError


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
