"""The live examples, driven by the types of the packages they are for; no server, no model.

The packages are large: ``make live-examples`` installs them and runs this file.
"""

import asyncio
import contextlib
import importlib.util
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from joyflash_cli.render.live_sound import WallClock

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.insert(0, str(Path(__file__).parent / "render"))

from live_stub import live_session  # noqa: E402


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def open_session(on_event):
    """A session on the real clock whose pictures are as bright as their sound is loud."""
    return live_session(
        block_s=0.01, rate_hz=24_000, clock=Watch(), on_event=on_event, size=(16, 16)
    )[0]


class Watch(WallClock):
    """The real clock; stub blocks are made while it sleeps."""

    def __init__(self):
        self.workers = []

    def sleep(self, seconds):
        for work in self.workers:
            work()
        WallClock.sleep(max(seconds, 0.0))


def pcm(seconds, rate_hz=16_000):
    return np.full(round(seconds * rate_hz), 12_000, np.int16).tobytes()


def test_the_avatar_of_livekit():
    """The published package's own runner types: segments are spoken, ended, and cut."""
    pytest.importorskip("livekit.agents")
    from livekit import rtc
    from livekit.agents.voice.avatar import AudioSegmentEnd, VideoGenerator

    example = load(EXAMPLES / "livekit" / "joyflash_livekit.py")

    async def talk():
        avatar = example.JoyFlashVideo(open_session)
        assert isinstance(avatar, VideoGenerator)
        assert avatar.options.audio_sample_rate == 24_000
        seen, spoken_s, ends, is_cut, silent = 0, 0.0, 0, False, 0
        async for item in avatar:
            if isinstance(item, AudioSegmentEnd):
                ends += 1
                for _ in range(20):
                    await avatar.push_audio(rtc.AudioFrame(pcm(0.1), 16_000, 1, 1_600))
            elif isinstance(item, rtc.AudioFrame):
                assert (item.sample_rate, item.num_channels) == (24_000, 1)
                spoken_s += item.duration
                silent = 0
                if ends and spoken_s > 0.6 and not is_cut:
                    avatar.clear_buffer()
                    is_cut = True
            else:
                assert isinstance(item, rtc.VideoFrame)
                assert (item.width, item.height) == (16, 16)
                seen += 1
                silent += 1
                if seen == 5:
                    for _ in range(5):
                        await avatar.push_audio(rtc.AudioFrame(pcm(0.1), 16_000, 1, 1_600))
                    await avatar.push_audio(AudioSegmentEnd())
                if is_cut and silent > 20:
                    await avatar.aclose()
        return spoken_s, ends

    spoken_s, ends = asyncio.run(asyncio.wait_for(talk(), 30))
    assert ends == 1
    assert 0.6 < spoken_s < 0.9  # of 2.5 s that were pushed


def test_the_processor_of_pipecat():
    """A pipeline of the published package: speech becomes pictures and sound, or is cut."""
    pytest.importorskip("pipecat")
    from pipecat.frames.frames import (
        EndFrame,
        InterruptionFrame,
        OutputImageRawFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
    )
    from pipecat.tests.utils import SleepFrame, run_test

    example = load(EXAMPLES / "pipecat" / "joyflash_pipecat.py")

    async def talk():
        face = example.JoyFlashFace(open_session)
        speech = [TTSAudioRawFrame(pcm(0.1), 16_000, 1) for _ in range(5)]
        more = [TTSAudioRawFrame(pcm(0.1), 16_000, 1) for _ in range(60)]
        down, _ = await run_test(
            face,
            frames_to_send=[
                *speech, TTSStoppedFrame(), SleepFrame(sleep=3.0),
                *more, SleepFrame(sleep=2.2), InterruptionFrame(), SleepFrame(sleep=0.5),
                EndFrame(),
            ],
            send_end_frame=False,
        )  # fmt: skip
        return down

    frames = asyncio.run(asyncio.wait_for(talk(), 60))
    pictures = [frame for frame in frames if isinstance(frame, OutputImageRawFrame)]
    sounds = [frame for frame in frames if isinstance(frame, TTSAudioRawFrame)]
    assert len(pictures) > 100
    assert pictures[0].size == (16, 16)
    spoken_s = sum(len(frame.audio) for frame in sounds) / 2 / 24_000
    assert 0.5 < spoken_s < 4.0  # of 6.5 s that were pushed
    assert sounds[0].sample_rate == 24_000


def test_the_node_of_comfyui(toy_checkpoint, portrait, monkeypatch):
    """The node gives what the host shows; no host is needed."""
    import torch

    from joyflash_cli.render import JoyFlash

    spec = importlib.util.spec_from_file_location(
        "comfyui_joyflash", EXAMPLES / "comfyui" / "__init__.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded = JoyFlash.load("tiny", toy_checkpoint, device="cpu", dtype="float32")
    monkeypatch.setattr(module, "_loaded", lambda profile: loaded)
    node = module.NODE_CLASS_MAPPINGS["JoyFlashTalk"]()
    assert set(node.INPUT_TYPES()["required"]) == {"image", "audio", "profile", "seed"}
    image = torch.from_numpy(portrait[::4, ::4].copy())[None].float() / 255
    audio = {"waveform": torch.randn(1, 2, 8_000) * 0.1, "sample_rate": 16_000}
    frames, sound, fps = getattr(node, node.FUNCTION)(image, audio, "tiny", 3)
    assert frames.shape == (13, 128, 128, 3)
    assert 0 <= float(frames.min()) < float(frames.max()) <= 1
    assert (fps, sound) == (25.0, audio)


def test_the_publisher_of_whip(tmp_path):
    """A WHIP server on this machine gets pictures and sound, and the session's end."""
    pytest.importorskip("aiortc")
    from joyflash_cli.media.outputs.writer import open_muxer
    from joyflash_cli.types import AudioClip, SoundFormat

    example = load(EXAMPLES / "whip" / "joyflash_whip.py")
    video = tmp_path / "talk.mp4"
    with open_muxer(video, size=(64, 48), fps=25, audio=SoundFormat(16_000, 1)) as muxer:
        frames = np.full((75, 48, 64, 3), 200, np.uint8)
        muxer.write(frames, AudioClip(np.full((48_000, 1), 0.3, np.float32), 16_000))
        muxer.finish()

    async def send():
        with WhipServer(asyncio.get_running_loop()) as server:
            await example.publish(server.address, "secret", str(video))
            await server.connection.close()
        return server

    server = asyncio.run(asyncio.wait_for(send(), 30))
    assert server.requests == [
        ("POST", "/whip", "Bearer secret"),
        ("DELETE", "/it", "Bearer secret"),
    ]
    pictures = server.received["video"]
    assert len(pictures) > 60
    assert (pictures[-1].width, pictures[-1].height) == (64, 48)
    assert pictures[-1].to_ndarray(format="gray").mean() == pytest.approx(200, abs=5)
    heard_s = sum(frame.samples / frame.sample_rate for frame in server.received["audio"])
    assert heard_s == pytest.approx(3.0, abs=0.5)


class WhipServer:
    """Takes one session and keeps what it receives; used in a ``with`` statement."""

    def __init__(self, loop):
        self.loop = loop
        self.requests = []
        self.received = {"video": [], "audio": []}
        self.connection = None
        self._tasks = []

    def __enter__(self):
        whip = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                whip.requests.append(("POST", self.path, self.headers["Authorization"]))
                offer = self.rfile.read(int(self.headers["Content-Length"])).decode()
                answer = asyncio.run_coroutine_threadsafe(whip.answer(offer), whip.loop).result()
                self.send_response(201)
                self.send_header("Location", "/it")
                self.end_headers()
                self.wfile.write(answer.encode())

            def do_DELETE(self):
                whip.requests.append(("DELETE", self.path, self.headers["Authorization"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}/whip"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    async def answer(self, offer):
        from aiortc import RTCPeerConnection, RTCSessionDescription

        self.connection = RTCPeerConnection()
        self.connection.on("track", lambda track: self._tasks.append(self._receive(track)))
        await self.connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        return self.connection.localDescription.sdp

    def _receive(self, track):
        from aiortc.mediastreams import MediaStreamError

        async def receive():
            with contextlib.suppress(MediaStreamError):
                while True:
                    self.received[track.kind].append(await track.recv())

        return asyncio.ensure_future(receive())
