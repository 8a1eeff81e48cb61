"""HLS: a playlist and segments of one second beside it, playable while they are written.

``live/out.m3u8`` gets ``live/out-init.mp4``, ``live/out-00000.m4s``, ... A player may open the
playlist as soon as the first second is there; a killed process leaves every complete segment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np

from joyflash_cli.media.outputs.discarding import DiscardedOnExit
from joyflash_cli.media.outputs.pending import write_error
from joyflash_cli.media.outputs.targets import OutputNames
from joyflash_cli.media.outputs.tracks import TrackOptions, TrackWriter, is_write_failure
from joyflash_cli.types import AudioClip, SoundFormat

SEGMENT_S = 1


class HlsMuxer(DiscardedOnExit):
    """Writes an event playlist with fragmented MP4 segments.

    Unlike other files it has its name from the beginning, because players follow it while it
    grows; ``#EXT-X-ENDLIST`` says when it is complete.

    Args:
        path: The playlist.
        size: Width and height of the frames; odd sides grow by one repeated row or column.
        fps: Frames per second.
        audio: Original sound, or its format.
        overwrite: Whether a playlist already there, with its segments, may be replaced.
        metadata: Tags.
        encoding: ``crf`` and ``preset`` of ``TrackOptions``.

    Raises:
        OutputError: See :meth:`OutputNames.check`.
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
        self._names = OutputNames(path)
        self._path = self._names.path
        self._tracks: TrackWriter | None = None
        self._names.check(overwrite=overwrite)
        folder = self._path.absolute().parent
        stem = self._names.segment_stem
        container = {
            "hls_time": str(SEGMENT_S),
            "hls_list_size": "0",
            "hls_playlist_type": "event",
            "hls_segment_type": "fmp4",
            # AAC begins a moment before zero; moved to it, both tracks would begin late.
            "avoid_negative_ts": "disabled",
            "hls_flags": "independent_segments+temp_file",
            "hls_segment_filename": f"{folder}/{stem}-%05d.m4s",
            "hls_fmp4_init_filename": f"{stem}-init.mp4",
        }
        options = TrackOptions(
            kind="live",
            metadata=metadata or {},
            container=container,
            **encoding,  # type: ignore[arg-type]
        )
        try:
            self._names.remove_taken()
            self._tracks = TrackWriter(
                str(folder / self._path.name),
                "hls",
                size=size,
                fps=fps,
                audio=audio,
                options=options,
            )
        except Exception as error:
            if is_write_failure(error):
                raise write_error(self._path, error) from error
            raise

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        return self._tracks.num_frames if self._tracks is not None else 0

    def write(self, frames: np.ndarray, sound: AudioClip | None = None) -> None:
        """Appends frames and their sound; see :meth:`Muxer.write`."""
        with self._failures():
            self._open_tracks().write(frames, sound)

    def finish(self) -> None:
        """Closes the last segment and the playlist."""
        if self.num_frames == 0:
            self.discard()
            raise ValueError("no frame was written")
        with self._failures():
            self._open_tracks().close()

    def keep_partial(self) -> Path | None:
        """Closes the playlist where it is; it keeps its name, which players may have open."""
        if self._tracks is None or not self._tracks.is_open or self.num_frames == 0:
            self.discard()
            return None
        self.finish()
        return self._path

    def discard(self) -> None:
        """Removes playlist and segments of a stream that was not closed."""
        if self._tracks is None or not self._tracks.is_open:
            return
        self._tracks.abandon()
        self._names.remove_taken()

    def _open_tracks(self) -> TrackWriter:
        if self._tracks is None or not self._tracks.is_open:
            raise ValueError("the playlist is closed")
        return self._tracks

    @contextlib.contextmanager
    def _failures(self):
        try:
            yield
        except Exception as error:
            if not is_write_failure(error):
                raise
            if self._tracks is not None:
                self._tracks.abandon()
            partial = self._path if self._path.exists() else None
            raise write_error(self._path, error, partial=partial) from error
