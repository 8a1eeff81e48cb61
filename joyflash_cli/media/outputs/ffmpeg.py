"""Other containers through the ffmpeg program, which hears and sees one raw stream on its stdin.

Frames and sound go to it interleaved (NUT), so that neither waits for the other and a live stream
needs no file for its sound.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import tempfile
from typing import IO

from joyflash_cli.errors import OutputError
from joyflash_cli.files import DISK_FULL
from joyflash_cli.media.outputs.file_writer import FileWriter
from joyflash_cli.media.outputs.formats import FORMATS
from joyflash_cli.media.outputs.tracks import TrackWriter
from joyflash_cli.media.outputs.writer import write_error

_RGB_TO_709 = "scale=out_color_matrix=bt709:out_range=tv"
_709_TAGS = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")


class FfmpegWriter(FileWriter):
    """Writes what PyAV does not with the ffmpeg program, its return code always checked.

    MKV keeps the sound exactly (FLAC), the others compress it at 48 kHz.
    """

    _process: subprocess.Popen[bytes] | None = None
    _messages: IO[bytes] | None = None
    _return_code = 0

    def _open(self) -> TrackWriter:
        # A file, not a pipe: nobody reads it while frames are written, and a full pipe would
        # stop ffmpeg.
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed by discard)
        process = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._messages,
            start_new_session=True,  # Ctrl-C is for this program, which then finishes the file
        )
        self._process = process
        options = {"flush_packets": "1"}
        return TrackWriter(process.stdin, "nut", self.film, kind="raw", options=options)

    def discard(self) -> None:
        """Stops the program and removes every trace."""
        if self._process is not None:
            self._process.kill()
            self._wait()
        super().discard()
        if self._messages is not None:
            self._messages.close()
            self._messages = None

    def _command(self) -> list[str]:
        entry, film = FORMATS[self.final.suffix.lower()], self.film
        command = [ffmpeg_program(), "-hide_banner", "-loglevel", "error", "-nostats", "-y"]
        # Everything is said in the stream's header: nothing needs to be guessed from the frames.
        command += ["-probesize", "32", "-analyzeduration", "0", "-f", "nut", "-i", "pipe:0"]
        command += ["-map", "0:v", "-vf", _RGB_TO_709, *_709_TAGS]
        fields = {"crf": film.crf, "preset": film.preset or "veryfast"}
        command += [option.format(**fields) for option in entry.video]
        command += ["-g", str(max(1, round(film.fps)))]
        if film.audio is not None:
            command += ["-map", "0:a", *entry.audio]
        for key, value in film.metadata.items():
            command += ["-metadata", f"{key}={value}"]
        # A name that cannot be taken for an option or a protocol, whatever it is called.
        return [*command, f"file:{self.temporary.absolute()}"]

    def _end(self) -> None:
        if self._wait() != 0:
            raise OSError("the ffmpeg program failed")
        super()._end()

    def _wait(self) -> int:
        """The program's return code, once it has ended."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            # It may have gone already; its return code tells why.
            with contextlib.suppress(OSError):
                process.stdin.close()
            self._return_code = process.wait()
        return self._return_code

    def _failure(self, error: Exception) -> Exception:
        """The error for a failed run with ffmpeg's last line; what plays is kept as partial."""
        return_code = self._wait()
        last = ""
        if self._messages is not None:
            self._messages.seek(0)
            lines = self._messages.read().decode(errors="replace").strip().splitlines()
            last = lines[-1] if lines else ""
        partial = self._rescue()
        self.discard()
        no_room = _want_of_room(return_code, last)
        if no_room is not None:
            return write_error(self.final, no_room, partial=partial)
        hint = "choose a name ending in .mp4, which needs no ffmpeg program"
        if partial is not None:
            hint += f"; what was written is in {partial}"
        return OutputError(
            f"{self.final} cannot be written: ffmpeg ended with {return_code}: "
            f"{last or 'no message'}",
            hint=hint,
            code="E-OUTPUT-FFMPEG",
        )


def ffmpeg_program() -> str:
    """The ffmpeg program: ``IMAGEIO_FFMPEG_EXE``, imageio-ffmpeg's own, or one on the path.

    Raises:
        OutputError: ``E-OUTPUT-FFMPEG`` if there is none.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        # Without the package its variable still counts.
        found = os.environ.get("IMAGEIO_FFMPEG_EXE") or shutil.which("ffmpeg")
    if not found:
        raise OutputError(
            "no ffmpeg program was found",
            hint="pip install 'joyflash[ffmpeg]', or choose a name ending in .mp4",
            code="E-OUTPUT-FFMPEG",
        )
    return found


def _want_of_room(return_code: int, message: str) -> OSError | None:
    """The system's error where the program ended for want of room."""
    if return_code == -signal.SIGXFSZ:
        return OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    numbers = [number for number in DISK_FULL if os.strerror(number) in message]
    return OSError(numbers[0], os.strerror(numbers[0])) if numbers else None
