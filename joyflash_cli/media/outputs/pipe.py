"""Fragmented MP4 on a pipe: every frame leaves as soon as it is encoded."""

from __future__ import annotations

from typing import BinaryIO

from joyflash_cli.files import cannot_write
from joyflash_cli.media.outputs.formats import PIPE
from joyflash_cli.media.outputs.tracks import Film, TrackWriter
from joyflash_cli.media.outputs.whole_writes import write_all
from joyflash_cli.media.outputs.writer import Writer
from joyflash_cli.media.outputs.xmp import mp4_box


class _Unseekable:
    """Only ``write`` of a stream, each time to its end.

    Args:
        stream: Where it goes.
        box: Put behind the first box, ``ftyp``: an MP4 that nobody can go back in says at its
            beginning what it is.
    """

    def __init__(self, stream: BinaryIO, box: bytes) -> None:
        self._stream, self._box = stream, box

    def write(self, data: bytes) -> int:
        head, self._box = self._box, b""
        if head and data[4:8] == b"ftyp":
            place = int.from_bytes(data[:4], "big")
            write_all(self._stream, bytes(data[:place]) + head + bytes(data[place:]))
        else:
            write_all(self._stream, data)
        return len(data)


class PipeWriter(Writer):
    """Writes fragmented MP4 to a binary stream, which is left open.

    A slow reader makes ``write`` wait.

    Args:
        stream: Such as ``sys.stdout.buffer``.
        film: What will be written.

    Raises:
        BrokenPipeError: From every method, when the reader has gone.
    """

    def __init__(self, stream: BinaryIO, film: Film) -> None:
        name = getattr(stream, "name", None)
        self._stream = stream
        super().__init__(name if isinstance(name, str) else "standard output", film)

    def _begin(self) -> None:
        options = {
            # Without a trailer no index of fragments is kept, which would grow for as long as
            # the stream lasts (75 bytes a frame) and which nobody can seek to.
            "movflags": "delay_moov+default_base_moof+skip_trailer",
            # A fragment per frame costs some hundred bytes and lets no frame wait for others.
            # (The flag frag_every_frame would lose the second frame.)
            "frag_duration": str(round(1_000_000 / self.film.fps)),
            "flush_packets": "1",
        }
        stream = _Unseekable(self._stream, mp4_box(self.film.metadata))
        self.tracks = TrackWriter(stream, PIPE, self.film, is_live=True, options=options)

    def _keep(self) -> None:
        """The stream ends properly where it is: a pipe has no name to change."""

    def _rescue(self) -> None:
        """What the reader has, it has."""

    def _failure(self, error: Exception) -> Exception:
        self.discard()
        if isinstance(error, BrokenPipeError):
            return error
        return cannot_write(self.name, error, hint="write to a file with --output FILE.mp4")
