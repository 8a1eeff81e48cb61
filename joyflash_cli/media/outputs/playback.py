"""Finished videos read back piece by piece: frames and the level of their sound.

For looking at results. Memory does not depend on the length of the video.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.media.inputs.kinds import open_container


def iterate_frames(path: Path, *, batch: int = 64) -> Iterator[np.ndarray]:
    """Frames of a video in order, ``(up to batch, H, W, 3)`` uint8 RGB at a time.

    A file that is cut in the middle gives the frames that it has.

    Raises:
        DataError: ``E-VIDEO`` if it cannot be opened or shows no picture.
    """
    import av

    kept: list[np.ndarray] = []
    num_frames = 0
    try:
        with Path(path).open("rb") as file, open_container(file) as container:
            if not container.streams.video:
                raise _unreadable(path, "it has no video track")
            for frame in _decoded(container, container.streams.video[0]):
                kept.append(frame.to_ndarray(format="rgb24"))
                num_frames += 1
                if len(kept) == batch:
                    yield np.stack(kept)
                    kept = []
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    if not num_frames:
        raise _unreadable(path, "no picture can be decoded")
    if kept:
        yield np.stack(kept)


def frame_levels(path: Path, *, fps: float, num_frames: int) -> np.ndarray | None:
    """Peak and mean power of the sound under each frame; channels are averaged.

    Args:
        path: A video.
        fps: Its frames per second.
        num_frames: Frames to cover; sound beyond them is left out.

    Returns:
        ``(num_frames, 2)`` float64, peak in 0..1 and mean square; ``None`` without sound.

    Raises:
        DataError: ``E-VIDEO`` if it cannot be opened.
    """
    import av

    try:
        with Path(path).open("rb") as file, open_container(file) as container:
            if not container.streams.audio:
                return None
            peak, power, count = np.zeros((3, num_frames))
            resampler, num_samples = av.AudioResampler(format="fltp", layout="mono"), 0
            for frame in _decoded(container, container.streams.audio[0]):
                for piece in resampler.resample(frame):
                    samples = piece.to_ndarray()[0].astype(np.float64)
                    moments = (num_samples + np.arange(len(samples))) * fps / piece.sample_rate
                    num_samples += len(samples)
                    places = moments.astype(np.int64)
                    places, samples = places[places < num_frames], samples[places < num_frames]
                    np.maximum.at(peak, places, np.abs(samples))
                    np.add.at(power, places, samples**2)
                    np.add.at(count, places, 1.0)
            return np.stack([peak, power / np.maximum(count, 1.0)], axis=-1)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """What can be decoded; a broken packet ends a cut file and is no reason to lose the rest."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        except av.error.FFmpegError:
            return
        yield from frames


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} cannot be read as a video: {reason}",
        hint="render it again",
        code="E-VIDEO",
    )
