"""``joyflash render`` in real pipelines: other programs' sound, readers that leave, kills."""

import io
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
from conftest import write_tone
from programs import Program, run_program

from joyflash_cli.cli.app import run
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.render.record import read_sidecar

NEEDS_FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


@pytest.fixture(autouse=True)
def _inside_an_empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def live(toy_checkpoint, toy_picture) -> list[str]:
    """Render with sound from standard input."""
    options = ["--image", str(toy_picture), "--checkpoint", str(toy_checkpoint)]
    return ["render", *options, "--device", "cpu", "--dtype", "float32", "--audio", "-"]


def heard_from(line: str, command: list[str], **options) -> subprocess.CompletedProcess:
    """The command, with its standard input from a shell's line; what the line says joins it."""
    with subprocess.Popen(
        ["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as writer:
        done = run_program(command, stdin=writer.stdout, **options)
        writer.stdout.close()
        done.stderr += writer.stderr.read()
    assert writer.returncode == 0, done.stderr
    return done


def files_here() -> list[str]:
    return sorted(path.name for path in Path.cwd().iterdir())


def num_frames_of(data: bytes) -> int:
    with av.open(io.BytesIO(data)) as container:
        return sum(1 for _ in container.decode(video=0))


class Run:
    """A render whose standard input stays in our hands; its events are read as they come."""

    def __init__(self, command: list[str]) -> None:
        self.events: list[dict] = []
        self.process = Program(
            [*command, "--progress", "json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def wait_for(self, event: str, count: int = 1) -> dict:
        """Reads events until ``count`` of this kind were seen; the last of them."""
        while sum(e["event"] == event for e in self.events) < count:
            line = self.process.stderr.readline()
            assert line, f"{event} never came: {self.events}"
            self.events.append(json.loads(line))
        return [e for e in self.events if e["event"] == event][-1]


@NEEDS_FFMPEG
@pytest.mark.parametrize(
    "writer",
    [
        "ffmpeg -v error -i {voice} -f wav -",
        "ffmpeg -v error -i {voice} -c:a pcm_f32le -ar 44100 -ac 2 -f wav -",
        "ffmpeg -v error -i {voice} -f mp3 -",
        "cat {voice}",
        "(head -c 30000 {voice}; sleep 0.3; tail -c +30001 {voice})",
    ],
)
def test_sound_from_other_programs(live, toy_voice, writer):
    line = writer.format(voice=shlex.quote(str(toy_voice)))
    done = heard_from(line, [*live, "-q", "-o", "out.mp4"])
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out.mp4\n", b"")
    info = probe(Path("out.mp4"))
    assert info.num_frames in range(33, 36)  # MP3 without its length adds up to 50 ms
    assert files_here() == ["out.mp4", "out.mp4.json"]


@NEEDS_FFMPEG
def test_from_program_to_program(live, toy_voice):
    """Raw samples in, fragmented MP4 out, and a player that decodes it from the pipe."""
    voice = shlex.quote(str(toy_voice))
    source = f"ffmpeg -v error -i {voice} -f f32le -ar 48000 -ac 2 -"
    options = ["--audio-format", "f32le:48000:2", "-o", "-", "-q"]
    player = ["ffmpeg", "-v", "error", "-i", "-", "-map", "0:v", "-f", "framemd5", "-"]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(player, **pipe) as shown:
        done = heard_from(source, [*live, *options], stdout=shown.stdin)
        out, err = shown.communicate()
    assert (done.returncode, done.stderr, shown.returncode, err) == (0, b"", 0, b"")
    frames = [line for line in out.decode().splitlines() if not line.startswith("#")]
    assert len(frames) == 33
    assert files_here() == []


def test_standard_output_carries_the_video_and_nothing_else(live, toy_voice):
    done = run_program([*live, "-o", "-"], input=toy_voice.read_bytes())
    assert done.returncode == 0
    assert num_frames_of(done.stdout) == 33
    text = done.stderr.decode()
    assert "first picture after" in text
    assert "s of sound and 8 passes" in text
    assert "saved standard output: 1.32 s video / 1.30 s audio" in text


def test_a_reader_that_leaves_ends_the_run_with_141(live, tmp_path):
    voice = write_tone(tmp_path / "long.wav", 30.0)
    with subprocess.Popen(["cat", str(voice)], stdout=subprocess.PIPE) as writer:
        pipe = {"stdin": writer.stdout, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with Program([*live, "-q", "-o", "-"], **pipe) as render:
            writer.stdout.close()
            render.stdout.read(3000)
            render.stdout.close()
            assert render.stderr.read() == b""
    assert render.returncode == 141


def test_a_terminal_is_no_place_for_a_video(live, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run([*live, "-o", "-"]) == 2
    assert "E-STDOUT-TERMINAL" in capsys.readouterr().err


def test_a_dry_run_waits_for_no_sound(live, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run([*live, "-o", "out.mp4", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["video_frames"], plan["fps"], plan["audio_s"]) == (None, 25, None)
    assert run([*live, "-o", "out.mp4", "--dry-run"]) == 0
    assert "as long as the sound" in capsys.readouterr().err


def test_zero_samples_leave_no_file(live, capsys, monkeypatch, toy_voice):
    header = toy_voice.read_bytes()[:40] + bytes(4)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(header)))
    assert run([*live, "-q", "-o", "out.mp4"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "E-AUDIO-EMPTY" in error
    assert files_here() == []


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stalled_stdin_is_left_by_a_signal(live, tmp_path, number, exit_code):
    voice = write_tone(tmp_path / "long.wav", 4.0)
    with Run([*live, "-o", "out.mp4"]) as render:
        render.process.stdin.write(voice.read_bytes())
        render.process.stdin.flush()  # and says no more, without an end
        render.wait_for("block", 3)
        render.process.send_signal(number)
        stopped = render.wait_for("stopped")
        assert render.process.wait(60) == exit_code
        assert render.process.stdout.read() == b"out.partial.mp4\n"
    assert files_here() == ["out.partial.mp4", "out.partial.mp4.json"]
    info = probe(Path("out.partial.mp4"))
    assert info.num_frames == stopped["video_frames"] >= 33
    assert abs(info.audio_s - info.video_s) <= 1 / 25
    assert read_sidecar(Path("out.partial.mp4"))["status"] == "partial"


def test_killed_suspended_and_resumed(live, tmp_path):
    """A stop in between changes nothing; a kill leaves all but the last second."""
    voice = write_tone(tmp_path / "long.wav", 60.0)
    with Run([*live, "-o", "out.mp4"]) as render:
        writer = subprocess.Popen(["cat", str(voice)], stdout=render.process.stdin)
        try:
            render.wait_for("block", 2)
            render.process.send_signal(signal.SIGSTOP)
            time.sleep(0.5)
            render.process.send_signal(signal.SIGCONT)
            render.wait_for("block", 8)
            render.process.kill()
            render.process.wait(60)
        finally:
            writer.kill()
            writer.wait()
        rest = render.process.stderr.read().splitlines()
        written = [e["frames"] for e in map(json.loads, rest) if e["event"] == "block"]
        written = max(written, default=render.events[-1]["frames"])
    assert files_here() == [".out.part.mp4"]
    assert written - num_frames_of(Path(".out.part.mp4").read_bytes()) <= 25


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".m3u8"])
def test_killed_at_any_time(live, tmp_path, suffix):
    """Ten kills at random times for each output that is a file."""
    import random

    voice = write_tone(tmp_path / "long.wav", 60.0)
    chance = random.Random(0)
    for _ in range(10):
        for path in Path.cwd().iterdir():
            path.unlink()
        blocks = chance.randrange(1, 20)
        with Run([*live, "-o", f"out{suffix}"]) as render:
            writer = subprocess.Popen(["cat", str(voice)], stdout=render.process.stdin)
            try:
                render.wait_for("block", blocks)
                time.sleep(chance.random() / 2)
                render.process.kill()
                render.process.wait(60)
            finally:
                writer.kill()
                writer.wait()
            rest = [json.loads(line) for line in render.process.stderr]
            frames = [e["frames"] for e in (*render.events, *rest) if e["event"] == "block"]
        left = Path(f"out{suffix}" if suffix == ".m3u8" else f".out.part{suffix}")
        if suffix == ".mkv":
            time.sleep(1.0)  # the ffmpeg program notices the end of its input
        assert max(frames) - frames_that_play(left) <= 25 + 12


def frames_that_play(path: Path) -> int:
    """Frames that decode; a playlist without an end is closed first, as a player would see it."""
    if not path.exists():
        return 0
    if path.suffix == ".m3u8":
        path.write_text(path.read_text() + "#EXT-X-ENDLIST\n")
    try:
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0))
    except av.error.FFmpegError:
        return 0


def test_progress_for_programs_is_one_object_a_line():
    from joyflash_cli.cli.events import EventStream
    from joyflash_cli.cli.progress import RenderProgress, open_display
    from joyflash_cli.types import FrameChunk

    class Frames(list):
        pass

    stream = io.StringIO()
    display = open_display("render", quiet=False, kind="json", stream=stream)
    events = EventStream(stream)
    progress = RenderProgress(None, 25.0, display, events)
    progress.loading("toy")
    for waited_s in (1.0, 10.5, 12.0, 21.0):
        progress.waiting(waited_s)
    progress.update(FrameChunk(0, None, Frames(range(9)), 0, 1.0))
    events.emit("saved", output="a.mp4")
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [e["event"] for e in found] == ["start", "load", "wait", "wait", "block", "saved"]
    assert all(e["v"] == 1 for e in found)
    assert found[4] == {
        "v": 1, "event": "block", "block": 1, "blocks": None, "frames": 9, "fps": 9.0,
        "realtime_factor": 0.36, "eta_s": None,
    }  # fmt: skip


def test_a_wait_is_a_heartbeat_every_ten_seconds():
    from joyflash_cli.cli.events import EventStream
    from joyflash_cli.cli.progress import Lines, RenderProgress

    stream = io.StringIO()
    display = Lines("render", stream, clock=lambda: 0.0)
    progress = RenderProgress(None, 25.0, display, EventStream())
    for waited_s in (0.2, 9.9, 10.1, 11.0, 20.3):
        progress.waiting(waited_s)
    assert stream.getvalue().splitlines() == [
        "render: waiting for sound, 10 s; 0 frames written",
        "render: waiting for sound, 20 s; 0 frames written",
    ]


def test_only_a_second_signal_ends_at_once(live, tmp_path):
    """While the picture is still being made, two signals leave nothing and take no time."""
    with Run([*live, "-o", "out.mp4"]) as render:
        render.wait_for("latency")
        render.process.send_signal(signal.SIGINT)
        render.process.send_signal(signal.SIGINT)
        assert render.process.wait(60) == 130
        assert render.process.stdout.read() == b""
    assert files_here() == []
