"""Bytes on their way into pipes and devices: all of them arrive, or it is told."""

import io
import os
import subprocess
import sys
import threading
import time

import pytest

from joyflash_cli.cli.events import EventStream
from joyflash_cli.errors import OutputError
from joyflash_cli.media.outputs.whole_writes import write_all
from joyflash_cli.media.outputs.writer import open_muxer

from .videos import noise_frames, tone

DATA = bytes(range(256)) * 4_000


def read_slowly(descriptor: int, into: bytearray) -> None:
    while piece := os.read(descriptor, 30_000):
        into += piece
        time.sleep(0.002)


@pytest.fixture
def slow_pipe():
    """The writing end of a pipe that does not block, and what its slow reader has read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    arrived = bytearray()
    thread = threading.Thread(target=read_slowly, args=(reader, arrived))
    thread.start()

    def finished() -> bytes:
        thread.join()
        os.close(reader)
        return bytes(arrived)

    return writer, finished


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_pipe_that_does_not_block_gets_every_byte(slow_pipe, buffering):
    writer, finished = slow_pipe
    with os.fdopen(writer, "wb", buffering=buffering) as stream:
        write_all(stream, DATA)
    assert finished() == DATA


def test_a_video_arrives_whole(slow_pipe, tmp_path):
    writer, finished = slow_pipe
    with os.fdopen(writer, "wb", buffering=0) as stream:  # noqa: SIM117
        with open_muxer(stream, size=(128, 96), fps=25, audio=tone(4.0)) as muxer:
            muxer.write(noise_frames(100, 128, 96))
            muxer.finish()
    with io.BytesIO() as whole, open_muxer(whole, size=(128, 96), fps=25, audio=tone(4.0)) as muxer:
        muxer.write(noise_frames(100, 128, 96))
        muxer.finish()
        expected = whole.getvalue()
    assert finished() == expected
    assert len(expected) > 200_000  # more than a pipe holds


def test_events_arrive_whole(slow_pipe):
    writer, finished = slow_pipe
    with os.fdopen(writer, "wb", buffering=0) as stream:
        events = EventStream(stream)
        for number in range(3_000):
            events.emit("block", block=number, text="x" * 50)
    assert finished().count(b"\n") == 3_000


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_text_arrives_whole(slow_pipe, stream):
    program = (
        "import sys\n"
        "from joyflash_cli.cli.process import *\n"
        "prepare_standard_streams()\n"
        f"for number in range(20_000): print('line', number, file=sys.{stream})\n"
        "settle_standard_streams()\n"
    )
    writer, finished = slow_pipe
    done = subprocess.run([sys.executable, "-c", program], check=False, **{stream: writer})
    assert done.returncode == 0
    assert not os.get_blocking(writer)
    os.close(writer)
    assert finished().count(b"\n") == 20_000


@pytest.mark.parametrize("refusal", [None, 0])
def test_a_stream_that_takes_nothing_is_an_error(refusal):
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data) -> int | None:
            return refusal

    with pytest.raises(OSError, match="temporarily unavailable"):
        write_all(Full(), DATA)
    with pytest.raises(OutputError) as caught, open_muxer(Full(), size=(64, 48), fps=25) as muxer:  # noqa: PT012
        for _ in range(20):
            muxer.write(noise_frames(12))
    assert caught.value.code == "E-OUTPUT-WRITE"


def test_a_stream_that_takes_a_little_at_a_time():
    taken = bytearray()

    class Little(io.RawIOBase):
        def write(self, data) -> int:
            taken.extend(data[:7])
            return min(7, len(data))

    write_all(Little(), DATA[:1_000])
    assert bytes(taken) == DATA[:1_000]


def test_a_reader_that_leaves_a_pipe_that_does_not_block():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Timer(0.2, os.close, [reader]).start()
    with os.fdopen(writer, "wb", buffering=0) as stream, pytest.raises(BrokenPipeError):
        write_all(stream, DATA)
