"""Frames and sound into one container by PyAV, in lock-step: after each frame its own sound.

Picture i lies at i / fps, and every cut has both tracks.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from joyflash_cli.errors import OutputError
from joyflash_cli.media.inputs.audio import CHANNEL_LAYOUTS, sound_frame
from joyflash_cli.media.outputs.formats import OutputFormat
from joyflash_cli.types import AudioClip, SoundFormat, exact_rate

AAC_RATE_HZ = 48_000
"""Rate of the audio track where the original is not 44.1 to 96 kHz, and of Opus: AAC's priming is
64 ms at 16 kHz but 21 ms at 48 kHz."""

_AAC_KEPT_RATES_HZ = (44_100, 48_000, 64_000, 88_200, 96_000)
_BITS_PER_CHANNEL = 96_000
_SAMPLES = {"aac": "fltp", "flac": "s32", "libopus": "flt"}
_BT709 = 1  # AVCOL_*_BT709 and AVCOL_RANGE_MPEG are all 1

# What x264 holds back must stay small, or a killed process loses it: one thread, 4 frames of
# look-ahead, one reordered frame. No macroblock tree: it reads past its rows where 128 does not
# divide the width, so the same frames gave other bytes in one of eight small videos.
_FEW_FRAMES_INSIDE = {"rc-lookahead": "4", "bf": "1", "threads": "1", "mbtree": "0"}
_SMALL_PIXELS = 640 * 640
"""Up to here x264 takes its time; at 1080 x 1350, superfast saves 7 of 18 ms a frame for a tenth
more bytes at the same quality."""
_NO_FRAME_INSIDE = {"tune": "zerolatency", "sc_threshold": "0"}  # key frames by the clock alone

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Film:
    """Frames and sound to be written.

    Attributes:
        size: Width and height of the frames; in a video, odd sides grow by one repeated row or
            column.
        fps: Frames per second.
        audio: The original sound, or its format where the sound comes with the frames; ``None``
            for a silent film.
        metadata: Tags; containers keep well-known keys such as ``comment``.
        crf: Quality of x264 or VP9, 0 (lossless) to 51; 18 is visually clean.
        preset: x264's speed; ``None`` chooses by the size of the frames.
        given_fps: At which frames are given where that is another rate.
        seal: Writes a signed copy of a finished file to another path, or what is to lie beside it;
            ``None`` where nothing is signed.
    """

    size: tuple[int, int]
    fps: Fraction
    audio: AudioClip | SoundFormat | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    crf: int = 18
    preset: str | None = None
    given_fps: Fraction | None = None
    seal: Callable[[Path, Path], None] | None = None


class Tracks(ABC):
    """Frames and sound while they are written: after each frame the sound that belongs to it.

    Args:
        film: What is written.

    Attributes:
        num_frames: Frames that were written.
        sound: What is still to be written of the sound; ``None`` for a silent film.
        is_open: Whether more can be written.
    """

    is_open = True

    def __init__(self, film: Film) -> None:
        self.film, self.num_frames = film, 0
        self.sound = None if film.audio is None else SoundTrack(film.audio, film.fps)

    def write(self, frames: np.ndarray, sound: AudioClip | None = None) -> None:
        """Appends frames ``(F, H, W, 3)`` uint8 RGB and the sound that belongs to them.

        Args:
            frames: Of the announced size.
            sound: What follows the sound given before; it may reach beyond these frames.

        Raises:
            ValueError: If it is closed, or shape or dtype are not as announced: a mistake of the
                calling code.
        """
        if not self.is_open:
            raise ValueError("the file is closed")
        width, height = self.film.size
        if frames.ndim != 4 or frames.shape[1:] != (height, width, 3) or frames.dtype != np.uint8:
            raise ValueError(
                f"frames are {frames.shape} {frames.dtype}; "
                f"(F, {height}, {width}, 3) uint8 expected"
            )
        if self.sound is not None and sound is not None:
            self.sound.add(sound)
        self._catch_up()  # what belongs to frames that were written before their sound was there
        for pixels in frames:
            self._write_frame(pixels)
            self.num_frames += 1
            self._catch_up()

    @abstractmethod
    def close(self) -> None:
        """Completes what was written."""

    @abstractmethod
    def abandon(self) -> None:
        """Closes without caring for what is inside; safe to call at any time."""

    @abstractmethod
    def _write_frame(self, pixels: np.ndarray) -> None:
        """Writes frame ``num_frames``, ``(H, W, 3)``."""

    @abstractmethod
    def _write_sound(self, samples: np.ndarray, first: int) -> None:
        """Writes samples ``(n, channels)``, the first of which is sample ``first``."""

    def _catch_up(self) -> None:
        """Writes the samples up to the end of the last frame."""
        if self.sound is not None:
            first = self.sound.num_taken
            samples = self.sound.take(self.num_frames)
            if len(samples):
                self._write_sound(samples, first)


class TrackWriter(Tracks):
    """An open container with a video and, if there is sound, an audio track.

    4:2:0 colour needs even sides: 129 x 100 becomes 130 x 100 by repeating the last row
    or column; nothing is rescaled.

    Args:
        target: A path, or a binary stream that is only written.
        entry: Its container, and with which encoders.
        film: What is written.
        is_live: Whether no frame may wait inside the encoder.
        options: Of libavformat.

    Raises:
        OSError: If it cannot be opened; ``av.FFmpegError`` likewise.
        OutputError: ``E-OUTPUT-SUFFIX`` where the FFmpeg libraries here lack an encoder.
    """

    def __init__(
        self,
        target: Any,
        entry: OutputFormat,
        film: Film,
        *,
        is_live: bool = False,
        options: Mapping[str, str],
    ) -> None:
        import av

        super().__init__(film)
        self._container: Any = av.open(
            target, mode="w", format=entry.container, options=dict(options)
        )
        try:
            self._container.metadata.update(film.metadata)
            self._video = self._add_video(entry, is_live)
            sound = self.sound
            self._audio: Any = None if sound is None else self._add_audio(entry, sound.format)
        except av.codec.codec.UnknownCodecError as error:
            self.abandon()
            raise OutputError(
                f"the FFmpeg libraries on this machine have no encoder {error}",
                hint="end the name in .mp4",
                code="E-OUTPUT-SUFFIX",
            ) from error
        except BaseException:
            self.abandon()
            raise

    def close(self) -> None:
        """Flushes the encoders and completes the container."""
        for track in (self._video, self._audio):
            if track is not None:
                self._container.mux(track.encode(None))
        container, self._container, self.is_open = self._container, None, False
        container.close()

    def abandon(self) -> None:
        """Closes without caring for what is inside; safe to call at any time."""
        container, self._container, self.is_open = self._container, None, False
        if container is None:
            return
        try:
            container.close()
        except Exception as error:  # the first failure is the one worth telling
            logger.debug("closing an abandoned container: %s", error)

    def _add_video(self, entry: OutputFormat, is_live: bool) -> Any:
        film, (width, height) = self.film, self.film.size
        video = self._container.add_stream(entry.video, rate=film.fps)
        video.width, video.height = width + width % 2, height + height % 2
        video.pix_fmt = "yuv420p"
        video.time_base = 1 / film.fps
        context = video.codec_context
        context.time_base = 1 / film.fps
        # A key frame every second: where players enter, and where segments are cut.
        context.gop_size = max(1, round(film.fps))
        if entry.video == "libx264":
            delay = _NO_FRAME_INSIDE if is_live else _FEW_FRAMES_INSIDE
            preset = film.preset or ("veryfast" if width * height <= _SMALL_PIXELS else "superfast")
            context.options = {"crf": str(film.crf), "preset": preset, **delay}
        else:
            context.bit_rate = 0  # constant quality
            context.options = {"crf": str(film.crf), "deadline": "realtime", "cpu-used": "8"}
        # Stated, because players guess differently for small pictures.
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _BT709
        return video

    def _add_audio(self, entry: OutputFormat, sound: SoundFormat) -> Any:
        rate_hz, layout = sound.sample_rate_hz, CHANNEL_LAYOUTS[sound.channels]
        if entry.mixes_down and sound.channels > 2:
            layout = "stereo"
        if entry.audio == "libopus" or entry.audio == "aac" and rate_hz not in _AAC_KEPT_RATES_HZ:
            rate_hz = AAC_RATE_HZ
        audio = self._container.add_stream(entry.audio, rate=rate_hz, layout=layout)
        audio.codec_context.format = _SAMPLES[entry.audio]
        if entry.audio != "flac":
            audio.bit_rate = _BITS_PER_CHANNEL * audio.codec_context.channels
        return audio

    def _write_frame(self, pixels: np.ndarray) -> None:
        import av

        height, width = pixels.shape[:2]
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts = self.num_frames
        frame.time_base = 1 / self.film.fps
        self._container.mux(self._video.encode(frame))

    def _write_sound(self, samples: np.ndarray, first: int) -> None:
        assert self.sound is not None
        frame = sound_frame(samples, self.sound.format.sample_rate_hz, first, planar=True)
        self._container.mux(self._audio.encode(frame))


class SoundTrack:
    """Sound on its way into a file: given in pieces of any length, taken frame by frame.

    Args:
        audio: All of the sound, or its format where it is added later.
        fps: Frames per second.
    """

    def __init__(self, audio: AudioClip | SoundFormat, fps: Fraction) -> None:
        self._fps = fps
        self._pieces: deque[np.ndarray] = deque()
        self.num_taken = 0
        if isinstance(audio, AudioClip):
            self.format = SoundFormat(audio.sample_rate_hz, audio.samples.shape[1])
            self.add(audio)
        else:
            self.format = audio

    @property
    def duration_s(self) -> float:
        """Seconds of sound given so far, taken or not."""
        waiting = sum(len(piece) for piece in self._pieces)
        return (self.num_taken + waiting) / self.format.sample_rate_hz

    def add(self, sound: AudioClip) -> None:
        """Appends sound."""
        if sound.samples.shape[1] != self.format.channels:
            raise ValueError(f"{sound.samples.shape[1]} channels for {self.format}")
        if len(sound.samples):
            self._pieces.append(sound.samples)

    def take(self, num_frames: int | None = None) -> np.ndarray:
        """The samples ``(n, channels)`` not taken yet that lie before the end of so many frames.

        Args:
            num_frames: ``None`` for all that is left.
        """
        wanted = sum(map(len, self._pieces))
        if num_frames is not None:
            until = samples_until(num_frames, self.format.sample_rate_hz, self._fps)
            wanted = until - self.num_taken
        parts = [np.zeros((0, self.format.channels), np.float32)]
        while self._pieces and wanted > 0:
            piece = self._pieces.popleft()
            if len(piece) > wanted:
                self._pieces.appendleft(piece[wanted:])
                piece = piece[:wanted]
            parts.append(piece)
            wanted -= len(piece)
            self.num_taken += len(piece)
        return np.concatenate(parts)


def samples_until(num_frames: int, rate_hz: int, fps: Fraction) -> int:
    """Audio samples that lie before the end of a number of frames: ``floor(n * rate / fps)``.

    Differences of neighbours are what is muxed with each frame, so that any cut leaves tracks
    of the same length.
    """
    return num_frames * rate_hz * fps.denominator // fps.numerator


def exact_fps(fps: float | Fraction) -> Fraction:
    """Frames per second as a fraction: 25 stays 25, 29.97 becomes 30000/1001.

    Raises:
        OutputError: ``E-OUTPUT-FPS`` outside 1..240.
    """
    if not 1 <= fps <= 240:
        raise OutputError(
            f"{fps} frames a second cannot be written; 1 to 240 can", code="E-OUTPUT-FPS"
        )
    return exact_rate(fps)


class Retiming:
    """Frame j of the video is the newest frame that was due at j / output_fps.

    A frame mixed of two shows two mouths; one that is held is only a little late. So sound and
    picture stay together to within one frame of the slower of the two rates.

    Args:
        fps: Frames per second of what :meth:`due` is given.
        output_fps: Frames per second of the video.
    """

    def __init__(self, fps: Fraction, output_fps: Fraction) -> None:
        self._output_fps = output_fps
        self._frames_each = fps / output_fps  # given frames for one of the video
        self._num_given = 0
        self._num_due = 0
        self._sound_s = Fraction(0)
        self._has_sound = False
        self._recent: np.ndarray | None = None

    def due(self, frames: np.ndarray, sound: AudioClip | None = None) -> np.ndarray:
        """The video's next frames ``(n, H, W, 3)`` once these and their sound are there.

        Args:
            frames: The next ``(F, H, W, 3)``, at the given rate.
            sound: What follows the sound given before.
        """
        if sound is not None:
            self._has_sound = True
            self._sound_s += Fraction(len(sound.samples), sound.sample_rate_hz)
        known = frames if self._recent is None else np.concatenate([self._recent, frames])
        self._num_given += len(frames)
        first_known = self._num_given - len(known)
        # The last given frame may reach beyond the sound by several written ones.
        due = math.ceil(self._num_given / self._frames_each)
        if self._has_sound:
            due = min(due, math.ceil(self._sound_s * self._output_fps))
        places = [
            math.floor(index * self._frames_each) - first_known
            for index in range(self._num_due, due)
        ]
        self._num_due = max(due, self._num_due)
        # Sound is cut to whole samples, so a frame can come due with the next piece only.
        self._recent = known[-(math.ceil(self._frames_each) + 1) :]
        return known[places]
