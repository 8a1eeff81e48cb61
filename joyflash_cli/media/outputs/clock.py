"""Frames and sound on one clock: exact rates, and the samples that belong to each frame."""

from __future__ import annotations

from collections import deque
from fractions import Fraction

import numpy as np

from joyflash_cli.errors import OutputError
from joyflash_cli.types import AudioClip, SoundFormat, exact_rate


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
