"""Other containers through the ffmpeg program: frames on its standard input, sound from a file."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from joyflash_cli.errors import OutputError
from joyflash_cli.media.audio import write_wav
from joyflash_cli.media.muxer import even_frames, exact_fps
from joyflash_cli.media.pending import PendingFile, write_error
from joyflash_cli.media.probe import MediaInfo
from joyflash_cli.types import AudioClip

_H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "{preset}", "-crf", "{crf}")
_VP9 = ("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-deadline", "realtime", "-cpu-used", "8")

_CODECS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # suffix: (video options, audio options)
    ".mkv": (_H264, ("-c:a", "flac")),
    ".mov": (_H264, ("-c:a", "aac", "-b:a", "192k", "-ar", "48000")),
    ".webm": (
        (*_VP9, "-crf", "{crf}", "-b:v", "0"),
        ("-c:a", "libopus", "-b:a", "128k", "-ar", "48000"),
    ),
}

_RGB_TO_709 = "scale=out_color_matrix=bt709:out_range=tv"
_709_TAGS = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")


class FfmpegMuxer:
    """Writes MKV, MOV or WebM with the ffmpeg program, its return code always checked.

    Args:
        path: Where the finished video goes.
        size: Width and height of the frames; odd sides grow by one repeated row or column.
        fps: Frames per second.
        audio: Original sound; MKV keeps it exactly (FLAC), the others compress it at 48 kHz.
        metadata: Tags of the file.
        overwrite: Whether a file already there may be replaced.
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
        audio: AudioClip | None = None,
        metadata: dict[str, str] | None = None,
        overwrite: bool = False,
        crf: int = 18,
        preset: str = "veryfast",
        program: str | None = None,
    ) -> None:
        self._size = size
        self._fps = exact_fps(fps)
        self._audio = audio
        self._num_frames = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: IO[bytes] | None = None
        self._program = program or ffmpeg_program()
        self._file = PendingFile(path, overwrite=overwrite)
        self._wav = self._file.temporary.with_suffix(".wav")
        try:
            if audio is not None:
                write_wav(self._wav, audio)
            self._start(metadata or {}, crf=crf, preset=preset)
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError):
                raise write_error(self._file.final, error) from error
            raise

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        return self._num_frames

    def write(self, frames: np.ndarray) -> None:
        """Appends frames; see :meth:`Muxer.write`."""
        if self._process is None or self._process.stdin is None:
            raise ValueError("the file is closed")
        try:
            for frame in even_frames(frames, self._size):
                self._process.stdin.write(np.ascontiguousarray(frame).data)
                self._num_frames += 1
        except OSError as error:
            raise self._failure(self._wait()) from error

    def finish(self) -> MediaInfo:
        """Completes, reads back and names the file; see :meth:`Muxer.finish`."""
        if self._num_frames == 0:
            self.discard()
            raise ValueError("no frame was written")
        self._complete()
        audio_s = None if self._audio is None else self._audio.duration_s
        try:
            return self._file.commit(num_frames=self._num_frames, fps=self._fps, audio_s=audio_s)
        finally:
            self.discard()

    def keep_partial(self) -> Path | None:
        """Completes what there is, the sound cut to it; see :meth:`Muxer.keep_partial`."""
        if self._process is None or self._num_frames == 0:
            self.discard()
            return None
        self._complete()
        try:
            self._cut_to_video()
            return self._file.keep_partial()
        finally:
            self.discard()

    def discard(self) -> None:
        """Stops the program and removes every trace."""
        if self._process is not None:
            self._process.kill()
            self._wait()
        if self._messages is not None:
            self._messages.close()
            self._messages = None
        self._wav.unlink(missing_ok=True)
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

    def _start(self, metadata: dict[str, str], *, crf: int, preset: str) -> None:
        video_options, audio_options = _CODECS[self._file.final.suffix.lower()]
        fields = {"crf": str(crf), "preset": preset}
        width, height = self._size
        command = [self._program, "-hide_banner", "-loglevel", "error", "-nostats", "-y"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-s", f"{width + width % 2}x{height + height % 2}"]
        command += ["-r", str(self._fps), "-i", "pipe:0"]
        if self._audio is not None:
            command += ["-i", _file_address(self._wav)]
        command += ["-map", "0:v", "-vf", _RGB_TO_709, *_709_TAGS]
        command += [option.format(**fields) for option in video_options]
        command += ["-g", str(max(1, round(self._fps)))]
        if self._audio is not None:
            command += ["-map", "1:a", *audio_options]
        for key, value in metadata.items():
            command += ["-metadata", f"{key}={value}"]
        command.append(_file_address(self._file.temporary))
        # A file, not a pipe: nobody reads it while frames are written, and a full pipe would
        # stop ffmpeg.
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed by discard)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._messages,
            start_new_session=True,  # Ctrl-C is for this program, which then finishes the file
        )

    def _complete(self) -> None:
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

    def _failure(self, return_code: int) -> OutputError:
        """The error for a failed run with ffmpeg's last line; what plays is kept as partial."""
        last = ""
        if self._messages is not None:
            self._messages.seek(0)
            lines = self._messages.read().decode(errors="replace").strip().splitlines()
            last = lines[-1] if lines else ""
        partial = self._file.keep_partial()
        self.discard()
        hint = "choose a name ending in .mp4, which needs no ffmpeg program"
        if partial is not None:
            hint += f"; what was written is in {partial}"
        return OutputError(
            f"{self._file.final} cannot be written: ffmpeg ended with {return_code}: "
            f"{last or 'no message'}",
            hint=hint,
            code="E-OUTPUT-FFMPEG",
        )

    def _cut_to_video(self) -> None:
        """Rewrites the temporary file without the sound beyond the last frame."""
        if self._audio is None:
            return
        whole = self._file.temporary.with_suffix(f".whole{self._file.final.suffix}")
        try:
            os.replace(self._file.temporary, whole)
            length_s = float(self._num_frames / self._fps)
            command = [self._program, "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
            command += ["-i", _file_address(whole), "-map", "0", "-c", "copy"]
            command += ["-t", f"{length_s:.6f}", _file_address(self._file.temporary)]
            done = subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=self._messages, check=False
            )
            if done.returncode != 0:
                raise self._failure(done.returncode)
        finally:
            whole.unlink(missing_ok=True)


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


def _file_address(path: Path) -> str:
    """A path ffmpeg cannot take for an option or a protocol, whatever it is called."""
    return f"file:{path.absolute()}"
