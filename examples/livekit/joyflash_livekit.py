"""A JoyFlash face for LiveKit agents: the video generator of their avatar runner.

    pip install joyflash livekit-agents

In an agent that speaks to it through a queue or a data stream::

    joyflash = JoyFlash.load("tiny")
    avatar = JoyFlashVideo(
        lambda on_event: joyflash.session(Path("face.png"), rate_hz=24_000, on_event=on_event)
    )
    runner = AvatarRunner(room, audio_recv=receiver, video_gen=avatar, options=avatar.options)
    await runner.start()

Sound goes in as the agent makes it; frames and the sound that belongs to them come out on time.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator

from joyflash_cli.render import Session

WAITING = 4
"""Frames that may wait for the room; beyond, the face waits too."""

OnEvent = Callable[[str, Mapping[str, Any]], None]


class JoyFlashVideo(VideoGenerator):
    """A face that speaks what is pushed, and rests in between.

    Args:
        open_session: Makes the session, which tells its events to what it is given.
    """

    def __init__(self, open_session: Callable[[OnEvent], Session]) -> None:
        self._session = open_session(self._told)
        self._ended_segments = 0
        self._stopped = threading.Event()

    @property
    def options(self) -> AvatarOptions:
        """What the runner needs to know."""
        width, height = self._session.size_px
        return AvatarOptions(width, height, self._session.fps, self._session.rate_hz, 1)

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Sound to speak, or the end of what is to be spoken."""
        if isinstance(frame, AudioSegmentEnd):
            self._session.end_segment()
            return
        samples = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
        # It waits while minutes of sound wait already.
        await asyncio.to_thread(self._session.push, samples, frame.sample_rate)

    def clear_buffer(self) -> None:
        """The user talks over it: silent at once."""
        self._session.clear()

    async def aclose(self) -> None:
        """Ends the video."""
        self._stopped.set()

    def _told(self, name: str, _values: Mapping[str, Any]) -> None:
        self._ended_segments += name == "segment_last_frame"

    async def __aiter__(
        self,
    ) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        """Frames with their sound as they are due, and the ends of segments."""
        loop, waiting = asyncio.get_running_loop(), asyncio.Queue[Any](WAITING)

        def put(item: Any) -> None:
            asyncio.run_coroutine_threadsafe(waiting.put(item), loop).result()

        def film() -> None:
            told = 0
            try:
                for frame in self._session.frames(self._stopped.is_set):
                    if self._ended_segments > told:  # with the frame before this one
                        told = self._ended_segments
                        put(AudioSegmentEnd())
                    put(_picture(frame.pixels))
                    if frame.is_spoken:  # silence would count as playing
                        put(_sound(frame.sound.samples, self._session.rate_hz))
                put(None)
            except Exception as error:  # noqa: BLE001 - the room must hear of it
                put(error)

        threading.Thread(target=film, daemon=True).start()
        try:
            while (item := await waiting.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._stopped.set()


def _picture(pixels: np.ndarray) -> rtc.VideoFrame:
    height, width = pixels.shape[:2]
    return rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, pixels.tobytes())


def _sound(samples: np.ndarray, rate_hz: int) -> rtc.AudioFrame:
    levels = (samples.clip(-1, 1) * 32767).astype(np.int16)
    return rtc.AudioFrame(levels.tobytes(), rate_hz, 1, len(levels))
