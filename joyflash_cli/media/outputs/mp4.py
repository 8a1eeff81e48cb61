"""MP4 by PyAV: H.264 and AAC in one process, playable at any moment while it is written."""

from __future__ import annotations

import contextlib
import functools
import io
from pathlib import Path

from joyflash_cli.media.outputs.file_writer import FileWriter
from joyflash_cli.media.outputs.mp4_boxes import drop_cut_fragment
from joyflash_cli.media.outputs.tracks import TrackWriter

FRAGMENT_US = 320_000
"""Length of what is written to the disk at once, microseconds: with the few frames inside the
encoder, all that a killed process loses."""


class Mp4Writer(FileWriter):
    """Writes an MP4 in lock-step: after each frame the sound that belongs to it.

    The file is written in short fragments and becomes an ordinary MP4 when it is finished, so that
    even a killed process leaves a playable ``.<stem>.part.mp4``. Sound is written at its own rate
    from 44.1 kHz on, mono or stereo kept, more channels mixed down to stereo.
    """

    def _open(self) -> TrackWriter:
        options = {
            "movflags": _movflags(),
            "flush_packets": "1",
            "frag_duration": str(FRAGMENT_US),
        }
        return TrackWriter(str(self.temporary.absolute()), "mp4", self.film, options=options)

    def _rescue(self) -> Path | None:
        if self.tracks is not None:
            self.tracks.abandon()
        with contextlib.suppress(OSError):
            drop_cut_fragment(self.temporary)
        return super()._rescue()


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
