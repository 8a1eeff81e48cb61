"""Picture and voice as people give them: cut off, exchanged, on pipes, of several tracks."""

import io
import json
import os
import struct
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from joyflash_cli.cli.app import run
from joyflash_cli.cli.endpoints import said_while_opening
from joyflash_cli.render.record import read_sidecar

NUM_SAMPLES = 16_000


@pytest.fixture(autouse=True)
def _inside_an_empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def base(toy_checkpoint) -> list[str]:
    return ["render", "--checkpoint", str(toy_checkpoint), "--device", "cpu", "--dtype", "fp32"]


def wave(num_samples: int = NUM_SAMPLES) -> bytes:
    """One second at 16 kHz, as its header says; ``num_samples`` of it are there."""
    samples = 0.4 * np.sin(np.arange(num_samples) / 8)
    data = (samples * 32767).astype("<i2").tobytes()
    size = 2 * NUM_SAMPLES
    head = struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    head = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + head
    return head + b"data" + struct.pack("<I", size) + data


@pytest.fixture
def cut_voice(tmp_path) -> Path:
    path = tmp_path / "cut.wav"
    path.write_bytes(wave(9_600))
    return path


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("joyflash: ")]


def test_a_cut_off_file_is_told_recorded_and_refused_on_demand(
    base, toy_picture, cut_voice, capsys
):
    given = [*base, str(toy_picture), str(cut_voice), "-o", "a.mp4", "--json"]
    assert run([*given, "--strict"]) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "E-AUDIO-TRUNCATED" in shown.err
    assert list(Path.cwd().iterdir()) == []
    assert run(given) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["truncated"] is True
    text = "cut.wav is cut off after 0.60 s; it says that it has 1.00 s"
    assert f"joyflash: warning: {text}\n" in shown.err
    record = read_sidecar(Path("a.mp4"))
    assert record["truncated"] is True
    assert text in record["warnings"]
    assert run([*given, "--dry-run"]) == 6  # it is there now
    assert run([*base, str(toy_picture), str(cut_voice), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["truncated"] is True


@pytest.fixture
def piped(monkeypatch):
    """Runs with these bytes on standard input."""

    def attempt(command: list[str], data: bytes) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        return run(command)

    return attempt


def test_a_writer_that_dies_is_told(base, toy_picture, piped, capsys):
    given = [*base, str(toy_picture), "-", "--json", "--progress", "none"]
    text = "standard input is cut off after 0.60 s; it says that it has 1.00 s"
    assert piped([*given, "-o", "a.mp4"], wave(9_600)) == 0
    shown = capsys.readouterr()
    assert text in shown.err
    assert json.loads(shown.out)["truncated"] is True
    record = read_sidecar(Path("a.mp4"))
    assert record["truncated"] is True
    assert text in record["warnings"]
    assert piped([*given, "-o", "b.mp4", "--strict"], wave(9_600)) == 3
    assert text in capsys.readouterr().err
    assert not Path("b.mp4").exists()


def test_a_whole_sound_is_not_cut_off(base, toy_picture, toy_voice, capsys):
    assert run([*base, str(toy_picture), str(toy_voice), "--strict", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["truncated"] is False


def test_exchanged_inputs_are_told(base, toy_picture, toy_voice, capsys):
    assert run([*base, str(toy_voice), str(toy_picture)]) == 3
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert f"{toy_voice} is a sound and {toy_picture} is a picture: they are exchanged" in shown.err


@pytest.mark.parametrize("wrong", ["image", "audio"])
@pytest.mark.parametrize("address", ["https://host/talk", "http://host/a.wav", "s3://b/c.png"])
def test_addresses_are_not_fetched(base, toy_picture, toy_voice, wrong, address, capsys):
    inputs = {"image": str(toy_picture), "audio": str(toy_voice)} | {wrong: address}
    assert run([*base, inputs["image"], inputs["audio"], "-o", "a.mp4"]) == 3
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "URLs are not fetched" in shown.err


def test_a_batch_knows_them_too(toy_checkpoint, toy_picture, toy_voice, cut_voice, capsys):
    rows = [
        {"id": "cut", "image": str(toy_picture), "audio": str(cut_voice)},
        {"id": "turned", "image": str(toy_voice), "audio": str(toy_picture)},
        {"id": "good", "image": str(toy_picture), "audio": str(toy_voice)},
    ]
    Path("m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["batch", "m.jsonl", "--out-dir", "out", "--checkpoint", str(toy_checkpoint)]
    run([*given, "--device", "cpu", "--strict", "--dry-run", "--json"])
    told = capsys.readouterr()
    text = told.out + told.err
    assert "cut.wav is cut off after 0.60 s" in text
    assert "they are exchanged" in text


def test_samples_without_a_header_need_their_option(base, toy_picture, piped, capsys):
    given = [*base, str(toy_picture), "-", "-o", "a.mp4"]
    assert piped(given, wave()[44:]) == 3
    assert "--audio-format" in capsys.readouterr().err
    assert piped([*given, "--audio-format", "s16le:16000"], wave()) == 2
    assert "leave --audio-format out" in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("option", ["--image", "--audio", "--output"])
def test_a_pipe_without_its_other_end_is_told(
    base, toy_picture, toy_voice, option, monkeypatch, capsys
):
    """Which pipe, and on which option; then it goes on as if nothing had been."""
    monkeypatch.setattr("joyflash_cli.cli.endpoints._SAID_AFTER_S", 0.01)
    os.mkfifo("pipe")
    inputs = {"--image": str(toy_picture), "--audio": str(toy_voice), "--output": "a.mp4"}
    said = threading.Event()
    lines: list[str] = []

    def say(text: str, *, quiet: bool) -> None:
        lines.append(text)
        said.set()

    monkeypatch.setattr("joyflash_cli.cli.endpoints.say", say)

    def other_end() -> None:
        said.wait(60)
        if option == "--output":
            Path("read").write_bytes(Path("pipe").read_bytes())
        else:
            Path("pipe").write_bytes(Path(inputs[option]).read_bytes())

    thread = threading.Thread(target=other_end)
    thread.start()
    given = inputs | {option: "pipe"}
    code = run([*base, *(part for pair in given.items() for part in pair), "--quiet"])
    thread.join()
    assert code == 0, capsys.readouterr().err
    does = "reads from" if option == "--output" else "writes to"
    assert lines == [f"joyflash: waiting until a program {does} the pipe pipe ({option})"]


def test_what_opens_at_once_is_not_awaited(capsys):
    with said_while_opening(Path("a"), "--audio", quiet=False):
        pass
    assert capsys.readouterr().err == ""


def two_tracks(path: Path) -> Path:
    """A silent track, then a voice that is marked as the default."""
    import av
    from av.stream import Disposition

    file = io.BytesIO()
    with av.open(file, mode="w", format="matroska") as container:
        streams = [container.add_stream("flac", rate=16_000, layout="mono") for _ in range(2)]
        streams[0].disposition = Disposition(0)
        streams[1].disposition = Disposition.default
        for index, stream in enumerate(streams):
            samples = index * 9_000 * np.sin(np.arange(NUM_SAMPLES) / 8)
            frame = av.AudioFrame.from_ndarray(
                samples.astype(np.int16)[None], format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    path.write_bytes(file.getvalue())
    return path


def test_the_track_is_said_and_can_be_chosen(base, toy_picture, tmp_path, capsys):
    voice = two_tracks(tmp_path / "two.mkv")
    given = [*base, str(toy_picture), str(voice)]
    assert run([*given, "-o", "a.mp4"]) == 0
    assert "two.mkv has 2 sound tracks, counted from 0; track 1" in capsys.readouterr().err
    assert read_sidecar(Path("a.mp4"))["audio_track"] == 1
    assert run([*given, "--audio-track", "0", "--dry-run"]) == 0
    shown = capsys.readouterr().err
    assert "the audio is silent" in shown
    assert "sound tracks" not in shown
    assert run([*given, "--audio-track", "2", "--dry-run"]) == 3
    assert "2 sound tracks; there is no track 2" in capsys.readouterr().err
