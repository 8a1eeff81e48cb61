"""Raw frames and samples for other programs, on descriptors that the caller has opened."""

from typing import TYPE_CHECKING, BinaryIO, cast

from joyflash_cli.cli.events import open_descriptor
from joyflash_cli.errors import UsageError
from joyflash_cli.media.outputs.whole_writes import write_all
from joyflash_cli.streaming import BoundedQueue, Cancellation, Cancelled, QueueEnded, in_background

if TYPE_CHECKING:
    from joyflash_cli.render.live_film import LiveFrame

WAITING_FRAMES = 25
"""That may wait for a reader of both: it may want some of one before any of the other."""


class RawStream:
    """Bytes to a descriptor, in a thread of its own; a slow reader makes ``write`` wait."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._cancellation = Cancellation()
        self._queue: BoundedQueue[bytes] = BoundedQueue(WAITING_FRAMES, self._cancellation)
        self._error: OSError | None = None
        self._thread = in_background(self._run, "raw")

    def write(self, data: bytes) -> None:
        """Passes bytes on.

        Raises:
            BrokenPipeError: When the reader has gone; ``OSError`` for what else went wrong.
        """
        try:
            self._queue.put(data)
        except Cancelled:
            raise self._error or BrokenPipeError() from None

    def close(self) -> None:
        """Waits until everything was read, and closes."""
        self._queue.end()
        self._thread.join()
        self._stream.close()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while True:
                write_all(self._stream, self._queue.get())
        except (QueueEnded, Cancelled):
            return
        except OSError as error:
            self._error = error
            self._cancellation.request()


class RawOutput:
    """Frames as RGB, 8 bits, row by row; sound as 16-bit little-endian samples.

    Args:
        frames: Descriptor for the frames; ``None`` for none.
        sound: Descriptor for the sound; likewise.

    Raises:
        UsageError: For a descriptor that cannot be written, or is given twice.
    """

    def __init__(self, frames: int | None, sound: int | None) -> None:
        if frames is not None and frames == sound:
            raise UsageError(
                f"--frames-fd and --sound-fd are both {frames}", hint="open one for each"
            )
        self._frames = None if frames is None else open_descriptor(frames, "--frames-fd")
        self._sound = None if sound is None else open_descriptor(sound, "--sound-fd")
        self._streams: tuple[RawStream | None, RawStream | None] = (None, None)

    def __enter__(self) -> "RawOutput":
        opened = (self._frames, self._sound)
        self._streams = cast(
            "tuple[RawStream | None, RawStream | None]",
            tuple(None if stream is None else RawStream(stream) for stream in opened),
        )
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for stream in self._streams:
            if stream is not None and kind is None:
                stream.close()

    def write(self, frame: "LiveFrame") -> None:
        """Passes a frame and its sound on."""
        import numpy as np

        frames, sound = self._streams
        if frames is not None:
            frames.write(np.ascontiguousarray(frame.pixels).tobytes())
        if sound is not None:
            levels = np.clip(frame.sound.samples, -1, 1) * np.float32(32767)
            sound.write(levels.round().astype("<i2").tobytes())
