"""Frames of one rate for a video of another: repeated or left out, never mixed."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from joyflash_cli.types import AudioClip


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
