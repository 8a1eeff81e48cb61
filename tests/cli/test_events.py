"""Events for programs: on standard error, or on a descriptor of their own."""

import io
import json
import os
from pathlib import Path

import pytest

from joyflash_cli.cli.app import run
from joyflash_cli.cli.events import EventStream
from joyflash_cli.cli.preview import open_preview
from joyflash_cli.cli.progress import BatchProgress, Display, RenderProgress
from joyflash_cli.types import FrameChunk


@pytest.fixture
def command(toy_checkpoint, toy_picture, toy_voice, tmp_path, monkeypatch) -> list[str]:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return ["render", str(toy_picture), str(toy_voice), "--checkpoint", str(toy_checkpoint),
            "--device", "cpu", "--dtype", "fp32", "-o", "out.mp4"]  # fmt: skip


@pytest.fixture
def descriptor():
    """The writing end of a pipe, and what was read from the other end once it is closed."""
    reader, writer = os.pipe()

    def events() -> list[dict]:
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    return writer, events


def names(events: list[dict]) -> list[str]:
    assert all(event["v"] == 1 for event in events)
    return [event["event"] for event in events]


def test_they_go_to_a_descriptor_and_people_keep_standard_error(command, descriptor, capsys):
    writer, events = descriptor
    assert run([*command, "--progress-fd", str(writer)]) == 0
    shown = capsys.readouterr()
    assert shown.out == "out.mp4\n"
    assert "saved out.mp4" in shown.err
    assert "{" not in shown.err
    found = events()
    assert names(found) == ["start", "load", "block", "block", "block", "saved", "done"]
    assert found[-2]["output"] == "out.mp4"
    assert found[-1]["exit_code"] == 0


def test_with_json_people_are_told_nothing(command, descriptor, capsys):
    writer, events = descriptor
    assert run([*command, "--progress", "json", "--progress-fd", str(writer)]) == 0
    assert capsys.readouterr().err == ""
    assert names(events())[-2:] == ["saved", "done"]


def test_an_error_is_the_last_event(command, descriptor, capsys):
    writer, events = descriptor
    command[2] = "gone.wav"
    assert run([*command, "--progress-fd", str(writer)]) == 3
    error = capsys.readouterr().err
    assert error.startswith("joyflash: error[E-AUDIO-MISSING]: gone.wav")
    assert error.count("\n") == 1
    (event,) = events()
    assert (event["event"], event["code"], event["exit_code"]) == ("error", "E-AUDIO-MISSING", 3)
    assert f"joyflash: error[E-AUDIO-MISSING]: {event['text']}\n" == error


def test_on_standard_error_an_error_is_one_line_and_json(command, capsys):
    command[2] = "gone.wav"
    assert run([*command, "--progress", "json"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert json.loads(error)["code"] == "E-AUDIO-MISSING"


def test_a_bug_is_an_event_too(command, capsys, monkeypatch):
    from joyflash_cli.render import JoyFlash

    def fail(*_args, **_kwargs):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(JoyFlash, "load", fail)
    assert run([*command, "--progress", "json"]) == 1
    event = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (event["event"], event["code"], event["exit_code"]) == ("error", "E-INTERNAL", 1)


def test_a_reader_that_leaves_does_not_stop_the_render(command):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert run([*command, "--progress-fd", str(writer), "--quiet"]) == 0
    finally:
        os.close(writer)
    assert Path("out.mp4").is_file()


@pytest.mark.parametrize(("number", "words"), [
    ("2", "is standard input, output or error"), ("987", "is not open"), (str(1 << 70), "not open"),
])  # fmt: skip
def test_descriptors_that_cannot_be(command, capsys, number, words):
    assert run([*command, "--progress-fd", number]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "error[E-PROGRESS-FD]" in error
    assert words in error


def test_a_descriptor_that_can_only_be_read(command, capsys):
    with open(os.devnull, "rb") as file:
        assert run([*command, "--progress-fd", str(file.fileno())]) == 2
    assert "can only be read" in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []


def test_a_preview_leaves_the_events_alone(tmp_path):
    stream = io.StringIO()
    preview = open_preview(tmp_path / "a.mp4", quiet=True)
    shown = RenderProgress(24, 25.0, preview, EventStream(stream))
    with preview:
        shown.loading("toy")
        shown.update(FrameChunk(0, None, [], 0, 1.0))
    assert names([json.loads(line) for line in stream.getvalue().splitlines()]) == [
        "start", "load", "block",
    ]  # fmt: skip


class Status:
    """What a batch reports; the fields that matter here."""

    num_rows, num_done, num_failed, num_running, num_open = 3, 1, 1, 1, 1
    num_elsewhere, num_idle, num_rendered, video_s, elapsed_s = 0, 0, 0, 0.0, 0.0
    last = None
    facts = {"video_s": 2.0}  # noqa: RUF012


def test_rows_of_a_batch_are_named():
    from joyflash_cli.batch.jobs import Failure

    stream, time_s = io.StringIO(), iter([0.0, 1.0, 2.0, 11.0])
    progress = BatchProgress(Display(), EventStream(stream), clock=lambda: next(time_s))
    for last in (
        None,
        ("r1", "r1.mp4", None),
        ("r2", "r2.mp4", Failure("E-AUDIO-EMPTY", "no samples", 3)),
        None,
    ):
        status = Status()
        status.last = last
        progress.update(status)
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert names(found) == ["start", "saved", "error", "rows"]
    assert [event.get("job") for event in found] == [None, "r1", "r2", None]
    assert found[2]["code"] == "E-AUDIO-EMPTY"
    assert found[3]["done"] == 1


def test_a_batch_tells_them(toy_checkpoint, toy_picture, toy_voice, tmp_path, monkeypatch, capsys):
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"id,image,audio\nr1,{toy_picture},gone.wav\n")
    command = ["batch", str(manifest), "--out-dir", str(tmp_path / "out"),
               "--checkpoint", str(toy_checkpoint), "--progress", "json"]  # fmt: skip
    assert run(command) == 7
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    failed = next(event for event in events if event["event"] == "error" and "job" in event)
    assert (failed["job"], failed["code"]) == ("r1", "E-MANIFEST-ROW")
    manifest.write_text("id,image\nr1,face.png\n")
    assert run([*command, "--overwrite"]) == 2
    event = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (event["event"], event["code"], event["exit_code"]) == ("error", "E-MANIFEST", 2)
    assert run([*command, "--progress", "loud"]) == 2
    assert "one of auto, bar, plain, json, none" in capsys.readouterr().err
