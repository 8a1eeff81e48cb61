"""Live sound through the whole pipeline: the same frames as from a file, no sooner, no later."""

import dataclasses
import os
import threading
import time

import numpy as np
import pytest
from conftest import TOY_RATE_HZ, write_tone

from joyflash_cli.errors import AudioError
from joyflash_cli.media.inputs.hearing import PcmFormat
from joyflash_cli.media.inputs.sound import LiveSound
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.render import JoyFlash, plan_render, read_request
from joyflash_cli.render.record import read_sidecar
from joyflash_cli.streaming import StopRequested

PCM = PcmFormat("s16le", TOY_RATE_HZ, 1)
BYTES_PER_FRAME = 2 * TOY_RATE_HZ // 25


class Enough(Exception):
    pass


@pytest.fixture(scope="module")
def joyflash(toy_checkpoint):
    return JoyFlash.load("tiny", toy_checkpoint, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    return write_tone(tmp_path_factory.mktemp("live") / "voice.wav", 2.7)


@pytest.fixture(scope="module")
def request_(joyflash, toy_picture, voice):
    return read_request(joyflash.files, toy_picture, voice, seed=7)


@pytest.fixture(scope="module")
def expected(joyflash, request_):
    return frames_of(joyflash, request_)


def frames_of(joyflash, request, **options) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in joyflash.stream(request, **options)])


class Pipe:
    """A pipe that is written by a thread, so many bytes at a time, and then closed or not."""

    def __init__(self, data: bytes, step: int = 4_096, *, close: bool = True) -> None:
        self.num_written = 0
        self.stop = threading.Event()
        reader, self._writer = os.pipe()
        self.stream = os.fdopen(reader, "rb")
        self._thread = threading.Thread(target=self._write, args=(data, step, close))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.stream.close()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _write(self, data, step, close):
        try:
            for start in range(0, len(data), step):
                os.write(self._writer, data[start : start + step])
                self.num_written = start + step
            if not close:
                self.stop.wait(60)
        except BrokenPipeError:
            pass
        finally:
            os.close(self._writer)


def live(request_, pipe, pcm=None, **changes):
    return dataclasses.replace(request_, audio=LiveSound(pipe.stream, pcm), **changes)


@pytest.mark.parametrize("step", [333, 100_000])
def test_a_pipe_gives_the_frames_of_the_file(joyflash, request_, voice, expected, step):
    with Pipe(voice.read_bytes(), step) as pipe:
        assert np.array_equal(frames_of(joyflash, live(request_, pipe)), expected)


def test_plain_samples_give_the_frames_of_the_file(joyflash, request_, voice, expected):
    with Pipe(voice.read_bytes()[44:]) as pipe:
        assert np.array_equal(frames_of(joyflash, live(request_, pipe, PCM)), expected)


@pytest.mark.parametrize("look_ahead", [0, 1])
def test_a_short_look_ahead_gives_other_frames_but_always_the_same(
    joyflash, request_, voice, expected, look_ahead
):
    from_file = frames_of(joyflash, dataclasses.replace(request_, look_ahead_blocks=look_ahead))
    with Pipe(voice.read_bytes(), 1_234) as pipe:
        request = live(request_, pipe, look_ahead_blocks=look_ahead)
        assert np.array_equal(frames_of(joyflash, request), from_file)
    assert from_file.shape == expected.shape
    assert not np.array_equal(from_file, expected)


@pytest.mark.parametrize("look_ahead", [None, 0])
def test_the_first_picture_leaves_when_the_latency_says(joyflash, request_, voice, look_ahead):
    """With as much sound as the profile needs and no end, one block comes; with less, none."""
    needed_s = joyflash.latency(look_ahead).first_sound_s
    # libswresample holds back a few samples of the last millisecond.
    needed = round((needed_s + 0.002) * 25 * BYTES_PER_FRAME) // 2 * 2
    data = voice.read_bytes()[44:]
    patience_s = 60.0
    for num_bytes, num_chunks in ((needed, 1), (needed - 2 * BYTES_PER_FRAME, 0)):
        chunks, began = [], time.monotonic()

        def wait(waited_s, chunks=chunks, patience_s=patience_s):
            if waited_s > (1.0 if chunks else patience_s):
                raise Enough

        with Pipe(data[:num_bytes], close=False) as pipe:
            request = live(request_, pipe, PCM, look_ahead_blocks=look_ahead)
            with pytest.raises(Enough):
                chunks.extend(joyflash.stream(request, on_wait=wait))
        assert len(chunks) == num_chunks
        patience_s = time.monotonic() - began  # as long as the block took, and more


def test_a_slow_reader_pauses_the_writer(joyflash, request_):
    """Nothing is heard that a few blocks ahead of the reader do not need."""
    silence = bytes(60 * 25 * BYTES_PER_FRAME)
    with Pipe(silence) as pipe:
        chunks = joyflash.stream(live(request_, pipe, PCM))
        next(chunks)
        before, after = -1, 0
        while before != after:
            before = after
            time.sleep(1.0)
            after = pipe.num_written
        chunks.close()
    latency = joyflash.latency()
    # Read: one block. Waiting: two in each queue and one in each stage's hands.
    ahead_s = 7 * latency.block_s + latency.look_ahead_s + latency.block_s
    assert after / BYTES_PER_FRAME / 25 <= ahead_s + (65_536 + 65_536) / BYTES_PER_FRAME / 25
    assert after < len(silence) / 4


def test_a_live_render_is_complete_and_on_record(joyflash, request_, voice, tmp_path):
    with Pipe(voice.read_bytes()) as pipe:
        request = live(request_, pipe)
        result = joyflash.render(request, tmp_path / "out.mp4")
    assert result.complete
    assert result.video_frames == plan_render(request_, joyflash.sampler).num_frames == 68
    assert result.audio_s == pytest.approx(2.7)
    assert probe(result.output).num_frames == 68
    record = read_sidecar(result.output)
    assert (record["audio_s"], record["status"]) == (2.7, "complete")
    assert record["audio_sha256"] == request.audio.sha256


def test_silence_on_a_pipe_is_told_at_the_end(joyflash, request_, tmp_path):
    with Pipe(bytes(5 * BYTES_PER_FRAME)) as pipe:
        result = joyflash.render(live(request_, pipe, PCM), tmp_path / "out.mp4")
    assert any("silent" in warning for warning in result.warnings)


def test_stopping_while_nothing_comes_keeps_what_is_ready(joyflash, request_, voice, tmp_path):
    seen = []
    with Pipe(voice.read_bytes()[44:][: 58 * BYTES_PER_FRAME], close=False) as pipe:
        result = joyflash.render(
            live(request_, pipe, PCM),
            tmp_path / "out.mp4",
            on_chunk=seen.append,
            should_stop=lambda: bool(seen),
        )
    assert not result.complete
    assert result.output == tmp_path / "out.partial.mp4"
    info = probe(result.output)
    assert info.num_frames == result.video_frames == 9
    assert abs(info.audio_s - info.video_s) <= 1 / 25


def test_stopping_before_anything_came_leaves_nothing(joyflash, request_, tmp_path):
    with Pipe(b"", close=False) as pipe, pytest.raises(StopRequested):
        joyflash.render(live(request_, pipe), tmp_path / "out.mp4", should_stop=lambda: True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "E-AUDIO-EMPTY"), (b"RIFF\0\0\0\0WAVEdata\0\0", "E-AUDIO-FORMAT"), (b"hi", "E-AUDIO")],
)
def test_what_is_no_sound_leaves_no_file(joyflash, request_, tmp_path, data, code):
    with Pipe(data) as pipe, pytest.raises(AudioError) as caught:
        joyflash.render(live(request_, pipe), tmp_path / "out.mp4")
    assert caught.value.code.startswith(code)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_sample_later_keeps_what_was_ready(joyflash, request_, tmp_path):
    samples = np.full(4 * 16_000, 0.1, "<f4")
    samples[3 * 16_000] = np.nan
    with Pipe(samples.tobytes(), 1_000) as pipe, pytest.raises(AudioError) as caught:
        joyflash.render(live(request_, pipe, PcmFormat("f32le", 16_000, 1)), tmp_path / "out.mp4")
    assert caught.value.code == "E-AUDIO-NAN"
    assert "3.000 s" in caught.value.message
    assert "frames are kept in" in caught.value.message
    assert (tmp_path / "out.partial.mp4").exists()
    assert not (tmp_path / "out.mp4").exists()
