"""HLS: a playlist and segments of one second beside it, playable while they are written.

``live/out.m3u8`` gets ``live/out-init.mp4``, ``live/out-00000.m4s``, ... A player may open the
playlist as soon as the first second is there; a killed process leaves every complete segment.
"""

from __future__ import annotations

import os
from pathlib import Path

from joyflash_cli.media.outputs.formats import FORMATS
from joyflash_cli.media.outputs.tracks import TrackWriter
from joyflash_cli.media.outputs.writer import NamedWriter
from joyflash_cli.media.outputs.xmp import mp4_box

SEGMENT_S = 1


class HlsWriter(NamedWriter):
    """Writes an event playlist with fragmented MP4 segments.

    Unlike other files it has its name from the beginning, because players follow it while it
    grows; ``#EXT-X-ENDLIST`` says when it is complete. Segments already there go with it.
    """

    def _begin(self) -> None:
        super()._begin()
        self.names.remove_taken()
        playlist = self.names.path.absolute()
        options = {
            "hls_time": str(SEGMENT_S),
            "hls_list_size": "0",
            "hls_playlist_type": "event",
            "hls_segment_type": "fmp4",
            # AAC begins a moment before zero; moved to it, both tracks would begin late.
            "avoid_negative_ts": "disabled",
            "hls_flags": "independent_segments+temp_file",
            "hls_segment_filename": f"{playlist.parent}/{self.names.numbered[0]}",
            "hls_fmp4_init_filename": self.names.head.name,
        }
        entry = FORMATS[".m3u8"]
        self.tracks = TrackWriter(str(playlist), entry, self.film, is_live=True, options=options)

    def _end(self) -> None:
        """Adds the XMP packet to what the segments have in common, whole at any moment."""
        head = self.names.head
        marked = head.with_name(f"{head.name}.tmp")
        marked.write_bytes(head.read_bytes() + mp4_box(self.film.metadata))
        os.replace(marked, head)

    def discard(self) -> None:
        """Removes playlist and segments of a stream that was not closed."""
        is_open = self.tracks is not None and self.tracks.is_open
        super().discard()
        if is_open:
            self.names.remove_taken()

    def _keep(self) -> Path:
        """It keeps its name, which players may have open."""
        return self.names.path

    def _rescue(self) -> Path | None:
        if self.tracks is not None:
            self.tracks.abandon()
        return self.names.path if self.names.path.exists() else None
