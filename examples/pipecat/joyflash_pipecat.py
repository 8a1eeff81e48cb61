"""A JoyFlash face for pipecat: a processor between the speech service and the transport.

    pip install joyflash pipecat-ai

In a pipeline::

    joyflash = JoyFlash.load("tiny")
    face = JoyFlashFace(
        lambda on_event: joyflash.session(Path("face.png"), rate_hz=24_000, on_event=on_event)
    )
    Pipeline([transport.input(), stt, llm, tts, face, transport.output()])

Speech goes in, pictures and the sound that belongs to them come out; an interruption silences it.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from joyflash_cli.render import LiveFrame, Session

OnEvent = Callable[[str, Mapping[str, Any]], None]


class JoyFlashFace(FrameProcessor):
    """A face that speaks the sound that passes, and rests in between.

    Args:
        open_session: Makes the session, which tells its events to what it is given.
    """

    def __init__(self, open_session: Callable[[OnEvent], Session]) -> None:
        super().__init__()
        self._live = open_session(lambda *_: None)
        self._stopped = threading.Event()
        self._filming: asyncio.Future[None] | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Takes speech out of the pipeline; everything else passes."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            samples = np.frombuffer(frame.audio, np.int16).reshape(-1, frame.num_channels)
            # It waits while minutes of sound wait already.
            await asyncio.to_thread(self._live.push, samples, frame.sample_rate)
            return
        if isinstance(frame, TTSStoppedFrame):
            self._live.end_segment()
        elif isinstance(frame, InterruptionFrame):
            self._live.clear()
        elif isinstance(frame, EndFrame):
            self._live.end()
            await self._end()
        elif isinstance(frame, CancelFrame):
            self._stopped.set()
            await self._end()
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            loop = asyncio.get_running_loop()
            self._filming = loop.run_in_executor(None, self._film, loop)

    async def _end(self) -> None:
        """Waits until the last frame has left."""
        filming, self._filming = self._filming, None
        if filming is not None:
            await filming

    def _film(self, loop: asyncio.AbstractEventLoop) -> None:
        """Passes frames on as they are due, in a thread."""
        for frame in self._live.frames(self._stopped.is_set):
            passing = asyncio.run_coroutine_threadsafe(self._pass_on(frame), loop)
            while not self._stopped.is_set():
                try:
                    passing.result(0.2)
                    break
                except TimeoutError:
                    continue

    async def _pass_on(self, frame: LiveFrame) -> None:
        height, width = frame.pixels.shape[:2]
        await self.push_frame(OutputImageRawFrame(frame.pixels.tobytes(), (width, height), "RGB"))
        if frame.is_spoken:  # silence would count as speech
            levels = (frame.sound.samples.clip(-1, 1) * 32767).astype(np.int16)
            await self.push_frame(TTSAudioRawFrame(levels.tobytes(), self._live.rate_hz, 1))
