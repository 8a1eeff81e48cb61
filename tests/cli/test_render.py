"""``joyflash render``: what it writes and prints, and every way it can fail."""

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TOY_AUDIO_S, TOY_PICTURE_PX, write_tone
from PIL import Image
from programs import Program

from joyflash_cli import __version__
from joyflash_cli.cli.app import run
from joyflash_cli.media.inputs.audio import read_audio
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.render.record import read_sidecar

NUM_FRAMES = 33  # ceil(1.3 s * 25)


@pytest.fixture(autouse=True)
def _inside_an_empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def base(toy_checkpoint, toy_picture, toy_voice) -> list[str]:
    """The options that every render of these tests needs."""
    options = {"--image": toy_picture, "--audio": toy_voice, "--checkpoint": toy_checkpoint}
    given = [str(part) for pair in options.items() for part in pair]
    return ["render", *given, "--device", "cpu", "--dtype", "float32"]


def changed(base: list[str], option: str, value: object) -> list[str]:
    place = base.index(option)
    return [*base[: place + 1], str(value), *base[place + 2 :]]


def files_here() -> list[str]:
    return sorted(path.name for path in Path.cwd().iterdir())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_short_form_writes_beside_where_it_runs(base, capsys):
    assert run(base) == 0
    shown = capsys.readouterr()
    assert shown.out == "face-talk.mp4\n"
    assert files_here() == ["face-talk.mp4", "face-talk.mp4.json"]
    info = probe(Path("face-talk.mp4"))
    assert (info.num_frames, info.fps, info.width) == (NUM_FRAMES, 25, TOY_PICTURE_PX[0])
    assert info.video_s == pytest.approx(NUM_FRAMES / 25)
    assert abs(info.audio_s - TOY_AUDIO_S) <= 1 / 25
    assert "saved face-talk.mp4: 1.32 s video / 1.30 s audio" in shown.err
    assert "realtime, seed 0" in shown.err


def test_json_is_one_object_on_stdout(base, capsys):
    assert run([*base, "--json", "--quiet", "--seed", "5", "-o", "out.mp4"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.count("\n") == 1
    summary = json.loads(shown.out)
    types = {
        "output": str, "complete": bool, "video_frames": int, "fps": int | float, "width": int,
        "height": int, "audio_s": float, "wall_s": float, "realtime_factor": float,
        "first_frame_s": float, "load_s": float, "seed": int, "profile": str, "version": str,
        "sidecar": str, "truncated": bool,
    }  # fmt: skip
    assert set(summary) == set(types)
    for name, kind in types.items():
        assert isinstance(summary[name], kind), name
    assert summary["output"] == "out.mp4"
    assert (summary["video_frames"], summary["fps"], summary["seed"]) == (NUM_FRAMES, 25, 5)
    assert summary["audio_s"] == pytest.approx(TOY_AUDIO_S)
    assert summary["version"] == __version__
    assert summary["profile"] == "toy"
    expected = NUM_FRAMES / 25 / summary["wall_s"]
    assert summary["realtime_factor"] == pytest.approx(expected, rel=0.01)


def test_quiet_leaves_stderr_empty(base, capsys):
    assert run([*base, "--quiet"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("face-talk.mp4\n", "")


def test_same_seed_same_file(base, capsys):
    for name, seed in (("a.mp4", 3), ("b.mp4", 3), ("c.mp4", 4)):
        assert run([*base, "-q", "--seed", str(seed), "-o", name]) == 0
    pictures = {name: decoded(name) for name in ("a.mp4", "b.mp4", "c.mp4")}
    assert pictures["a.mp4"] == pictures["b.mp4"]
    assert pictures["a.mp4"] != pictures["c.mp4"]


def decoded(name: str) -> bytes:
    import av

    with av.open(name) as container:
        return b"".join(f.to_ndarray(format="rgb24").tobytes() for f in container.decode(video=0))


def test_a_dry_run_checks_and_writes_nothing(base, capsys):
    assert run([*base, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "33 frames in 3 blocks" in shown.err
    assert run([*base, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["video_frames"], plan["blocks"], plan["dry_run"]) == (NUM_FRAMES, 3, True)
    assert files_here() == []


def test_a_dry_run_needs_no_weights_in_memory(base, capsys, toy_checkpoint, tmp_path):
    """Damage that only loading would meet does not show: nothing was loaded."""
    folder = tmp_path / "other"
    shutil.copytree(toy_checkpoint, folder)
    shutil.copy(folder / "codec.safetensors", folder / "transformer.safetensors")
    command = changed(base, "--checkpoint", folder)
    assert run([*command, "--dry-run"]) == 0
    assert run(command) == 4
    assert "E-CHECKPOINT-LAYOUT" in capsys.readouterr().err
    assert files_here() == []


def test_sound_from_standard_input(base, capsys, monkeypatch, toy_voice):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(toy_voice.read_bytes())))
    assert run([*changed(base, "--audio", "-"), "-o", "piped.mp4"]) == 0
    assert capsys.readouterr().out == "piped.mp4\n"
    assert probe(Path("piped.mp4")).num_frames == NUM_FRAMES


def test_progress_on_a_pipe_is_a_plain_line_every_ten_seconds():
    from joyflash_cli.cli.events import EventStream
    from joyflash_cli.cli.progress import Lines, RenderProgress, open_display
    from joyflash_cli.types import FrameChunk

    class Frames(list):
        pass

    times = iter([0.0, 4.0, 10.0, 12.0, 20.0])
    stream = io.StringIO()
    shown = Lines("render", stream, clock=lambda: next(times))
    progress = RenderProgress(100, 25.0, shown, EventStream())
    for index in range(4):
        count, first = (9, 0) if index == 0 else (12, 12 * index - 3)
        progress.update(FrameChunk(index, 9, Frames(range(count)), first, 1.0 + index))
    assert stream.getvalue().splitlines() == [
        "render: block 2/9, 21 frames, 12.0 fps, 0.48x realtime, 7 s left",
        "render: block 4/9, 45 frames, 12.0 fps, 0.48x realtime, 5 s left",
    ]
    quiet, log = (open_display("render", quiet=q, stream=stream) for q in (True, False))
    for display in (quiet, log):
        display.show("block 5/9", due=True)
    assert stream.getvalue().splitlines()[2:] == ["render: block 5/9"]


def test_progress_on_a_terminal_is_a_bar(base, monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    assert run(base) == 0
    shown = terminal.getvalue()
    assert "block 3/3" in shown
    assert "33 frames" in shown
    assert "realtime" in shown
    assert "saved face-talk.mp4" in shown


def wav_bytes(data: bytes, *, rate_hz: int = 16_000, bits: int = 16, tag: int = 1) -> bytes:
    kind = struct.pack("<HHIIHH", tag, 1, rate_hz, rate_hz * bits // 8, bits // 8, bits)
    chunks = b"fmt " + struct.pack("<I", 16) + kind + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def write_silent_video(path: Path) -> None:
    from joyflash_cli.media.outputs.writer import open_muxer

    with open_muxer(path, size=(64, 64), fps=25) as muxer:
        muxer.write(np.zeros((3, 64, 64, 3), np.uint8))
        muxer.finish()


@pytest.fixture
def broken(tmp_path, toy_checkpoint, toy_voice) -> dict[str, Path]:
    """Inputs that cannot be used, by name."""
    folder = tmp_path / "broken"
    folder.mkdir()
    made = {
        name: folder / name
        for name in (
            "empty.wav", "text.wav", "rate.wav", "odd.wav", "silent.mp4", "cut.png", "text.png",
            "short.png", "lfs", "half", "old.pth",
        )
    }  # fmt: skip
    made["zeros"] = Path("/dev/zero")
    made["rate.wav"].write_bytes(wav_bytes(b"\1\2" * 100, rate_hz=3_000_000))
    nan = struct.pack("<f", float("nan"))
    made["odd.wav"].write_bytes(wav_bytes(nan * 100, bits=32, tag=3))
    write_silent_video(made["silent.mp4"])
    Image.new("RGB", (1, 1)).save(made["short.png"])
    made["empty.wav"].write_bytes(toy_voice.read_bytes()[:40] + bytes(4))
    made["text.wav"].write_text("ffconcat version 1.0\nfile secret.wav\n")
    made["cut.png"].write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    made["text.png"].write_text("not a picture")
    made["old.pth"].write_bytes(b"PK")
    shutil.copytree(toy_checkpoint, made["lfs"])
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (made["lfs"] / "codec.safetensors").write_bytes(pointer)
    shutil.copytree(toy_checkpoint, made["half"])
    (made["half"] / "front_end.safetensors").unlink()
    (made["half"] / "front_end.bin").write_bytes(b"PK")
    return made


# Options to change or add, the exit code, the error code, and words of the message.
ERRORS = [
    ({"--imge": "x"}, 2, "E-USAGE", "did you mean --image"),
    ({"--seed": "abc"}, 2, "E-USAGE", "--seed"),
    ({"--seed": "-2"}, 2, "E-USAGE", "--seed"),
    ({"--seed": str(1 << 64)}, 2, "E-USAGE", "seed"),
    ({"--threads": "0"}, 2, "E-USAGE", "--threads"),
    ({"--profile": "huge"}, 2, "E-PROFILE", "livetalk-1.3b"),
    ({"--prompt": "smile \U0001f600\nnow"}, 2, "E-PROMPT", "no text control"),
    ({"--dtype": "float99"}, 2, "E-USAGE", "float99"),
    ({"--output": "-", "--json": None}, 2, "E-USAGE", "standard output"),
    ({"--audio-format": "s16:16000"}, 2, "E-AUDIO-FORMAT-OPTION", "s16le"),
    ({"--audio-format": "s16le:16000:99"}, 2, "E-AUDIO-FORMAT-OPTION", "channels"),
    ({"--look-ahead": "-1"}, 2, "E-USAGE", "--look-ahead"),
    ({"--progress": "loud"}, 2, "E-USAGE", "plain, json"),
    ({"--fps": "30"}, 2, "E-USAGE", "--output-fps"),
    ({"--output-fps": "0"}, 2, "E-USAGE", "--output-fps"),
    ({"--output-fps": "nan"}, 2, "E-USAGE", "--output-fps"),
    ({"--audio": "-"}, 2, "E-USAGE", "--output"),
    ({"--audio": "gone.wav"}, 3, "E-AUDIO-MISSING", "gone.wav"),
    ({"--audio": "http://localhost/talk.wav"}, 3, "E-AUDIO-MISSING", "talk.wav"),
    ({"--audio": "concat:a.wav|b.wav"}, 3, "E-AUDIO-MISSING", "no such file"),
    ({"--audio": "{empty.wav}"}, 3, "E-AUDIO-EMPTY", "empty.wav"),
    ({"--audio": "{text.wav}"}, 3, "E-AUDIO-FORMAT", "text.wav"),
    ({"--image": "gone.png"}, 3, "E-IMAGE-MISSING", "gone.png"),
    ({"--image": "{text.png}"}, 3, "E-IMAGE-FORMAT", "text.png"),
    ({"--image": "{cut.png}"}, 3, "E-IMAGE-", "cut.png"),
    ({"--face": "3"}, 3, "E-IMAGE-FACE", "face"),
    ({"--checkpoint": "gone"}, 4, "E-CHECKPOINT-MISSING", "gone"),
    ({"--checkpoint": "{old.pth}"}, 4, "E-CHECKPOINT-PICKLE", "safetensors"),
    ({"--checkpoint": "{half}"}, 4, "E-CHECKPOINT-INCOMPLETE", "front_end.safetensors"),
    ({"--checkpoint": "{lfs}"}, 4, "E-CHECKPOINT-POINTER", "git lfs pull"),
    ({"--device": "nonsense"}, 5, "E-DEVICE", "cuda:N or mps"),
    ({"--image": "{zeros}"}, 3, "E-IMAGE-SIZE", "MB"),
    ({"--audio": "{zeros}"}, 3, "E-AUDIO-FORMAT", "zero"),
    ({"--image": "{short.png}"}, 3, "E-IMAGE-SIZE", "1 x 1"),
    ({"--audio": "{rate.wav}"}, 3, "E-AUDIO-RATE", "3000000"),
    ({"--audio": "{odd.wav}"}, 3, "E-AUDIO-NAN", "at 0.000 s"),
    ({"--audio": "{silent.mp4}"}, 3, "E-AUDIO-STREAM", "no audio track"),
    ({"--dtype": "float16"}, 5, "E-DEVICE", "float16"),
    ({"--output": "gone/out.mp4"}, 6, "E-OUTPUT", "gone"),
    ({"--output": "."}, 6, "E-OUTPUT", "."),
    ({"--output": "out.gif"}, 6, "E-OUTPUT-SUFFIX", ".mp4"),
    ({"--output": "out.png"}, 6, "E-OUTPUT-SUFFIX", "out-%05d.png"),
    ({"--output": "%d-%d.png"}, 6, "E-OUTPUT-SUFFIX", "one number"),
]


@pytest.mark.parametrize(("changes", "exit_code", "code", "words"), ERRORS)
def test_errors_are_one_line(base, broken, capsys, changes, exit_code, code, words):
    command = base
    for option, value in changes.items():
        if value is not None and value.startswith("{"):
            value = str(broken[value.strip("{}")])
        if option in command:
            command = changed(command, option, value)
        else:
            command = [*command, option, *([] if value is None else [value])]
    assert run([*command, "--quiet"]) == exit_code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    assert shown.err.startswith(f"joyflash: error[{code}")
    assert words in shown.err
    assert files_here() == []


def test_picture_and_voice_without_their_options(base, capsys, toy_picture, toy_voice):
    rest = ["-q", *base[base.index("--checkpoint") :]]
    assert run(["render", str(toy_picture), str(toy_voice), *rest]) == 0
    assert capsys.readouterr().out == "face-talk.mp4\n"
    for given, told in (
        ([], "a picture is needed"),
        ([str(toy_picture)], "a voice is needed"),
        ([str(toy_picture), str(toy_voice), "x"], "unexpected extra argument"),
        ([str(toy_voice), "x", "--image", str(toy_picture)], "'x' is given besides"),
    ):
        assert run(["render", *given, *rest]) == 2
        assert told in capsys.readouterr().err


def test_another_frame_rate(base, capsys):
    assert run([*base, "--output-fps", "30", "--json", "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["video_frames"], plan["fps"], plan["blocks"]) == (39, 30, 3)
    assert run([*base, "--output-fps", "30", "--json", "-q"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["video_frames"], summary["fps"]) == (39, 30)  # 1.3 s * 30
    info = probe(Path("face-talk.mp4"))
    assert (info.num_frames, info.fps) == (39, 30)
    assert abs(info.audio_s - info.video_s) <= 1 / 30
    record = read_sidecar(Path("face-talk.mp4"))
    assert (record["fps"], record["video_frames"]) == (30, 39)
    assert record["parameters"]["output_fps"] == 30


def test_short_rates_mean_one_thing(base, capsys, tmp_path):
    """23.98 is 24000/1001 in plan, file and record: 100.18 s are 2402 frames, not 2403."""
    voice = write_tone(tmp_path / "long.wav", 100.18)
    assert (
        run([*changed(base, "--audio", voice), "--output-fps", "23.98", "--json", "--dry-run"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["video_frames"] == 2402
    assert run([*base, "--output-fps", "23.98", "--json", "-q"]) == 0
    summary = json.loads(capsys.readouterr().out)
    info, record = probe(Path("face-talk.mp4")), read_sidecar(Path("face-talk.mp4"))
    for fps in (summary["fps"], record["fps"], info.fps, record["parameters"]["output_fps"]):
        assert fps == pytest.approx(24_000 / 1_001, abs=1e-6)
    assert record["video_s"] == pytest.approx(info.video_s, abs=1e-6)


def test_one_frame_a_second_keeps_the_whole_sound(base, tmp_path):
    voice = write_tone(tmp_path / "voice.wav", 2.0)
    command = changed(base, "--audio", voice)
    for name in ("a.mp4", "a.mkv", "a-%d.png"):
        assert run([*command, "--output-fps", "1", "-q", "-o", name]) == 0
    for name in ("a.mp4", "a.mkv"):
        assert (probe(Path(name)).num_frames, probe(Path(name)).audio_s) == (2, 2.0)
    assert read_audio(Path("a-sound.wav")).duration_s == 2.0


@pytest.mark.parametrize("source", ["--image", "--audio"])
def test_an_input_is_never_an_output(base, capsys, source):
    mine = Path("mine.mp4")
    mine.write_bytes(Path(base[base.index(source) + 1]).read_bytes())
    before = mine.read_bytes()
    command = [*changed(base, source, mine), "-q", "--overwrite", "-o", "./mine.mp4"]
    assert run(command) == 6
    assert "error[E-OUTPUT-INPUT]" in capsys.readouterr().err
    assert files_here() == ["mine.mp4"]
    assert mine.read_bytes() == before


def test_a_foreign_file_in_the_records_place_is_left_alone(base, capsys):
    Path("face-talk.mp4.json").write_text("mine")
    assert run([*base, "-q"]) == 6
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "face-talk.mp4.json exists already" in error
    assert Path("face-talk.mp4.json").read_text() == "mine"
    assert files_here() == ["face-talk.mp4.json"]


def test_inputs_may_be_pipes_with_names(base, tmp_path, toy_picture, toy_voice):
    """As a shell's ``<(program)``: each can be read only once."""
    import hashlib
    import threading

    command = base
    writers = []
    for option, source in (("--image", toy_picture), ("--audio", toy_voice)):
        pipe = tmp_path / f"pipe{option}"
        os.mkfifo(pipe)
        writers.append(threading.Thread(target=pipe.write_bytes, args=[source.read_bytes()]))
        writers[-1].start()
        command = changed(command, option, pipe)
    assert run([*command, "-q", "-o", "out.mp4"]) == 0
    for writer in writers:
        writer.join()
    record = read_sidecar(Path("out.mp4"))
    assert record["image_sha256"] == hashlib.sha256(toy_picture.read_bytes()).hexdigest()
    assert record["audio_sha256"] == hashlib.sha256(toy_voice.read_bytes()).hexdigest()
    assert record["audio"] == "pipe--audio"
    assert record["video_frames"] == NUM_FRAMES


def test_an_output_may_be_a_pipe_with_a_name(base, tmp_path, capsys):
    import io as streams
    import threading

    import av

    pipe, read = tmp_path / "out.mp4", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert run([*base, "-o", str(pipe)]) == 0
    reader.join()
    assert pipe.is_fifo()
    shown = capsys.readouterr()
    assert shown.out == f"{pipe}\n"
    assert f"saved {pipe}" in shown.err
    with av.open(streams.BytesIO(read[0])) as container:
        assert sum(1 for _ in container.decode(video=0)) == NUM_FRAMES


def test_a_device_that_takes_nothing(base, capsys):
    assert run([*base, "-q", "-o", "/dev/full"]) == 6
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "/dev/full cannot be written" in error


def test_closed_streams_are_told(base, capsys, monkeypatch):
    with monkeypatch.context() as change:
        change.setattr(sys, "stdin", None)
        assert run([*changed(base, "--audio", "-"), "-o", "out.mp4"]) == 2
    assert "which is closed" in capsys.readouterr().err
    with monkeypatch.context() as change:
        change.setattr(sys, "stdout", None)
        assert run([*base, "-o", "-"]) == 6
    assert "standard output, which is closed" in capsys.readouterr().err
    assert files_here() == []


def test_an_existing_video_is_left_alone(base, capsys):
    Path("face-talk.mp4").write_bytes(b"mine")
    assert run([*base, "--quiet"]) == 6
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "E-OUTPUT-EXISTS" in shown.err
    assert "--overwrite" in shown.err
    assert Path("face-talk.mp4").read_bytes() == b"mine"
    assert run([*base, "--quiet", "--overwrite"]) == 0
    assert probe(Path("face-talk.mp4")).num_frames == NUM_FRAMES


def test_cheap_mistakes_are_told_before_anything_is_loaded(base, capsys, monkeypatch):
    from joyflash_cli.render import JoyFlash

    def refuse(*_args, **_kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(JoyFlash, "load", refuse)
    assert run([*base, "--output", "gone/out.mp4"]) == 6
    assert run(changed(base, "--audio", "gone.wav")) == 3
    assert run(changed(base, "--image", "gone.png")) == 3
    assert run(base) == 1  # the refusal works


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(base, capsys, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert run([*base, "-q", "--output", str(folder / "out.mp4")]) == 6
    assert "not writable" in capsys.readouterr().err


def test_a_terminal_gives_no_sound(base, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert run([*changed(base, "--audio", "-"), "-o", "out.mp4"]) == 2
    assert "E-STDIN-TERMINAL" in capsys.readouterr().err
    assert files_here() == []


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_is_ready(base, tmp_path, number, exit_code):
    voice = write_tone(tmp_path / "long.wav", 60.0)
    process = Program(
        [*changed(base, "--audio", voice), "-o", "out.mp4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: has_bytes(Path(".out.part.mp4"), 0), process)
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == exit_code, err
    assert out == "out.partial.mp4\n"
    assert files_here() == ["out.partial.mp4", "out.partial.mp4.json"]
    info = probe(Path("out.partial.mp4"))
    assert 0 < info.num_frames < 1500
    assert (info.num_frames - 9) % 12 == 0  # whole blocks
    assert abs(info.audio_s - info.video_s) <= 1 / 25
    assert f"saved {info.video_s:.1f} s of 60.0 s" in err


def has_bytes(path: Path, count: int) -> bool:
    return path.exists() and path.stat().st_size > count


def wait_until(condition, process, timeout_s: float = 240.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.02)


def test_the_second_signal_ends_at_once():
    from joyflash_cli.cli.process import StopSignals

    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        signals.be_graceful()
        assert not signals.requested()
        signal.raise_signal(signal.SIGTERM)
        assert signals.requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.exit_code == 143  # the first one counts
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_before_there_is_anything_to_save_ends_at_once(base, capsys, monkeypatch):
    from joyflash_cli.render import JoyFlash

    def interrupted(*_args, **_kwargs):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(JoyFlash, "load", interrupted)
    assert run([*base, "--quiet"]) == 143
    assert capsys.readouterr().out == ""
    assert files_here() == []
