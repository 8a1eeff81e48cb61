"""Renders by several processes: the same bytes, no orphan, nothing lost when one of them dies."""

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TOY_RATE_HZ, write_tone
from test_live_render import BYTES_PER_FRAME, PCM, Pipe, live

from joyflash_cli.errors import AudioError, DeviceError
from joyflash_cli.media.inputs.hearing import PcmFormat
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.render import JoyFlash, rank_pipeline, rank_process, read_request
from joyflash_cli.render.placement import ExecutionOptions
from joyflash_cli.render.stages import SampledBlock
from joyflash_cli.types import AudioClip, FrameChunk, LatentBlock


@pytest.fixture(scope="module")
def alone(toy_checkpoint):
    return JoyFlash.load("tiny", toy_checkpoint, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def three(toy_checkpoint):
    """Two samplers and the codec, which have loaded."""
    execution = ExecutionOptions(gpus=3)
    joyflash = JoyFlash.load(
        "tiny", toy_checkpoint, device="cpu", dtype="float32", execution=execution
    )
    yield joyflash
    joyflash.close()
    assert multiprocessing.active_children() == []


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    return write_tone(tmp_path_factory.mktemp("voice") / "voice.wav", 2.7)


@pytest.fixture(scope="module")
def request_(alone, toy_picture, voice):
    return read_request(alone.files, toy_picture, voice, seed=7)


def test_files_and_live_sound_give_the_bytes_of_one_process(
    alone, three, request_, voice, tmp_path
):
    results = {
        name: joyflash.render(request_, tmp_path / f"{name}.mp4")
        for name, joyflash in {"alone": alone, "three": three}.items()
    }
    assert (tmp_path / "three.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()
    assert results["three"].video_frames == results["alone"].video_frames
    with Pipe(voice.read_bytes(), 3_333) as pipe:
        three.render(live(request_, pipe), tmp_path / "live.mp4")
    assert (tmp_path / "live.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()
    assert three.latency() == alone.latency()


def test_an_error_of_the_sound_comes_after_the_frames_before_it(alone, three, request_):
    samples = np.full(4 * 16_000, 0.1, "<f4")
    samples[3 * 16_000] = np.nan
    counts = []
    for joyflash in (alone, three):
        chunks = []
        with Pipe(samples.tobytes(), 1_000) as pipe:
            request = live(request_, pipe, PcmFormat("f32le", 16_000, 1))
            with pytest.raises(AudioError, match="3.000 s"):
                chunks.extend(joyflash.stream(request))
        counts.append(sum(len(chunk.frames) for chunk in chunks))
    assert counts[0] == counts[1] > 0


def test_a_slow_reader_pauses_the_writer(three, request_):
    sound = bytes(60 * 25 * BYTES_PER_FRAME)
    with Pipe(sound) as pipe:
        chunks = three.stream(live(request_, pipe, PCM))
        next(chunks)
        before, after = -1, 0
        while before != after:
            before = after
            time.sleep(0.7)
            after = pipe.num_written
        chunks.close()
    assert after < len(sound) / 3


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_killed_process_ends_all_and_keeps_what_is_ready(three, toy_picture, tmp_path, rank):
    request = read_request(
        three.files, toy_picture, write_tone(tmp_path / "long.wav", 20.0), seed=7
    )
    numbers = []

    def kill(chunk):
        if not numbers:
            numbers.extend(process.pid for process in three._parts._processes)
            os.kill(numbers[rank], signal.SIGKILL)

    with pytest.raises(DeviceError) as caught:
        three.render(request, tmp_path / "out.mp4", on_chunk=kill)
    assert caught.value.code == "E-GPUS-DIED"
    assert f"process {rank + 1} of 3" in caught.value.message
    assert "was killed by signal 9" in caught.value.message
    assert probe(tmp_path / "out.partial.mp4").num_frames >= 9
    assert not (tmp_path / "out.mp4").exists()
    assert not any(map(runs, numbers))


def runs(number: int) -> bool:
    return Path(f"/proc/{number}").exists()


SAMPLE_S, DECODE_S, NUM_BLOCKS = 0.25, 0.3, 8


def sleepy_sampling(_job, *_args):
    import torch

    for index in range(NUM_BLOCKS):
        time.sleep(SAMPLE_S)
        block = LatentBlock(index, torch.zeros(1, 3, 4, 8, 8), 4, index)
        yield SampledBlock(block, index, 1, NUM_BLOCKS, AudioClip(np.zeros((4, 1)), TOY_RATE_HZ))


def sleepy_decoding(_job, blocks, _started):
    for sampled in blocks:
        time.sleep(DECODE_S)
        frames = np.zeros((1, 8, 8, 3), np.uint8)
        yield FrameChunk(sampled.block.index, NUM_BLOCKS, frames, sampled.first_frame, 0.0)


def test_sampling_and_decoding_overlap(toy_checkpoint, request_, monkeypatch):
    monkeypatch.setattr(rank_pipeline, "START_METHOD", "fork")  # so that the stages go with it
    gc.disable()  # in a forked process it would wait for threads of this one
    monkeypatch.setattr(rank_process, "sample_stage", sleepy_sampling)
    monkeypatch.setattr(rank_process, "decode_stage", sleepy_decoding)
    execution = ExecutionOptions(gpus=2)
    joyflash = JoyFlash.load(
        "tiny", toy_checkpoint, device="cpu", dtype="float32", execution=execution
    )
    started = time.monotonic()
    assert [chunk.index for chunk in joyflash.stream(request_)] == list(range(NUM_BLOCKS))
    wall_s = time.monotonic() - started
    joyflash.close()
    gc.enable()
    bound_s = NUM_BLOCKS * max(SAMPLE_S, DECODE_S) + SAMPLE_S + DECODE_S
    assert NUM_BLOCKS * DECODE_S < wall_s <= 1.1 * bound_s


def test_ctrl_c_keeps_what_is_ready_and_leaves_no_process(toy_checkpoint, toy_picture, tmp_path):
    voice = write_tone(tmp_path / "long.wav", 60.0)
    command = [
        sys.executable, "-m", "joyflash_cli", "render", toy_picture, voice, "-o", "out.mp4",
        "--checkpoint", toy_checkpoint, "--device", "cpu", "--gpus", "3", "--progress", "none",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    part = tmp_path / ".out.part.mp4"
    while not (part.exists() and part.stat().st_size) and process.poll() is None:
        time.sleep(0.05)
    assert len(members(process.pid)) >= 4
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    said = [line for line in err.splitlines() if not line.startswith("weights: ")]
    assert [line.split()[0] for line in said] == ["saved"]
    assert probe(tmp_path / "out.partial.mp4").num_frames >= 9
    deadline = time.monotonic() + 10
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert members(process.pid) == []


def members(group: int) -> list[int]:
    """Living processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, of = path.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                found.append(int(path.parent.name))
    return found
