"""Sound that was pushed to a live video and waits to be heard, with what stands between it."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from joyflash_cli.media.inputs.audio import ModelResampler
from joyflash_cli.media.inputs.sound import Sound
from joyflash_cli.streaming import Cancellation, RunAhead
from joyflash_cli.types import AudioClip

PREBUFFER_S = 0.1
"""Sound that must be there before a segment begins, so that it does not stumble at once."""


@dataclass
class WaitingSound:
    """Sound that waits to be heard.

    Attributes:
        arrived_s: When it came.
        is_next: Whether nothing was to be heard before it when it came.
        more: Gives the next samples ``(n,)``, or ``None`` while there are none; raises
            ``StopIteration`` at the end. ``None`` where all is there.
        cancel: Ends whoever makes them, where they are waited for.
        error: Why no more came.
    """

    arrived_s: float
    is_next: bool
    more: Callable[[], np.ndarray | None] | None = None
    cancel: Callable[[], None] | None = None
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.is_pushed = self.more is None
        self._pieces: deque[np.ndarray] = deque()
        self._num_ready = 0

    @property
    def is_used_up(self) -> bool:
        """Whether nothing is left and nothing will come."""
        return self.more is None and not self._num_ready

    def add(self, samples: np.ndarray) -> None:
        """Appends samples ``(n,)``."""
        if len(samples):
            self._pieces.append(samples)
            self._num_ready += len(samples)

    def ready(self, wanted: int) -> int:
        """Samples that are there, once as many as wanted are or no more can be had now."""
        while self._num_ready < wanted and self.more is not None:
            try:
                piece = self.more()
            except StopIteration:
                self.more = None
            except Exception as error:  # noqa: BLE001 - whatever it is, the video goes on
                self.more, self.error = None, error
            else:
                if piece is None:
                    break
                self.add(piece)
        return self._num_ready

    def take(self, most: int) -> np.ndarray:
        """The next samples ``(n,)``; none while there are none."""
        if not self.ready(1):
            return np.zeros(0, np.float32)
        piece = self._pieces.popleft()
        if len(piece) > most:
            self._pieces.appendleft(piece[most:])
            piece = piece[:most]
        self._num_ready -= len(piece)
        return piece


class SegmentEnd(NamedTuple):
    """Where a segment is complete; ``id`` is the user's."""

    id: Any


class Mark(NamedTuple):
    """Where the user asked to be told; ``name`` is theirs."""

    name: Any


class SoundQueue:
    """What waits, in order; used by one thread at a time.

    Args:
        rate_hz: Samples per second that leave it.
        now: Tells the time.
    """

    def __init__(self, rate_hz: int, now: Callable[[], float]) -> None:
        self.num_pushed = 0
        self.is_ending = False
        self._rate_hz, self._now = rate_hz, now
        self._items: deque[WaitingSound | SegmentEnd | Mark] = deque()
        self._resampler: tuple[int, ModelResampler] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def push(self, sound: AudioClip, *, is_next: bool) -> None:
        """Appends samples of any rate; channels are mixed to one."""
        rate_hz = sound.sample_rate_hz
        if self._resampler is None or self._resampler[0] != rate_hz:
            self._flush()
            self._resampler = rate_hz, ModelResampler(rate_hz, self._rate_hz)
        self._append(self._resampler[1].push(sound.samples), is_next)

    def play(self, sound: Sound, *, waits: bool, is_next: bool) -> None:
        """Appends a sound that is read while it is heard, by a thread of its own if it waits."""
        self._flush()
        cancellation = Cancellation()
        pieces = self._resampled(sound, cancellation.check)
        item = WaitingSound(self._now(), is_next, lambda: next(pieces))
        if waits:
            ahead = RunAhead(pieces, name="hearing", cancellation=cancellation, capacity=16)
            ahead.__enter__()
            item.more, item.cancel = (lambda: ahead.poll(0.0)), cancellation.request
        self._items.append(item)

    def put(self, item: SegmentEnd | Mark) -> None:
        """Appends what is not sound."""
        self._flush()
        self._items.append(item)

    def end(self, *, hears_out: bool) -> None:
        """Nothing is appended any more; sounds that wait for writers end, or are heard out."""
        self._flush()
        self.is_ending = True
        if not hears_out:
            self._cancel(lambda item: item.cancel is not None)

    def clear(self) -> list[SegmentEnd | Mark]:
        """Drops everything; what of it was not sound."""
        self._cancel(lambda _: True)
        others = [item for item in self._items if not isinstance(item, WaitingSound)]
        self._items.clear()
        self.num_pushed, self._resampler = 0, None
        return others

    def take(self, most: int, *, may_wait: bool) -> "Taken | SegmentEnd | Mark | None":
        """What comes next: samples, at most so many, or what stands between.

        Args:
            most: Samples.
            may_wait: Whether sound that has just begun to come is left until there is enough of it.

        Returns:
            ``None`` where nothing is ready.
        """
        while self._items:
            item = self._items[0]
            if not isinstance(item, WaitingSound):
                return self._items.popleft()  # type: ignore[return-value]
            if may_wait and not self._is_enough(item):
                return None
            samples, error = item.take(most), item.error
            item.error = None
            if item.is_pushed:
                self.num_pushed -= len(samples)
            if item.is_used_up:
                self._items.popleft()
            if len(samples) or error is not None:
                return Taken(samples, item.arrived_s if item.is_next else None, error)
            if item.more is not None:
                return None
        return None

    def _is_enough(self, first: WaitingSound) -> bool:
        """Whether enough is there to begin with, or nothing more is to be waited for."""
        ready, wanted = 0, round(PREBUFFER_S * self._rate_hz)
        for item in self._items:
            if not isinstance(item, WaitingSound):
                return True
            ready += item.ready(wanted - ready)
            if ready >= wanted or item.error is not None:
                return True
            if item.more is not None:
                break
        has_waited = bool(ready) and self._now() - first.arrived_s > 2 * PREBUFFER_S
        return has_waited or self.is_ending

    def _append(self, samples: np.ndarray, is_next: bool) -> None:
        if len(samples):
            item = WaitingSound(self._now(), is_next)
            item.add(samples)
            self._items.append(item)
            self.num_pushed += len(samples)

    def _flush(self) -> None:
        """What the resampler holds back belongs before whatever comes next."""
        resampler, self._resampler = self._resampler, None
        if resampler is not None:
            self._append(resampler[1].finish(), is_next=False)

    def _resampled(self, sound: Sound, check: Callable[[], None]) -> Iterator[np.ndarray]:
        opened = sound.open(check)
        resampler = ModelResampler(opened.format.sample_rate_hz, self._rate_hz)
        for piece in opened.pieces:
            yield resampler.push(piece)
        yield resampler.finish()

    def _cancel(self, is_meant: Callable[[WaitingSound], bool]) -> None:
        """Ends sounds that wait: what they have is kept, more is not read."""
        for item in self._items:
            if isinstance(item, WaitingSound) and is_meant(item):
                item.more = None
                if item.cancel is not None:
                    item.cancel()


class Taken(NamedTuple):
    """Sound that left the queue.

    Attributes:
        samples: ``(n,)`` float32.
        arrived_s: When it came, if nothing was to be heard before it then.
        error: Why no more comes of it.
    """

    samples: np.ndarray
    arrived_s: float | None
    error: Exception | None
