"""A live session: one loaded model, a video that runs on the clock, and sound whenever it comes.

    push --> track --> reader --> the stream of ``JoyFlash.stream`` --> chunks --> frames, on time
               +------------------------------------------------ sound of each ---^

While there is no sound the stream hears silence, so that the face rests and breathes. A frame has
the sound that the track decided for it, to the sample, however late or early its picture was: they
cannot drift apart, and frame i is due at i / fps after the first, however long it lasts.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast, get_args

import numpy as np

from joyflash_cli.errors import ImageError, UsageError
from joyflash_cli.media.inputs.hearing import PcmFormat
from joyflash_cli.media.inputs.sound import LiveSound, Sound, check_sound_file, is_pipe, open_pipe
from joyflash_cli.media.inputs.sound_opening import OpenSound
from joyflash_cli.render.latency import Latency
from joyflash_cli.render.live_film import Chunks, Film, LiveFrame
from joyflash_cli.render.live_track import LiveTrack
from joyflash_cli.render.request import RenderRequest
from joyflash_cli.streaming import in_background
from joyflash_cli.types import AudioClip, exact_rate

Late = Literal["skip", "fall-behind"]
"""What becomes of a picture that is not ready in time. ``skip``: the one before is shown again, and
the sound goes on. ``fall-behind``: picture and sound wait for it."""

SPARE_S, SPARE_ROOM_S = 0.15, 0.05
"""How long before its time the slowest of the recent blocks should be ready, and how much longer
it may be; the model hears a little earlier or later until it is."""

RECENT_BLOCKS = 40
KEPT_FIGURES = 10_000
CATCH_UP = 0.8
"""Share of a frame's time that lies between two that are late, until they are no more."""

TOLD_EVERY_S = 1.0
POLL_S = 0.2


class Session:
    """A live video of one person; made by ``JoyFlash.session``.

    One thread takes ``frames``. Any other may push sound, clear, change the picture, or end it.

    Args:
        request: What is shown; its sound is not looked at.
        read_picture: Makes the request of another picture, of the same size.
        open_chunks: Begins a stream.
        track: The sound.
        latency: Of the profile.
        late: See ``Late``.
        on_event: Told, in the thread that takes the frames, what happened: a name and values.
    """

    def __init__(
        self,
        request: RenderRequest,
        *,
        read_picture: Callable[["Path | BinaryIO"], RenderRequest],
        open_chunks: Callable[[RenderRequest], Chunks],
        track: LiveTrack,
        fps: float,
        latency: Latency,
        late: Late = "fall-behind",
        on_event: Callable[[str, Mapping[str, Any]], None] | None = None,
    ) -> None:
        if late not in get_args(Late):
            raise UsageError(
                f"{late!r:.80} says nothing about late pictures",
                hint=f"use {' or '.join(get_args(Late))}",
            )
        self.request, self.fps, self.rate_hz = request, fps, track.format.sample_rate_hz
        self._read_picture, self._open_chunks = read_picture, open_chunks
        self._track, self._clock, self._late = track, track.clock, late
        self._on_event = on_event
        self._rate = exact_rate(fps).as_integer_ratio()
        self._latency = latency
        self._reserve_s = latency.block_s
        track.block_frames = round(latency.block_s * fps)
        self._set_lead()
        self._started_s: float | None = None
        self._wanted: RenderRequest | None = None
        self._coming: Film | None = None
        self._last: np.ndarray | None = None
        self._spare_s: deque[float] = deque(maxlen=RECENT_BLOCKS)
        self._latencies_s: deque[float] = deque(maxlen=KEPT_FIGURES)
        self._late_s: deque[float] = deque(maxlen=KEPT_FIGURES)
        self._num_repeated = 0
        self._left_s = self._told_late_s = float("-inf")
        self._is_late = False

    @property
    def size_px(self) -> tuple[int, int]:
        """``(width, height)`` of the frames."""
        return self.request.size_px

    @property
    def expected_latency_s(self) -> float:
        """From pushing sound to seeing it spoken, while the model keeps up."""
        return self._track.lead_frames / self.fps

    @property
    def video_s(self) -> float:
        """Seconds of video that have left."""
        return self._time_s(self._track.num_left)

    def push(self, sound: "AudioClip | np.ndarray", rate_hz: int | None = None) -> None:
        """Appends samples to the segment; waits while five minutes of it wait already.

        Args:
            sound: Of any rate; or samples ``(n,)`` or ``(n, channels)``, float in -1..1 or int16.
            rate_hz: Of samples; the session's own if absent.
        """
        self._track.push(_as_clip(sound, rate_hz or self.rate_hz))

    def play(self, sound: "Path | str | BinaryIO | Sound", pcm: PcmFormat | None = None) -> None:
        """Appends a file, a named pipe or a stream, which is read while it is heard.

        Args:
            sound: A pipe or stream is waited for without holding anything up.
            pcm: For plain samples without a header.

        Raises:
            AudioError: For a file that cannot be used.
        """
        if isinstance(sound, str | Path):
            if is_pipe(Path(sound)):
                self._track.play(_Pipe(Path(sound), pcm), waits=True)
            else:
                self._track.play(check_sound_file(Path(sound), pcm), waits=False)
        elif hasattr(sound, "open"):
            self._track.play(cast("Sound", sound), waits=True)
        else:
            self._track.play(LiveSound(cast("BinaryIO", sound), pcm), waits=True)

    def end_segment(self, segment_id: Any = None) -> None:
        """The segment is complete; ``segment_last_frame`` tells when it has been spoken."""
        self._track.end_segment(segment_id)

    def mark(self, name: Any) -> None:
        """Asks for the event ``mark`` once what was pushed so far has left."""
        self._track.mark(name)

    def clear(self) -> None:
        """Falls silent at once and forgets what was pushed; the mouth closes within a block."""
        self._track.clear()

    def show(self, picture: "Path | str | BinaryIO") -> None:
        """Shows another picture as soon as its first frames are ready; the sound goes on.

        Raises:
            ImageError: When it cannot be used; nothing changes then.
        """
        request = self._read_picture(Path(picture) if isinstance(picture, str) else picture)
        if request.size_px != self.size_px:
            raise ImageError(
                f"this picture makes a video of {request.size_px}, the session's is {self.size_px}",
                hint="give a picture of the same proportions",
                code="E-IMAGE-SIZE",
            )
        self._wanted = request

    def end(self, *, hears_out: bool = False) -> None:
        """Ends the video once what was pushed has left; after ``clear``, that is at once.

        Args:
            hears_out: Whether pipes and streams are heard to their own end first.
        """
        self._track.end(hears_out=hears_out)

    def frames(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[LiveFrame]:
        """Frames when they are due, until the end was asked for.

        Whoever takes them slowly gets all of them, later; sound is then taken in more slowly too.

        Args:
            should_stop: Asked about five times a second; true ends the video at once.

        Raises:
            DeviceError: When the model fails.
        """
        film = self._begin(self.request)
        index = 0
        try:
            while not (self._track.is_over or should_stop()):
                film = self._after_change(film, index)
                picture = self._picture(film, index, should_stop)
                if picture is None:
                    return
                if self._started_s is None:
                    self._start()
                is_repeated = picture is self._last
                self._last = picture
                self._wait_for(index)
                sound = AudioClip(self._track.sound_of(index), self.rate_hz)
                is_spoken = self._track.is_spoken(index)
                yield LiveFrame(index, picture, sound, is_spoken, is_repeated)
                self._tell_of(index)
                index += 1
        finally:
            self._track.close()
            for open_film in (film, self._coming):
                if open_film is not None:
                    open_film.chunks.close()
            self._emit("ended", index, frames=index, **self.figures())

    def figures(self) -> dict[str, Any]:
        """How it went: percentiles of the newest ten thousand, and pictures shown twice."""
        return {
            "latency_s": _percentiles(self._latencies_s),
            "late_s": _percentiles(self._late_s),
            "repeated": self._num_repeated,
        }

    def _begin(self, request: RenderRequest) -> Film:
        reader = self._track.reader(skips=self._late == "skip")
        return Film(reader, self._open_chunks(replace(request, audio=reader)))

    def _after_change(self, film: Film, index: int) -> Film:
        """The film to show: another one, once a picture was asked for and is ready."""
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            if self._coming is not None:
                self._drop(self._coming)
            self._coming = self._begin(wanted)
        coming = self._coming
        if coming is None:
            return film
        coming.poll(0.0)
        if coming.next_frame is None or coming.next_frame > index:
            return film
        self._drop(film)
        self._coming = None
        self._emit("picture", index)
        return coming

    def _drop(self, film: Film) -> None:
        self._track.forget(film.reader)
        in_background(film.chunks.close, "closing")

    def _picture(
        self, film: Film, index: int, should_stop: Callable[[], bool]
    ) -> np.ndarray | None:
        """The picture of a frame, once it is there or its time has come; ``None`` to stop."""
        wanted_s = self._clock.now()
        if self._started_s is not None:
            wanted_s = max(wanted_s, self._due_s(index))
        while True:
            picture = film.at_hand(index)
            if picture is not None:
                return picture
            may_repeat = self._last is not None and self._late == "skip"
            if self._last is not None and film.next_frame is not None:
                return self._repeated()  # the model has left this frame out
            left_s = self._due_s(index) - self._clock.now() if may_repeat else POLL_S
            found = film.poll(min(max(left_s, 0.0), POLL_S))
            if found is not None:
                if self._started_s is not None:
                    self._adapt(wanted_s - found)
            elif may_repeat and self._clock.now() >= self._due_s(index):
                return self._repeated()
            elif should_stop():
                return None

    def _repeated(self) -> np.ndarray:
        self._num_repeated += 1
        assert self._last is not None
        return self._last

    def _start(self) -> None:
        # A block's time ahead: the second block takes longer than those that follow it.
        self._started_s = self._clock.now() + self._latency.block_s
        width, height = self.size_px
        latency_s = round(self.expected_latency_s, 3)
        about = {"fps": self.fps, "width": width, "height": height, "rate": self.rate_hz}
        self._emit("ready", 0, **about, latency_s=latency_s)

    def _due_s(self, index: int) -> float:
        assert self._started_s is not None
        return self._started_s + self._time_s(index)

    def _time_s(self, index: int) -> float:
        """When a frame is due after the first."""
        return index * self._rate[1] / self._rate[0]

    def _wait_for(self, index: int) -> None:
        """Waits until a frame may leave, and notes how late it is."""
        soonest_s = max(self._due_s(index), self._left_s + CATCH_UP / self.fps)
        if (wait_s := soonest_s - self._clock.now()) > 0:
            self._clock.sleep(wait_s)
        now = self._left_s = self._clock.now()
        late_s = max(now - self._due_s(index), 0.0)
        self._late_s.append(late_s)
        frames = int(late_s * self.fps)
        if (frames or self._is_late) and now - self._told_late_s >= TOLD_EVERY_S:
            self._told_late_s, self._is_late = now, frames > 0
            self._emit("late", index, frames=frames, repeated=self._num_repeated)

    def _adapt(self, spare_s: float) -> None:
        """Lets the model hear as late as it can be and still be in time.

        Args:
            spare_s: How long before it was wanted its newest block was ready.
        """
        self._spare_s.append(spare_s)
        missing_s = SPARE_S - min(self._spare_s)
        if missing_s > 0:
            self._reserve_s += missing_s
            self._spare_s.clear()
        elif len(self._spare_s) == RECENT_BLOCKS and -missing_s > SPARE_ROOM_S:
            self._reserve_s += missing_s / 2
            self._spare_s.clear()
        self._reserve_s = min(max(self._reserve_s, 0.0), 2 * self._latency.block_s)
        self._set_lead()

    def _set_lead(self) -> None:
        latency = self._latency
        lead_s = latency.block_s + latency.look_ahead_s + self._reserve_s
        self._track.lead_frames = int(-(-max(lead_s, latency.first_sound_s) * self.fps // 1)) + 1

    def _tell_of(self, index: int) -> None:
        """A frame has left: tells what happened with it."""
        for name, values in self._track.left(index):
            if name == "segment_first_frame":
                arrived_s = values.pop("arrived_s")
                latency_s = None if arrived_s is None else self._clock.now() - arrived_s
                if latency_s is not None:
                    self._latencies_s.append(latency_s)
                    latency_s = round(latency_s, 3)
                values["latency_s"] = latency_s
            self._emit(name, index, **values)

    def _emit(self, event: str, index: int, /, **values: Any) -> None:
        if self._on_event is not None:
            times = {
                "video_s": round(self._time_s(index), 6),
                "wall_time": round(self._clock.unix(), 6),
            }
            self._on_event(event, {**values, **times})


class _Pipe:
    """A named pipe that is opened, which may wait, when it is heard."""

    num_samples = None

    def __init__(self, path: Path, pcm: PcmFormat | None) -> None:
        self.name, self._path, self._pcm = str(path), path, pcm

    def open(self, check: Callable[[], None] = lambda: None) -> OpenSound:
        """See ``Sound``."""
        return open_pipe(self._path, self._pcm).open(check)


def _as_clip(sound: "AudioClip | np.ndarray", rate_hz: int) -> AudioClip:
    if isinstance(sound, AudioClip):
        return sound
    samples = np.asarray(sound)
    scale = 1.0 if samples.dtype.kind == "f" else 1 / 32768
    samples = samples.astype(np.float32) * np.float32(scale)
    return AudioClip(samples[:, None] if samples.ndim == 1 else samples, rate_hz)


def _percentiles(values: "deque[float]") -> dict[str, float] | None:
    if not values:
        return None
    found = np.percentile(np.array(values), (50, 90, 99)).round(3)
    return dict(zip(("p50", "p90", "p99"), found.tolist(), strict=True))
