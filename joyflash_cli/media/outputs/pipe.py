"""Fragmented MP4 on a pipe: every frame leaves as soon as it is encoded."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np

from joyflash_cli.files import cannot_write
from joyflash_cli.media.outputs.clock import exact_fps
from joyflash_cli.media.outputs.discarding import DiscardedOnExit
from joyflash_cli.media.outputs.tracks import TrackOptions, TrackWriter, is_write_failure
from joyflash_cli.media.outputs.whole_writes import write_all
from joyflash_cli.types import AudioClip, SoundFormat


class _Unseekable:
    """Only ``write`` of a stream, each time to its end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        write_all(self._stream, data)
        return len(data)


class PipeMuxer(DiscardedOnExit):
    """Writes fragmented MP4 to a binary stream, which is left open.

    A slow reader makes ``write`` wait.

    Args:
        stream: Such as ``sys.stdout.buffer``.
        size: Width and height of the frames; odd sides grow by one repeated row or column.
        fps: Frames per second.
        audio: Original sound, or its format.
        metadata: Tags.
        encoding: ``crf`` and ``preset`` of ``TrackOptions``.

    Raises:
        BrokenPipeError: From every method, when the reader has gone.
    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        size: tuple[int, int],
        fps: float | Fraction,
        audio: AudioClip | SoundFormat | None = None,
        metadata: Mapping[str, str] | None = None,
        **encoding: int | str,
    ) -> None:
        container = {
            # Without a trailer no index of fragments is kept, which would grow for as long as
            # the stream lasts (75 bytes a frame) and which nobody can seek to.
            "movflags": "delay_moov+default_base_moof+skip_trailer",
            # A fragment per frame costs some hundred bytes and lets no frame wait for others.
            # (The flag frag_every_frame would lose the second frame.)
            "frag_duration": str(round(1_000_000 / exact_fps(fps))),
            "flush_packets": "1",
        }
        name = getattr(stream, "name", None)
        self._name = name if isinstance(name, str) else "standard output"
        options = TrackOptions(
            kind="live",
            metadata=metadata or {},
            container=container,
            **encoding,  # type: ignore[arg-type]
        )
        self._tracks = TrackWriter(
            _Unseekable(stream), "mp4", size=size, fps=fps, audio=audio, options=options
        )

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        return self._tracks.num_frames

    def write(self, frames: np.ndarray, sound: AudioClip | None = None) -> None:
        """Appends frames and their sound; see :meth:`Muxer.write`."""
        try:
            self._tracks.write(frames, sound)
        except Exception as error:
            raise self._failure(error) from error

    def finish(self) -> None:
        """Writes the last fragment and the end of the file."""
        if self._tracks.is_open:
            try:
                self._tracks.close()
            except Exception as error:
                raise self._failure(error) from error

    def keep_partial(self) -> Path | None:
        """Ends the stream properly where it is: a pipe has no name to change."""
        if self._tracks.num_frames:
            self.finish()
        return None

    def discard(self) -> None:
        """Stops writing; what the reader has, it has."""
        self._tracks.abandon()

    def _failure(self, error: Exception) -> BaseException:
        self._tracks.abandon()
        if isinstance(error, BrokenPipeError) or not is_write_failure(error):
            return error
        return cannot_write(self._name, error, hint="write to a file with --output FILE.mp4")
