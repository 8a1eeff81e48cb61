"""Frames of one rate into a video of another: repeated or left out, never mixed."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np

from joyflash_cli.media.outputs.clock import exact_fps
from joyflash_cli.media.outputs.discarding import DiscardedOnExit
from joyflash_cli.media.outputs.muxer import Muxer
from joyflash_cli.media.outputs.probe import MediaInfo
from joyflash_cli.types import AudioClip


class RetimedMuxer(DiscardedOnExit):
    """Writes frame j as the newest frame that was due at j / output_fps.

    A frame mixed of two shows two mouths; one that is held is only a little late. So sound and
    picture stay together to within one frame of the slower of the two rates.

    Args:
        inner: Writes the video, opened at ``output_fps``.
        fps: Frames per second of what :meth:`write` is given.
        output_fps: Frames per second of the video.
    """

    def __init__(
        self, inner: Muxer, *, fps: float | Fraction, output_fps: float | Fraction
    ) -> None:
        self._inner = inner
        self._output_fps = exact_fps(output_fps)
        self._frames_each = exact_fps(fps) / self._output_fps  # given frames for one written
        self._num_given = 0
        self._sound_s = Fraction(0)
        self._has_sound = False
        self._recent: np.ndarray | None = None

    @property
    def num_frames(self) -> int:
        """Frames written so far, at the video's rate."""
        return self._inner.num_frames

    def write(self, frames: np.ndarray, sound: AudioClip | None = None) -> None:
        """Appends frames of the given rate and their sound; see :meth:`Muxer.write`."""
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
            for index in range(self._inner.num_frames, max(due, self._inner.num_frames))
        ]
        self._inner.write(known[places], sound)
        # Sound is cut to whole samples, so a frame can come due with the next piece only.
        self._recent = known[-(math.ceil(self._frames_each) + 1) :]

    def finish(self) -> MediaInfo | None:
        """See :meth:`Muxer.finish`."""
        return self._inner.finish()

    def keep_partial(self) -> Path | None:
        """See :meth:`Muxer.keep_partial`."""
        return self._inner.keep_partial()

    def discard(self) -> None:
        """Removes every trace."""
        self._inner.discard()
