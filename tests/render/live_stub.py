"""A live session without a model: time that the test moves, pictures that show what was heard."""

import itertools
from collections import deque
from types import SimpleNamespace

import numpy as np

from joyflash_cli.render.latency import Latency
from joyflash_cli.render.live_track import LiveTrack
from joyflash_cli.render.request import RenderRequest
from joyflash_cli.render.session import Session
from joyflash_cli.render.sound_feed import TakenBack
from joyflash_cli.types import AudioClip, FrameChunk

FPS, BLOCK, AHEAD = 25, 12, 12


class FakeClock:
    """Time that passes only while somebody sleeps; who works beside does so before it passes."""

    def __init__(self) -> None:
        self.time_s = 100.0
        self.workers = []

    def now(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        for work in self.workers:
            work()
        self.time_s += seconds

    def unix(self) -> float:
        return 1e9 + self.time_s


def request_of(size=(2, 2)):
    """As much of a request as a session looks at."""
    face = SimpleNamespace(pixels=np.zeros((*size, 3), np.uint8))
    return RenderRequest(face, tone(0.1))


class StubChunks:
    """Blocks whose pictures are as bright as their sound is loud, 255 at full scale.

    Args:
        track: What is heard.
        reader: The stream's way to it.
        block_s: Seconds each block takes once its sound was heard.
        size: Height and width.
    """

    def __init__(self, track, reader, block_s, size=(2, 2)):
        self.track, self.reader, self.size = track, reader, size
        self.block_s = itertools.repeat(block_s) if isinstance(block_s, float) else block_s
        self.pieces = reader.open().pieces
        self.heard: list[float] = []
        self.made: deque = deque()
        self.num_heard = self.index = 0
        self.free_s = 0.0
        self.is_closed = False
        track.clock.workers.append(self.work)

    def work(self):
        """Hears what may be heard by now, and begins the blocks whose sound was heard."""
        while (
            len(self.made) < 4
            and self.free_s <= self.track.clock.now()
            and self.track.may_hear(self.reader)
        ):
            piece = next(self.pieces)
            if isinstance(piece, TakenBack):
                lost = round(piece.num_samples / self.track.format.sample_rate_hz * FPS)
                lost = min(lost, len(self.heard))
                self.heard[len(self.heard) - lost :] = [0.0] * lost
                continue
            self.heard.append(abs(float(piece[len(piece) // 2, 0])))
            self.num_heard += 1
            if self.num_heard == (self.index + 1) * BLOCK + AHEAD:
                self.free_s = max(self.free_s, self.track.clock.now()) + next(self.block_s)
                self.made.append((self.free_s, self.chunk()))

    def chunk(self):
        levels, self.heard = self.heard[:BLOCK], self.heard[BLOCK:]
        shades = (np.array(levels, np.float32) * 255).round().astype(np.uint8)
        frames = np.broadcast_to(shades[:, None, None, None], (BLOCK, *self.size, 3))
        self.index += 1
        first = (self.index - 1) * BLOCK
        return FrameChunk(self.index - 1, None, frames, first, 0.0)

    def poll(self, timeout_s):
        clock = self.track.clock
        self.work()
        left_s = self.made[0][0] - clock.now() if self.made else float("inf")
        if left_s > 1e-9:
            clock.sleep(min(left_s, timeout_s))
            if left_s > timeout_s:
                return None
        return self.made.popleft()

    def close(self):
        self.is_closed = True


class Told(list):
    """Events of a session, in order."""

    def __call__(self, name, values):
        self.append((name, dict(values)))

    def of(self, *names):
        return [values for name, values in self if name in names]

    @property
    def names(self):
        return [name for name, _ in self]


def live_session(
    *,
    block_s=0.1,
    late="fall-behind",
    rate_hz=2_000,
    fps=FPS,
    clock=None,
    on_event=None,
    size=(2, 2),
):
    """A session over stub chunks: ``(session, events, clock, chunks made so far)``."""
    clock = clock or FakeClock()
    track = LiveTrack(fps, rate_hz, clock=clock)
    told, made = Told(), []

    def begin(request):
        made.append(StubChunks(track, request.audio, block_s, size))
        return made[-1]

    session = Session(
        request_of(size),
        read_picture=lambda _: request_of(size),
        open_chunks=begin,
        track=track,
        fps=fps,
        latency=Latency(1, AHEAD / fps, BLOCK / fps, (AHEAD + BLOCK) / fps, 8, 4.0),
        late=late,
        on_event=on_event or told,
    )
    return session, told, clock, made


def tone(seconds, rate_hz=2_000, level=0.5):
    return AudioClip(np.full((round(seconds * rate_hz), 1), level, np.float32), rate_hz)
