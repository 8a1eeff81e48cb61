"""MP4 by PyAV: H.264 and AAC in one process, playable at any moment while it is written."""

from __future__ import annotations

import functools
import io
import logging
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from joyflash_cli.media.audio import CHANNEL_LAYOUTS
from joyflash_cli.media.muxer import even_frames, exact_fps, samples_until
from joyflash_cli.media.pending import PendingFile, write_error
from joyflash_cli.media.probe import MediaInfo
from joyflash_cli.types import AudioClip

AAC_RATE_HZ = 48_000
"""Rate of the audio track where the original is not 44.1 to 96 kHz: AAC's priming is 64 ms at
16 kHz but 21 ms at 48 kHz."""

_AAC_KEPT_RATES_HZ = (44_100, 48_000, 64_000, 88_200, 96_000)
_AAC_BITS_PER_CHANNEL = 96_000
_BT709 = 1  # AVCOL_*_BT709 and AVCOL_RANGE_MPEG are all 1

logger = logging.getLogger(__name__)


class Mp4Muxer:
    """Writes an MP4 in lock-step: after each frame the sound that belongs to it.

    The file is written in fragments of one second and becomes an ordinary MP4 when it is
    finished, so that even a killed process leaves a playable ``.<stem>.part.mp4``.

    Args:
        path: Where the finished video goes.
        size: Width and height of the frames; odd sides grow by one repeated row or column.
        fps: Frames per second.
        audio: Original sound, written at its own rate from 44.1 kHz on, mono or stereo kept,
            more channels mixed down to stereo.
        metadata: Tags; MP4 keeps the well-known ones (``comment``, ``title``, ``artist``, ...).
        overwrite: Whether a file already there may be replaced.
        crf: x264's quality, 0 (lossless) to 51; 18 is visually clean.
        preset: x264's speed.

    Raises:
        OutputError: The target exists, its folder is missing or not writable.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        fps: float | Fraction,
        audio: AudioClip | None = None,
        metadata: dict[str, str] | None = None,
        overwrite: bool = False,
        crf: int = 18,
        preset: str = "veryfast",
    ) -> None:
        self._size = size
        self._fps = exact_fps(fps)
        self._audio = audio
        self._num_frames = 0
        self._num_samples = 0
        self._container: Any = None
        self._file = PendingFile(path, overwrite=overwrite)
        try:
            self._open(metadata or {}, crf=crf, preset=preset)
        except BaseException as error:
            self.discard()
            if isinstance(error, Exception) and _is_write_failure(error):
                raise write_error(self._file.final, error) from error
            raise

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        return self._num_frames

    def write(self, frames: np.ndarray) -> None:
        """Appends frames and their sound; see :meth:`Muxer.write`."""
        if self._container is None:
            raise ValueError("the file is closed")
        try:
            for frame in even_frames(frames, self._size):
                self._write_frame(frame)
                self._write_sound()
        except Exception as error:
            if not _is_write_failure(error):
                raise
            partial = self._rescue()
            raise write_error(self._file.final, error, partial=partial) from error

    def finish(self) -> MediaInfo:
        """Completes, reads back and names the file; see :meth:`Muxer.finish`."""
        if self._num_frames == 0:
            self.discard()
            raise ValueError("no frame was written")
        self._close_or_fail()
        audio_s = None if self._audio is None else self._audio.duration_s
        try:
            return self._file.commit(num_frames=self._num_frames, fps=self._fps, audio_s=audio_s)
        finally:
            self._file.discard()

    def keep_partial(self) -> Path | None:
        """Completes what there is under the partial name; see :meth:`Muxer.keep_partial`."""
        if self._container is None or self._num_frames == 0:
            self.discard()
            return None
        self._close_or_fail()
        return self._file.keep_partial()

    def discard(self) -> None:
        """Removes every trace."""
        self._abandon()
        self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def _open(self, metadata: dict[str, str], *, crf: int, preset: str) -> None:
        import av

        options = {"movflags": _movflags(), "flush_packets": "1"}
        self._container = av.open(
            str(self._file.temporary.absolute()), mode="w", format="mp4", options=options
        )
        self._container.metadata.update(metadata)
        width, height = self._size
        video = self._container.add_stream("libx264", rate=self._fps)
        video.width, video.height = width + width % 2, height + height % 2
        video.pix_fmt = "yuv420p"
        video.time_base = 1 / self._fps
        context = video.codec_context
        context.time_base = 1 / self._fps
        # A key frame, and with it a fragment on disk, every second.
        context.gop_size = max(1, round(self._fps))
        context.options = {"crf": str(crf), "preset": preset}
        # Stated, because players guess differently for small pictures.
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _BT709
        self._video = video
        self._sound = None if self._audio is None else self._add_sound(self._audio)

    def _add_sound(self, audio: AudioClip) -> Any:
        rate_hz = audio.sample_rate_hz
        if rate_hz not in _AAC_KEPT_RATES_HZ:
            rate_hz = AAC_RATE_HZ
        layout = "mono" if audio.samples.shape[1] == 1 else "stereo"
        sound = self._container.add_stream("aac", rate=rate_hz, layout=layout)
        sound.bit_rate = _AAC_BITS_PER_CHANNEL * (1 if layout == "mono" else 2)
        return sound

    def _write_frame(self, pixels: np.ndarray) -> None:
        import av

        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts = self._num_frames
        frame.time_base = 1 / self._fps
        self._container.mux(self._video.encode(frame))
        self._num_frames += 1

    def _write_sound(self) -> None:
        """The samples between the end of the previous frame and the end of this one."""
        if self._audio is None or self._sound is None:
            return
        import av

        rate_hz = self._audio.sample_rate_hz
        until = min(samples_until(self._num_frames, rate_hz, self._fps), len(self._audio.samples))
        samples = self._audio.samples[self._num_samples : until]
        if not len(samples):
            return
        layout = CHANNEL_LAYOUTS[samples.shape[1]]
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T), format="fltp", layout=layout
        )
        frame.sample_rate = rate_hz
        frame.pts = self._num_samples
        frame.time_base = Fraction(1, rate_hz)
        self._container.mux(self._sound.encode(frame))
        self._num_samples = until

    def _close_or_fail(self) -> None:
        """Flushes the encoders and closes the container."""
        try:
            self._container.mux(self._video.encode(None))
            if self._sound is not None:
                self._container.mux(self._sound.encode(None))
            container, self._container = self._container, None
            container.close()
        except Exception as error:
            partial = self._rescue()
            raise write_error(self._file.final, error, partial=partial) from error

    def _rescue(self) -> Path | None:
        """Keeps what reached the disk when nothing more can be written."""
        self._abandon()
        return self._file.keep_partial()

    def _abandon(self) -> None:
        container, self._container = self._container, None
        if container is None:
            return
        try:
            container.close()
        except Exception as error:  # the first failure is the one worth telling
            logger.debug("closing an abandoned file: %s", error)


def _is_write_failure(error: BaseException) -> bool:
    import av

    return isinstance(error, OSError | av.error.FFmpegError)


@functools.cache
def _movflags() -> str:
    """The fragment flags this libavformat knows.

    ``hybrid_fragmented`` ends as an ordinary MP4; before FFmpeg 7.1 it does not exist and the
    file stays fragmented.
    """
    for flags in ("hybrid_fragmented+delay_moov", "frag_keyframe+delay_moov"):
        if _accepts(flags):
            return flags
    return "frag_keyframe+empty_moov"


def _accepts(flags: str) -> bool:
    import av

    try:
        with av.open(io.BytesIO(), mode="w", format="mp4", options={"movflags": flags}) as probe:
            stream = probe.add_stream("libx264", rate=1)
            stream.width = stream.height = 16
            stream.pix_fmt = "yuv420p"
            probe.start_encoding()
    except (av.error.FFmpegError, ValueError, OSError):
        return False
    return True
