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
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from joyflash_cli.errors import JoyFlashError, OutputError
from joyflash_cli.files import DISK_FULL
from joyflash_cli.media.outputs.clock import exact_fps
from joyflash_cli.media.outputs.discarding import DiscardedOnExit
from joyflash_cli.media.outputs.pending import PendingFile, write_error
from joyflash_cli.media.outputs.probe import MediaInfo
from joyflash_cli.media.outputs.tracks import TrackOptions, TrackWriter, is_write_failure
from joyflash_cli.types import AudioClip, SoundFormat

# No macroblock tree: see media.tracks, the same frames must give the same bytes.
_X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-mbtree", "0")
_H264 = (*_X264, "-preset", "{preset}", "-crf", "{crf}")
_VP9 = ("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-deadline", "realtime", "-cpu-used", "8")

_CODECS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # suffix: (video options, audio options)
    ".mkv": (_H264, ("-c:a", "flac")),
    # Its index in front, so that a player on a network begins at once.
    ".mov": (
        (*_H264, "-movflags", "+faststart"),
        ("-c:a", "aac", "-b:a", "192k", "-ar", "48000"),
    ),
    ".webm": (
        (*_VP9, "-crf", "{crf}", "-b:v", "0"),
        ("-c:a", "libopus", "-b:a", "128k", "-ar", "48000"),
    ),
}

_RGB_TO_709 = "scale=out_color_matrix=bt709:out_range=tv"
_709_TAGS = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")


class FfmpegMuxer(DiscardedOnExit):
    """Writes MKV, MOV or WebM with the ffmpeg program, its return code always checked.

    Args:
        path: Where the finished video goes.
        size: Width and height of the frames; odd sides grow by one repeated row or column.
        fps: Frames per second.
        audio: Original sound, or its format; MKV keeps it exactly (FLAC), the others compress it
            at 48 kHz.
        overwrite: Whether a file already there may be replaced.
        metadata: Tags of the file.
        crf: Quality of x264 or VP9, 0 (lossless) upward.
        preset: x264's speed.
        program: The ffmpeg program; by default :func:`ffmpeg_program`.

    Raises:
        OutputError: The target cannot be written or no ffmpeg program is found.
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
        **encoding: int | str | None,
    ) -> None:
        self._fps = exact_fps(fps)
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: IO[bytes] | None = None
        self._tracks: TrackWriter | None = None
        self._program = str(encoding.pop("program", None) or ffmpeg_program())
        self._file = PendingFile(path, overwrite=overwrite)
        fields = {"crf": encoding.get("crf", 18), "preset": encoding.get("preset", "veryfast")}
        try:
            stream = self._start(metadata or {}, fields, has_sound=audio is not None)
            raw = TrackOptions(kind="raw", container={"flush_packets": "1"})
            self._tracks = TrackWriter(stream, "nut", size=size, fps=fps, audio=audio, options=raw)
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError):
                raise write_error(self._file.final, error) from error
            raise

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        return self._tracks.num_frames if self._tracks is not None else 0

    def write(self, frames: np.ndarray, sound: AudioClip | None = None) -> None:
        """Appends frames and their sound; see :meth:`Muxer.write`."""
        if self._process is None or self._tracks is None:
            raise ValueError("the file is closed")
        try:
            self._tracks.write(frames, sound)
        except Exception as error:
            if not is_write_failure(error):
                raise
            raise self._failure(self._wait()) from error

    def finish(self) -> MediaInfo:
        """Completes, reads back and names the file; see :meth:`Muxer.finish`."""
        if self.num_frames == 0 or self._tracks is None:
            self.discard()
            raise ValueError("no frame was written")
        self._complete()
        sound = self._tracks.sound
        audio_s = None if sound is None else sound.duration_s
        try:
            return self._file.commit(num_frames=self.num_frames, fps=self._fps, audio_s=audio_s)
        finally:
            self.discard()

    def keep_partial(self) -> Path | None:
        """Completes what there is under the partial name; see :meth:`Muxer.keep_partial`."""
        if self._process is None or self.num_frames == 0:
            self.discard()
            return None
        self._complete()
        try:
            return self._file.keep_partial()
        finally:
            self.discard()

    def discard(self) -> None:
        """Stops the program and removes every trace."""
        if self._process is not None:
            self._process.kill()
            self._wait()
        if self._tracks is not None:
            self._tracks.abandon()
        if self._messages is not None:
            self._messages.close()
            self._messages = None
        self._file.discard()

    def _start(
        self, metadata: Mapping[str, str], fields: Mapping[str, object], *, has_sound: bool
    ) -> IO[bytes]:
        """Starts the program; what it reads."""
        video_options, audio_options = _CODECS[self._file.final.suffix.lower()]
        command = [self._program, "-hide_banner", "-loglevel", "error", "-nostats", "-y"]
        # Everything is said in the stream's header: nothing needs to be guessed from the frames.
        command += ["-probesize", "32", "-analyzeduration", "0", "-f", "nut", "-i", "pipe:0"]
        command += ["-map", "0:v", "-vf", _RGB_TO_709, *_709_TAGS]
        command += [option.format(**fields) for option in video_options]
        command += ["-g", str(max(1, round(self._fps)))]
        if has_sound:
            command += ["-map", "0:a", *audio_options]
        for key, value in metadata.items():
            command += ["-metadata", f"{key}={value}"]
        command.append(_file_address(self._file.temporary))
        # A file, not a pipe: nobody reads it while frames are written, and a full pipe would
        # stop ffmpeg.
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed by discard)
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._messages,
            start_new_session=True,  # Ctrl-C is for this program, which then finishes the file
        )
        self._process = process
        return _checked_pipe(process)

    def _complete(self) -> None:
        try:
            if self._tracks is not None:
                self._tracks.close()
        except Exception as error:
            if not is_write_failure(error):
                raise
            raise self._failure(self._wait()) from error
        return_code = self._wait()
        if return_code != 0:
            raise self._failure(return_code)

    def _wait(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.stdin is not None:
            # It may have gone already; its return code tells why.
            with contextlib.suppress(OSError):
                process.stdin.close()
        return process.wait()

    def _failure(self, return_code: int) -> JoyFlashError:
        """The error for a failed run with ffmpeg's last line; what plays is kept as partial."""
        last = ""
        if self._messages is not None:
            self._messages.seek(0)
            lines = self._messages.read().decode(errors="replace").strip().splitlines()
            last = lines[-1] if lines else ""
        partial = self._file.keep_partial()
        self.discard()
        no_room = _want_of_room(return_code, last)
        if no_room is not None:
            return write_error(self._file.final, no_room, partial=partial)
        hint = "choose a name ending in .mp4, which needs no ffmpeg program"
        if partial is not None:
            hint += f"; what was written is in {partial}"
        return OutputError(
            f"{self._file.final} cannot be written: ffmpeg ended with {return_code}: "
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


def _file_address(path: Path) -> str:
    """A path ffmpeg cannot take for an option or a protocol, whatever it is called."""
    return f"file:{path.absolute()}"


def _checked_pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    """The program's standard input."""
    if process.stdin is None:
        raise OSError("the ffmpeg program has no standard input")
    return process.stdin
