"""What a film is made of, whatever it is written to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from joyflash_cli.types import AudioClip, SoundFormat


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
    """

    size: tuple[int, int]
    fps: Fraction
    audio: AudioClip | SoundFormat | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    crf: int = 18
    preset: str | None = None
    given_fps: Fraction | None = None
