"""One video to be judged: what metrics ask for is read when they ask, and once for all of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.measures.film import FilmReading, read_film
from joyflash_cli.measures.film_figures import Figures, figures_of
from joyflash_cli.measures.reader import Readers
from joyflash_cli.media.inputs.picture import read_picture
from joyflash_cli.media.inputs.talking_video import (
    VideoFacts,
    read_facts,
    read_talking_video,
    steady_frames,
)
from joyflash_cli.media.outputs.names import sidecar_path
from joyflash_cli.render.record import read_sidecar


@dataclass(frozen=True)
class VideoRow:
    """One video and what belongs to it.

    Attributes:
        name: What it is called in tables and files; no other row has it.
        video: The file.
        reference: The picture that it was made of; ``None`` is its first frame.
        audio: The sound that it was made of; ``None`` is its own track.
        truth: The true film of the same person and sentence, if there is one.
        system: What made it; empty if nobody says.
        category: Kind of avatar or of voice; empty if nobody says.
    """

    name: str
    video: Path
    reference: Path | None = None
    audio: Path | None = None
    truth: Path | None = None
    system: str = ""
    category: str = ""

    @property
    def files(self) -> dict[str, Path]:
        """Its files by what they are."""
        named = {"video": self.video, "reference": self.reference, "audio": self.audio,
                 "truth": self.truth}  # fmt: skip
        return {name: path for name, path in named.items() if path is not None}


@dataclass(eq=False)
class Clip:
    """A video while it is measured.

    Everything may raise :class:`DataError`, :class:`AudioError` or :class:`ImageError`, because
    nothing is read before it is asked for.

    Attributes:
        row: The video and what belongs to it.
        readers: Embed the person.
    """

    row: VideoRow
    readers: Readers = field(repr=False)

    @cached_property
    def facts(self) -> VideoFacts:
        """What the file says of itself."""
        return read_facts(self.row.video)

    @property
    def fps(self) -> float:
        """Frames per second of the file."""
        return self.facts.fps

    def frames(self, fps: float | None = None) -> Iterator[np.ndarray]:
        """Its frames, upright, ``(H, W, 3)`` uint8 RGB each, decoded as they are taken.

        Args:
            fps: Frames per second wanted: frame p is the newest one at p / fps. The file's own
                rate if ``None``.
        """
        return steady_frames(
            self.row.video,
            fps=self.fps if fps is None else fps,
            fit=lambda pixels: pixels,
            name=self.row.video.name,
        )

    @cached_property
    def waveform(self) -> np.ndarray | None:
        """Its sound, 16 kHz mono float32 ``(samples,)``; sample 0 belongs to frame 0.

        ``None`` where the video has no track and no sound was named.
        """
        if self.row.audio is None and not self.facts.has_sound:
            return None
        video = read_talking_video(
            self.row.video, fps=self.fps, fit=lambda pixels: pixels, sound=self.row.audio
        )
        return video.waveform

    @cached_property
    def first_frame(self) -> np.ndarray:
        """``(H, W, 3)`` uint8."""
        return next(self.frames())

    @cached_property
    def reference(self) -> np.ndarray:
        """The picture that the video was made of, or its first frame, ``(H, W, 3)`` uint8."""
        if self.row.reference is None:
            return self.first_frame
        return read_picture(self.row.reference).pixels

    @cached_property
    def film(self) -> FilmReading:
        """What is read of the face in every frame, at the file's own rate."""
        return read_film(self.frames(), fps=self.fps, readers=self.readers)

    @cached_property
    def figures(self) -> Figures:
        """What its frames say without a truth, and of lips and sound where it has sound."""
        return figures_of(self.film, self.waveform)

    @cached_property
    def truth(self) -> "Clip | None":
        """The true film, if there is one."""
        if self.row.truth is None:
            return None
        return Clip(VideoRow(self.row.truth.stem, self.row.truth), self.readers)

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """The record that JoyFlash writes beside a video; empty without one."""
        if not sidecar_path(self.row.video).is_file():
            return {}
        try:
            return read_sidecar(self.row.video)
        except DataError:
            return {}  # somebody else's file
