"""The sound of a live video, frame by frame: what was pushed, and silence while there is nothing.

    pushed sound --> queue --> frames that are decided --> the video, frame by frame
                                        |
                                        +--> readers: the model's way to the same sound

A frame's sound is decided as late as the model allows. From then on all readers and the video hear
the same, and only ``clear`` changes it: what has not left becomes silence.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np

from joyflash_cli.media.inputs.audio import ModelResampler
from joyflash_cli.media.inputs.sound import Sound
from joyflash_cli.media.outputs.tracks import samples_until
from joyflash_cli.render.live_sound import (
    Clock,
    Mark,
    SegmentEnd,
    TrackReader,
    WaitingSound,
    WallClock,
)
from joyflash_cli.render.sound_feed import TakenBack
from joyflash_cli.streaming import Cancellation, RunAhead
from joyflash_cli.types import AudioClip, SoundFormat, exact_rate

PREBUFFER_S = 0.1
"""Sound that must be there before a segment begins, so that it does not stumble at once."""

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
        self._queue: deque[WaitingSound | SegmentEnd | Mark] = deque()
        self._max_waiting = round(max_waiting_s * rate_hz)
        self._num_waiting = 0
        self._resampler: tuple[int, ModelResampler] | None = None
        self._frames: deque[np.ndarray] = deque()
        self._playhead = self._num_given = 0
        self._happenings: dict[int, list[Happening]] = {}
        self._readers: list[TrackReader] = []
        self._silence: dict[int, np.ndarray] = {}
        self._prebuffer = round(PREBUFFER_S * rate_hz)
        self._segment = 0
        self._spoken: range = range(0)
        self._is_speaking = self._is_begun = False
        self._is_idle_told = False
        self._busy_until = 0
        self._num_clears = 0
        self._is_ending = self._is_closed = False

    # What the outside says.

    def push(self, sound: AudioClip) -> None:
        """Appends samples to the segment; waits while too many wait already.

        Args:
            sound: At any rate, with any number of channels; channels are mixed to one.
        """
        with self._changed:
            clears = self._num_clears
            while self._num_waiting > self._max_waiting and not self._is_closed:
                self._changed.wait(WAKE_S)
            if self._num_clears != clears or self._is_closed or self._is_ending:
                return  # it was cleared with what waited before it
            rate_hz = sound.sample_rate_hz
            if self._resampler is None or self._resampler[0] != rate_hz:
                self._flush()
                self._resampler = rate_hz, ModelResampler(rate_hz, self.format.sample_rate_hz)
            self._append(self._resampler[1].push(sound.samples))

    def play(self, sound: Sound, *, waits: bool) -> None:
        """Appends a sound that is read while it is heard.

        Args:
            sound: Of any origin.
            waits: Whether reading it may wait for whoever writes it.
        """
        cancellation = Cancellation()
        pieces = self._resampled(sound, cancellation.check)
        with self._changed:
            if self._is_ending:
                return
            self._flush()
            item = self._new_sound(lambda: next(pieces))
            if waits:
                ahead = RunAhead(pieces, name="hearing", cancellation=cancellation, capacity=16)
                ahead.__enter__()
                item.more, item.cancel = (lambda: ahead.poll(0.0)), cancellation.request
            self._queue.append(item)

    def end_segment(self, segment_id: Any = None) -> None:
        """Says that the segment is complete; what is pushed next begins another one."""
        with self._changed:
            self._flush()
            self._queue.append(SegmentEnd(segment_id))

    def mark(self, name: Any) -> None:
        """Asks to be told when everything that was pushed before has left."""
        with self._changed:
            self._flush()
            self._queue.append(Mark(name))

    def clear(self) -> None:
        """Drops what waits, and what was decided but has not left; it is silent from now on."""
        with self._changed:
            frame, ids, names = self._num_given, [], []
            leaving = {at: self._happenings.pop(at) for at in list(self._happenings) if at < frame}
            for happening in sum(self._happenings.values(), []):
                if happening.name == "mark":
                    names.append(happening.values["name"])
                elif happening.name == "segment_last_frame":
                    ids.append(happening.values["id"])
            self._happenings.clear()  # but what the frame that is leaving has to tell
            self._happenings.update(leaving)
            for item in self._queue:
                if isinstance(item, Mark):
                    names.append(item.name)
                elif isinstance(item, SegmentEnd):
                    ids.append(item.id)
            self._cancel(lambda _: True)
            dropped = self._num_waiting + self._silence_from(frame)
            self._queue.clear()
            self._num_waiting, self._resampler = 0, None
            self._num_clears += 1
            had_begun = self._is_begun and self._spoken.start < frame
            values = {
                "segment": self._segment if had_begun else None,
                "ids": ids,
                "dropped_s": round(dropped / self.format.sample_rate_hz, 3),
            }
            self._is_begun = self._is_speaking = self._is_idle_told = False
            self._tell(frame, "cleared", values)
            for name in names:
                self._tell(frame, "mark", {"name": name, "cleared": True})
            for reader in self._readers:
                reader.take_back(frame)
            self._changed.notify_all()

    def end(self, *, hears_out: bool = False) -> None:
        """Lets the video end when everything that was pushed has left.

        Args:
            hears_out: Whether sounds whose writers are waited for are heard to their end, too.
        """
        with self._changed:
            self._flush()
            self._is_ending = True
            if not hears_out:
                self._cancel(lambda item: item.cancel is not None)
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing is asked for any more: whoever waits goes on."""
        with self._changed:
            self._is_closed = True
            self._cancel(lambda _: True)
            self._changed.notify_all()

    # What leaves.

    @property
    def is_over(self) -> bool:
        """Whether the end was asked for and nothing is left to be heard or told."""
        with self._changed:
            if not self._is_ending or self._queue or self._playhead < self._busy_until:
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
            return self._decided(frame)[:, None]

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
                    samples = self._decided(reader.next_frame)
                    reader.next_frame += 1
                    return samples[:, None]
                self._changed.wait(WAKE_S)

    def _is_behind(self, reader: TrackReader) -> bool:
        """Whether a reader must leave sound out to be in time."""
        gap = self._playhead + self.lead_frames - reader.next_frame
        return reader.skips and self._playhead > reader.start and gap > self.lead_frames // 2

    # How it is decided.

    def _decided(self, frame: int) -> np.ndarray:
        while self._playhead + len(self._frames) <= frame:
            self._decide(self._playhead + len(self._frames))
        return self._frames[frame - self._playhead]

    def _decide(self, frame: int) -> None:
        """Takes a frame's sound from the queue, or silence where nothing is ready."""
        length = self._num_samples(frame, frame + 1)
        if not self._queue and self._is_idle_told:  # most of a quiet day
            self._frames.append(self._silent(length))
            return
        parts: list[np.ndarray] = []
        filled = 0
        while self._queue and filled < length:
            item = self._queue[0]
            if isinstance(item, WaitingSound):
                if not self._is_speaking and not self._may_begin():
                    break
                samples = self._taken(item, length - filled)
                if len(samples):
                    self._speak(item, frame)
                    parts.append(samples)
                    filled += len(samples)
                if item.is_used_up:
                    self._queue.popleft()
                elif not len(samples):
                    self._is_speaking = False
                    break
            else:
                self._queue.popleft()
                self._note(item, frame if filled else frame - 1)
        if filled < length:
            self._pause(frame, filled)
            parts.append(self._silent(length - filled))
        self._frames.append(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def _taken(self, item: WaitingSound, most: int) -> np.ndarray:
        """Samples of a sound; why one ends early is told."""
        samples = item.take(most)
        if item.error is not None:
            self._tell(self._num_given, "error", {"error": item.error})
            item.error = None
        if item.is_pushed:
            self._num_waiting -= len(samples)
            self._changed.notify_all()
        return samples

    def _may_begin(self) -> bool:
        """Whether enough is there to begin, or nothing more is to be waited for."""
        ready = 0
        for item in self._queue:
            if not isinstance(item, WaitingSound):
                return True
            ready += item.ready(self._prebuffer - ready)
            if ready >= self._prebuffer:
                return True
            if item.more is not None:
                return bool(ready) and self._has_waited(item)
        return self._is_ending or (bool(ready) and self._has_waited(self._queue[0]))

    def _has_waited(self, item: "WaitingSound | SegmentEnd | Mark") -> bool:
        return self.clock.now() - cast("WaitingSound", item).arrived_s > 2 * PREBUFFER_S

    def _speak(self, item: WaitingSound, frame: int) -> None:
        """Notes that a frame has sound of the segment."""
        self._is_speaking, self._is_idle_told = True, False
        if not self._is_begun:
            self._segment += 1
            self._is_begun = True
            self._spoken = range(frame, frame + 1)
            arrived_s = item.arrived_s if item.is_next else None
            values = {"segment": self._segment, "arrived_s": arrived_s}
            self._tell(frame, "segment_first_frame", values)
        self._spoken = range(self._spoken.start, frame + 1)
        self._busy_until = frame + 1

    def _note(self, item: "SegmentEnd | Mark", frame: int) -> None:
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
            samples = self._frames[place]
            is_spoken = samples is not self._silence.get(len(samples))
            lost += len(samples) * is_spoken
            silent = self._silent(len(samples))
            if place == frame - self._playhead and is_spoken:
                fade = min(round(FADE_S * self.format.sample_rate_hz), len(samples))
                silent = silent.copy()
                silent[:fade] = samples[:fade] * np.linspace(1, 0, fade, dtype=np.float32)
            self._frames[place] = silent
        self._busy_until = min(self._busy_until, frame + 1)
        return lost

    # Small things.

    @property
    def _is_silent(self) -> bool:
        """Whether nothing waits and nothing that was decided is still to be heard."""
        return not self._queue and self._busy_until <= self._playhead

    def _new_sound(self, more: Callable[[], np.ndarray] | None = None) -> WaitingSound:
        return WaitingSound(self.clock.now(), self._is_silent, more)

    def _cancel(self, is_meant: Callable[[WaitingSound], bool]) -> None:
        """Ends sounds that wait: what they have is kept, more is not read."""
        for item in self._queue:
            if isinstance(item, WaitingSound) and is_meant(item):
                item.more = None
                if item.cancel is not None:
                    item.cancel()

    def _append(self, samples: np.ndarray) -> None:
        if not len(samples):
            return
        item = self._new_sound()
        item.add(samples)
        self._queue.append(item)
        self._num_waiting += len(samples)

    def _flush(self) -> None:
        """What the resampler holds back belongs before whatever comes next."""
        resampler, self._resampler = self._resampler, None
        if resampler is not None:
            self._append(resampler[1].finish())

    def _resampled(self, sound: Sound, check: Callable[[], None]) -> Iterator[np.ndarray]:
        opened = sound.open(check)
        resampler = ModelResampler(opened.format.sample_rate_hz, self.format.sample_rate_hz)
        for piece in opened.pieces:
            yield resampler.push(piece)
        yield resampler.finish()

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
