"""MP4 by PyAV: H.264 and AAC in one process, playable at any moment while it is written."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np

from joyflash_cli.media.outputs.discarding import DiscardedOnExit
from joyflash_cli.media.outputs.fragments import drop_cut_fragment
from joyflash_cli.media.outputs.pending import PendingFile, write_error
from joyflash_cli.media.outputs.probe import MediaInfo
from joyflash_cli.media.outputs.tracks import TrackOptions, TrackWriter, is_write_failure
from joyflash_cli.types import AudioClip, SoundFormat

FRAGMENT_US = 320_000
"""Length of what is written to the disk at once, microseconds: with the few frames inside the
encoder, all that a killed process loses."""


class Mp4Muxer(DiscardedOnExit):
    """Writes an MP4 in lock-step: after each frame the sound that belongs to it.

    The file is written in short fragments and becomes an ordinary MP4 when it is finished, so that
    even a killed process leaves a playable ``.<stem>.part.mp4``.

    Args:
        path: Where the finished video goes.
        size: Width and height of the frames; odd sides grow by one repeated row or column.
        fps: Frames per second.
        audio: Original sound, or its format; written at its own rate from 44.1 kHz on, mono or
            stereo kept, more channels mixed down to stereo.
        overwrite: Whether a file already there may be replaced.
        metadata: Tags; MP4 keeps the well-known ones (``comment``, ``title``, ``artist``, ...).
        encoding: ``crf`` and ``preset`` of ``TrackOptions``.

    Raises:
        OutputError: The target exists, its folder is missing or not writable.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        fps: float | Fraction,
        audio: AudioClip | SoundFormat | None = None,
        overwrite: bool = False,
        metadata: Mapping[str, str] | None = None,
        **encoding: int | str,
    ) -> None:
        self._tracks: TrackWriter | None = None
        self._file = PendingFile(path, overwrite=overwrite)
        container = {
            "movflags": _movflags(),
            "flush_packets": "1",
            "frag_duration": str(FRAGMENT_US),
        }
        options = TrackOptions(metadata=metadata or {}, container=container, **encoding)  # type: ignore[arg-type]
        try:
            target = str(self._file.temporary.absolute())
            self._tracks = TrackWriter(
                target, "mp4", size=size, fps=fps, audio=audio, options=options
            )
        except BaseException as error:
            self.discard()
            if isinstance(error, Exception) and is_write_failure(error):
                raise write_error(self._file.final, error) from error
            raise

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        return self._tracks.num_frames if self._tracks is not None else 0

    def write(self, frames: np.ndarray, sound: AudioClip | None = None) -> None:
        """Appends frames and their sound; see :meth:`Muxer.write`."""
        tracks = self._open_tracks()
        try:
            tracks.write(frames, sound)
        except Exception as error:
            if not is_write_failure(error):
                raise
            raise write_error(self._file.final, error, partial=self._rescue()) from error

    def finish(self) -> MediaInfo:
        """Completes, reads back and names the file; see :meth:`Muxer.finish`."""
        tracks = self._open_tracks()
        if tracks.num_frames == 0:
            self.discard()
            raise ValueError("no frame was written")
        self._close_or_fail()
        audio_s = None if tracks.sound is None else tracks.sound.duration_s
        try:
            return self._file.commit(num_frames=tracks.num_frames, fps=tracks.fps, audio_s=audio_s)
        finally:
            self._file.discard()

    def keep_partial(self) -> Path | None:
        """Completes what there is under the partial name; see :meth:`Muxer.keep_partial`."""
        if self._tracks is None or not self._tracks.is_open or self._tracks.num_frames == 0:
            self.discard()
            return None
        self._close_or_fail()
        return self._file.keep_partial()

    def discard(self) -> None:
        """Removes every trace."""
        if self._tracks is not None:
            self._tracks.abandon()
        self._file.discard()

    def _open_tracks(self) -> TrackWriter:
        if self._tracks is None or not self._tracks.is_open:
            raise ValueError("the file is closed")
        return self._tracks

    def _close_or_fail(self) -> None:
        """Flushes the encoders and closes the container."""
        try:
            self._open_tracks().close()
        except Exception as error:
            raise write_error(self._file.final, error, partial=self._rescue()) from error

    def _rescue(self) -> Path | None:
        """Keeps what reached the disk when nothing more can be written."""
        if self._tracks is not None:
            self._tracks.abandon()
        with contextlib.suppress(OSError):
            drop_cut_fragment(self._file.temporary)
        return self._file.keep_partial()


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
