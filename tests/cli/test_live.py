"""``joyflash live`` as another program drives it: messages in, events and a video out."""

import base64
import json
import os
import socket
import stat
import subprocess
import time
from pathlib import Path

import av
import numpy as np
import pytest
from programs import Program

from joyflash_cli.media.outputs.probe import probe

RATE_HZ = 16_000


@pytest.fixture(autouse=True)
def _inside_an_empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def base(toy_checkpoint, toy_picture):
    options = ["--checkpoint", str(toy_checkpoint), "--device", "cpu", "--dtype", "float32"]
    return [str(toy_picture), *options, "--progress", "json"]


class Live:
    """The command, with its events as they come."""

    def __init__(self, arguments, **descriptors):
        self.events = []
        self.process = Program(
            ["live", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **descriptors,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()

    def say(self, **message):
        self.raw(json.dumps(message).encode() + b"\n")

    def raw(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def speak(self, seconds, segment=None):
        t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
        pcm = (8000 * np.sin(2 * np.pi * 220 * t)).astype("<i2").tobytes()
        self.say(type="audio", pcm=base64.b64encode(pcm).decode(), rate=RATE_HZ)
        if segment is not None:
            self.say(type="end_segment", id=segment)

    def wait_for(self, name, /, **values):
        while True:
            line = self.process.stderr.readline()
            assert line, f"{name} never came: {self.events}"
            event = json.loads(line)
            self.events.append(event)
            if event["event"] == name and values.items() <= event.items():
                return event

    def finish(self):
        """Events to the end; the exit code."""
        self.process.stdin.close()
        self.events += [json.loads(line) for line in self.process.stderr]
        return self.process.wait()

    def of(self, *names):
        return [event for event in self.events if event["event"] in names]


def test_a_conversation(base):
    with Live([*base, "-o", "out.mp4"]) as live:
        ready = live.wait_for("ready")
        assert (ready["fps"], ready["rate"], ready["video_s"]) == (25, 48_000, 0.0)
        assert abs(ready["wall_time"] - time.time()) < 60
        live.speak(0.6, "first")
        live.say(type="mark", name="after")
        first = live.wait_for("segment_first_frame")
        assert first["latency_s"] > 0
        last = live.wait_for("segment_last_frame", id="first")
        assert last["video_s"] - first["video_s"] == pytest.approx(0.56, abs=0.05)
        live.wait_for("mark", name="after", cleared=False)
        live.speak(6.0, "long")
        live.wait_for("segment_first_frame", segment=2)
        live.say(type="clear")
        cleared = live.wait_for("cleared")
        assert cleared["ids"] == ["long"]
        assert cleared["dropped_s"] > 3
        for unreadable in (b"rubbish\n", b'{"type": "dance"}\n', b'{"type": "audio"}\n'):
            live.raw(unreadable)
            assert live.wait_for("error")["code"] == "E-MESSAGE"
        live.say(type="picture", path="nowhere.png")
        assert live.wait_for("error")["code"] == "E-IMAGE-MISSING"
        time.sleep(0.5)
        live.say(type="quit")
        assert live.finish() == 0
    ended = live.of("ended")[0]
    assert ended["latency_s"]["p50"] > 0
    assert live.events[-1]["event"] == "done"
    info = probe(Path("out.mp4"))
    assert info.num_frames == ended["frames"]
    assert json.loads(Path("out.mp4.json").read_text())["status"] == "complete"
    with av.open("out.mp4") as container:
        heard = [frame.to_ndarray() for frame in container.decode(audio=0)]
        sound = np.concatenate(heard, axis=1)[0]
    silent_from = round((cleared["video_s"] + 0.1) * 48_000)
    assert np.abs(sound[silent_from:]).max() < 0.01
    assert np.abs(sound).max() > 0.2


def test_a_socket_and_another_picture(base, toy_picture):
    with Live([*base, "-o", "-", "--control", "face.sock"]) as live:
        for _ in range(200):
            if Path("face.sock").is_socket():
                break
            time.sleep(0.1)
        assert stat.S_IMODE(Path("face.sock").stat().st_mode) == 0o600  # nobody else may speak
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("face.sock")
            client.sendall(
                json.dumps({"type": "picture", "path": str(toy_picture)}).encode() + b"\n"
            )
            live.process.stdin.close()
            drain = subprocess.Popen(["cat"], stdin=live.process.stdout, stdout=subprocess.DEVNULL)
            live.wait_for("picture")
            client.sendall(b'{"type": "quit"}\n')
            live.events += [json.loads(line) for line in live.process.stderr]
        assert live.process.wait() == 0
        drain.wait()
    assert not Path("face.sock").exists()


def test_plain_sound_to_two_descriptors(base, toy_voice):
    """Every frame and every sample arrives; the end of the sound is the end."""
    frames_in, frames_out = os.pipe()
    sound_in, sound_out = os.pipe()
    arguments = [*base, "--frames-fd", str(frames_out), "--sound-fd", str(sound_out)]
    arguments += ["--audio", str(toy_voice), "--rate", "16000"]
    with Live(arguments, pass_fds=(frames_out, sound_out)) as live:
        os.close(frames_out)
        os.close(sound_out)
        reader = subprocess.Popen(["wc", "-c"], stdin=frames_in, stdout=subprocess.PIPE)
        os.close(frames_in)
        with open(sound_in, "rb") as stream:
            samples = np.frombuffer(stream.read(), "<i2")
        assert live.finish() == 0
        num_bytes = int(reader.communicate()[0])
    ended, ready = live.of("ended")[0], live.of("ready")[0]
    assert num_bytes == ended["frames"] * ready["width"] * ready["height"] * 3
    assert len(samples) == ended["frames"] * 640
    first, last = live.of("segment_first_frame")[0], live.of("segment_last_frame", "ended")[-1]
    assert np.abs(samples[round(first["video_s"] * 16000) :]).max() > 1000
    assert last["video_s"] > first["video_s"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "the video goes nowhere"),
        (["-o", "out.mp4", "--audio-format", "s16le:16000"], "--audio-format is for --audio"),
        (["-o", "out.mp4", "--late", "never"], "'never' says nothing about late pictures"),
        (["--frames-fd", "77"], "--frames-fd 77 is not open"),
        (["-o", "out.mp4", "--control", "no/where.sock"], "E-CONTROL"),
    ],
)
def test_what_cannot_be(base, arguments, told, capfd):
    from joyflash_cli.cli.app import run

    assert run(["live", *base[:-2], "-q", *arguments]) == 2
    assert told in capfd.readouterr().err
    assert os.listdir() == []
