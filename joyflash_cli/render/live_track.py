"""The sound of a live video, frame by frame: what was pushed, and silence while there is nothing.

    pushed sound --> queue --> frames that are decided --> the video, frame by frame
                                        |
                                        +--> readers: the model's way to the same sound

A frame's sound is decided as late as the model allows. From then on all readers and the video hear
the same, and only ``clear`` changes it: what has not left becomes silence.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from joyflash_cli.media.inputs.sound import Sound
from joyflash_cli.media.outputs.tracks import samples_until
from joyflash_cli.render.live_queue import Mark, SegmentEnd, SoundQueue, Taken
from joyflash_cli.render.live_sound import Clock, TrackReader, WallClock
from joyflash_cli.render.sound_feed import TakenBack
from joyflash_cli.types import AudioClip, SoundFormat, exact_rate

IDLE_AFTER_S = 0.5
"""A segment that is not ended is taken to pause until nothing has come for so long."""

FADE_S = 0.005
"""Over which cleared sound falls silent: too short to be heard, long enough not to click."""

WAKE_S = 0.2


class Happening(NamedTuple):
    """Something that is told when its frame has left.

    Attributes:
        name: Of the event.
        values: Of the event; plain JSON values.
    """

    name: str
    values: dict[str, Any]


class LiveTrack:
    """Pushed sound on its way into the frames of a live video; safe for several threads.

    Args:
        fps: Frames per second.
        rate_hz: Samples per second of the video's sound, which is mono.
        max_waiting_s: Seconds of pushed samples that may wait; ``push`` waits beyond.
        clock: The time.
    """

    def __init__(
        self, fps: float, rate_hz: int, *, max_waiting_s: float = 300.0, clock: Clock | None = None
    ) -> None:
        self.format = SoundFormat(rate_hz, 1)
        self.clock: Clock = clock or WallClock()
        self.lead_frames = self.block_frames = 1
        self._fps = exact_rate(fps)
        self._changed = threading.Condition()
        self._queue = SoundQueue(rate_hz, self.clock.now)
        self._max_waiting = round(max_waiting_s * rate_hz)
        self._frames: deque[tuple[np.ndarray, int]] = deque()  # and samples that were pushed
        self._playhead = self._num_given = 0
        self._happenings: dict[int, list[Happening]] = {}
        self._readers: list[TrackReader] = []
        self._silence: dict[int, np.ndarray] = {}
        self._segment = 0
        self._spoken: range = range(0)
        self._is_speaking = self._is_begun = False
        self._is_idle_told = False
        self._busy_until = 0
        self._num_clears = 0
        self._is_closed = False

    # What the outside says.

    def push(self, sound: AudioClip) -> None:
        """Appends samples to the segment; waits while too many wait already.

        Args:
            sound: At any rate, with any number of channels; channels are mixed to one.
        """
        with self._changed:
            clears = self._num_clears
            while self._queue.num_pushed > self._max_waiting and not self._is_closed:
                self._changed.wait(WAKE_S)
            if self._num_clears == clears and not (self._is_closed or self._queue.is_ending):
                self._queue.push(sound, is_next=self._is_silent)
            # Else it was cleared with what waited before it.

    def play(self, sound: Sound, *, waits: bool) -> None:
        """Appends a sound that is read while it is heard.

        Args:
            sound: Of any origin.
            waits: Whether reading it may wait for whoever writes it.
        """
        with self._changed:
            if not self._queue.is_ending:
                self._queue.play(sound, waits=waits, is_next=self._is_silent)

    def end_segment(self, segment_id: Any = None) -> None:
        """Says that the segment is complete; what is pushed next begins another one."""
        with self._changed:
            self._queue.put(SegmentEnd(segment_id))

    def mark(self, name: Any) -> None:
        """Asks to be told when everything that was pushed before has left."""
        with self._changed:
            self._queue.put(Mark(name))

    def clear(self) -> None:
        """Drops what waits, and what was decided but has not left; it is silent from now on."""
        with self._changed:
            frame = self._num_given
            ids, names = [], []
            for at in [at for at in self._happenings if at >= frame]:
                for happening in self._happenings.pop(at):
                    if happening.name == "mark":
                        names.append(happening.values["name"])
                    elif happening.name == "segment_last_frame":
                        ids.append(happening.values["id"])
                    elif happening.name == "idle":
                        self._is_idle_told = False
            num_pushed = self._queue.num_pushed
            for item in self._queue.clear():
                if isinstance(item, Mark):
                    names.append(item.name)
                else:
                    ids.append(item.id)
            num_dropped = num_pushed + self._silence_from(frame)
            had_begun = self._is_begun and self._spoken.start < frame
            values = {
                "segment": self._segment if had_begun else None,
                "ids": ids,
                "dropped_s": round(num_dropped / self.format.sample_rate_hz, 3),
            }
            self._num_clears += 1
            self._is_begun = self._is_speaking = False
            self._tell(frame, "cleared", values)
            for name in names:
                self._tell(frame, "mark", {"name": name, "cleared": True})
            if not self._is_idle_told:
                self._is_idle_told = True
                self._tell(frame, "idle", {})
            for reader in self._readers:
                reader.take_back(frame)
            self._changed.notify_all()

    def end(self, *, hears_out: bool = False) -> None:
        """Lets the video end when everything that was pushed has left.

        Args:
            hears_out: Whether sounds whose writers are waited for are heard to their end, too.
        """
        with self._changed:
            self._queue.end(hears_out=hears_out)
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing is asked for any more: whoever waits goes on."""
        with self._changed:
            self._is_closed = True
            self._queue.clear()
            self._changed.notify_all()

    # What leaves.

    @property
    def is_over(self) -> bool:
        """Whether the end was asked for and nothing is left to be heard or told."""
        with self._changed:
            if not self._queue.is_ending or self._queue or self._playhead < self._busy_until:
                return False
            untold = (told.name for happened in self._happenings.values() for told in happened)
            return all(name == "idle" for name in untold)

    @property
    def num_left(self) -> int:
        """Frames that have left."""
        return self._playhead

    def sound_of(self, frame: int) -> np.ndarray:
        """The samples ``(n, 1)`` float32 of the frame that leaves next."""
        with self._changed:
            self._num_given = frame + 1
            return self._decided(frame)[0][:, None]

    def is_spoken(self, frame: int) -> bool:
        """Whether that frame has pushed sound in it."""
        with self._changed:
            return self._decided(frame)[1] > 0

    def left(self, frame: int) -> list[Happening]:
        """Says that a frame has left: readers may hear further, and what happened is told."""
        with self._changed:
            self._decided(frame)
            self._frames.popleft()
            self._playhead = self._num_given = frame + 1
            self._changed.notify_all()
            return self._happenings.pop(frame, [])

    def reader(self, *, skips: bool) -> "TrackReader":
        """Another way to hear the track, from the first frame that is not decided yet.

        Args:
            skips: See ``TrackReader``.
        """
        with self._changed:
            start = self._playhead + len(self._frames)
            reader = TrackReader(self.hear, self.format, start, skips=skips)
            self._readers.append(reader)
            return reader

    def forget(self, reader: "TrackReader") -> None:
        """Nobody listens to this reader any more."""
        with self._changed:
            self._readers.remove(reader)

    def may_hear(self, reader: "TrackReader") -> bool:
        """Whether it is time for what a reader hears next."""
        return reader.next_frame < self._playhead + self.lead_frames

    def hear(self, reader: "TrackReader", check: Callable[[], None]) -> np.ndarray | TakenBack:
        """What a reader hears next ``(n, 1)``; waits until it is time to decide it.

        Args:
            reader: Of this track.
            check: Called while waiting; what it raises ends it.
        """
        with self._changed:
            while True:
                check()
                if reader.taken_back is not None:
                    start, reader.taken_back = reader.taken_back, None
                    if start < reader.next_frame:
                        return TakenBack(self._num_samples(start, reader.next_frame))
                if self.may_hear(reader):
                    due = self._playhead + self.lead_frames
                    if reader.next_frame < self._playhead or self._is_behind(reader):
                        reader.jump_to(max(due - self.block_frames, self._playhead))
                    samples, _ = self._decided(reader.next_frame)
                    reader.next_frame += 1
                    return samples[:, None]
                self._changed.wait(WAKE_S)

    def _is_behind(self, reader: TrackReader) -> bool:
        """Whether a reader must leave sound out to be in time."""
        gap = self._playhead + self.lead_frames - reader.next_frame
        return reader.skips and self._playhead > reader.start and gap > self.lead_frames // 2

    # How it is decided.

    def _decided(self, frame: int) -> tuple[np.ndarray, int]:
        """A frame's samples ``(n,)``, and how many of them were pushed."""
        while self._playhead + len(self._frames) <= frame:
            self._decide(self._playhead + len(self._frames))
        return self._frames[frame - self._playhead]

    def _decide(self, frame: int) -> None:
        """Takes a frame's sound from the queue, or silence where nothing is ready."""
        length = self._num_samples(frame, frame + 1)
        if not self._queue and self._is_idle_told:  # most of a quiet day
            self._frames.append((self._silent(length), 0))
            return
        parts: list[np.ndarray] = []
        filled = 0
        while filled < length:
            found = self._queue.take(length - filled, may_wait=not self._is_speaking)
            if found is None:
                self._is_speaking = False
                break
            if not isinstance(found, Taken):
                self._note(found, frame if filled else frame - 1)
                continue
            if found.error is not None:
                self._tell(self._num_given, "error", {"error": found.error})
            if len(found.samples):
                self._speak(found, frame)
                parts.append(found.samples)
                filled += len(found.samples)
        if filled:
            self._changed.notify_all()  # for whoever waits to push more
        if filled < length:
            self._pause(frame, filled)
            parts.append(self._silent(length - filled))
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._frames.append((samples, filled))

    def _speak(self, taken: Taken, frame: int) -> None:
        """Notes that a frame has sound of the segment."""
        self._is_speaking, self._is_idle_told = True, False
        if not self._is_begun:
            self._segment += 1
            self._is_begun = True
            self._spoken = range(frame, frame + 1)
            values = {"segment": self._segment, "arrived_s": taken.arrived_s}
            self._tell(frame, "segment_first_frame", values)
        self._spoken = range(self._spoken.start, frame + 1)
        self._busy_until = frame + 1

    def _note(self, item: SegmentEnd | Mark, frame: int) -> None:
        """Notes what stands in the queue behind sound that ended in this frame."""
        frame = max(frame, self._num_given)
        if isinstance(item, Mark):
            self._tell(frame, "mark", {"name": item.name, "cleared": False})
            return
        values = {"segment": self._segment if self._is_begun else None, "id": item.id}
        self._tell(frame, "segment_last_frame", values)
        self._is_begun = self._is_speaking = False

    def _pause(self, frame: int, filled: int) -> None:
        """Notes that a frame ends in silence."""
        quiet_frames = frame - self._spoken.stop
        is_idle = not self._is_begun or quiet_frames > IDLE_AFTER_S * self._fps
        if is_idle and not self._is_idle_told and not filled:
            self._is_idle_told = True
            self._tell(frame, "idle", {})

    def _tell(self, frame: int, name: str, values: dict[str, Any]) -> None:
        self._happenings.setdefault(frame, []).append(Happening(name, values))

    def _silence_from(self, frame: int) -> int:
        """Makes silent what was decided from a frame on; the samples of speech that were lost."""
        lost = 0
        for place in range(frame - self._playhead, len(self._frames)):
            samples, num_spoken = self._frames[place]
            lost += num_spoken
            silent = self._silent(len(samples))
            if place == frame - self._playhead and num_spoken:
                fade = min(round(FADE_S * self.format.sample_rate_hz), len(samples))
                silent = silent.copy()
                silent[:fade] = samples[:fade] * np.linspace(1, 0, fade, dtype=np.float32)
            self._frames[place] = silent, 0
        self._busy_until = min(self._busy_until, frame + 1)
        return lost

    # Small things.

    @property
    def _is_silent(self) -> bool:
        """Whether nothing waits and nothing that was decided is still to be heard."""
        return not self._queue and self._busy_until <= self._playhead

    def _num_samples(self, start: int, stop: int) -> int:
        """Samples of frames ``start <= i < stop``."""
        rate_hz = self.format.sample_rate_hz
        return samples_until(stop, rate_hz, self._fps) - samples_until(start, rate_hz, self._fps)

    def _silent(self, length: int) -> np.ndarray:
        if length not in self._silence:
            if len(self._silence) > 64:
                self._silence.clear()
            self._silence[length] = np.zeros(length, np.float32)
        return self._silence[length]
