"""The pictures of a live video: chunks of one stream, and which frame each of them is for."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from joyflash_cli.render.live_sound import TrackReader
from joyflash_cli.types import AudioClip, FrameChunk


class Chunks(Protocol):
    """Chunks of a stream, made by somebody else meanwhile."""

    def poll(self, timeout_s: float) -> tuple[float, FrameChunk] | None:
        """The next chunk and when it was ready, or ``None`` when there is none in this time."""
        ...

    def close(self) -> None:
        """Ends the stream."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LiveFrame:
    """A frame that is to leave now.

    Attributes:
        index: Position in the video, from 0.
        pixels: ``(H, W, 3)`` uint8 RGB.
        sound: Its own sound ``(n, 1)`` float32 at the session's rate.
        is_spoken: Whether pushed sound is in it.
        is_repeated: Whether the picture is that of the frame before, because none was ready.
    """

    index: int
    pixels: np.ndarray
    sound: AudioClip
    is_spoken: bool
    is_repeated: bool


class Film:
    """One stream of pictures: those of one reference picture."""

    def __init__(self, reader: TrackReader, chunks: Chunks) -> None:
        self.reader, self.chunks = reader, chunks
        self._chunk: FrameChunk | None = None
        self._next = 0

    def poll(self, timeout_s: float) -> float | None:
        """Fetches a chunk unless one is at hand: when it was ready."""
        if self._chunk is not None and self._next < len(self._chunk.frames):
            return None
        found = self.chunks.poll(timeout_s)
        if found is None:
            return None
        ready_s, self._chunk = found
        self._next = 0
        return ready_s

    def at_hand(self, index: int) -> np.ndarray | None:
        """The picture of a frame; older ones are dropped. ``None`` where it is not at hand."""
        while self._chunk is not None and self._next < len(self._chunk.frames):
            frame = self.reader.frame_of(self._chunk.first_frame + self._next)
            if frame > index:
                break
            self._next += 1
            if frame == index:
                return np.asarray(self._chunk.frames[self._next - 1])
        return None

    @property
    def next_frame(self) -> int | None:
        """Which frame of the video the next picture at hand is."""
        if self._chunk is None or self._next >= len(self._chunk.frames):
            return None
        return self.reader.frame_of(self._chunk.first_frame + self._next)
