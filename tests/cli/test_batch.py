"""``joyflash batch``: real renders of a small model, and every way a table can be wrong."""

import csv
import io
import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from conftest import write_tone

from joyflash_cli.batch.jobs import Job
from joyflash_cli.cli.app import run
from joyflash_cli.errors import AudioError
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.render.record import read_sidecar

sys.path.insert(0, str(Path(__file__).parents[1] / "batch"))

from inline_engine import InlineEngine  # noqa: E402

HEADER = "id,image,audio,output,prompt,seed"


@pytest.fixture
def place(tmp_path, monkeypatch, toy_picture) -> Path:
    """An empty folder to work in, with a picture and two sounds in ``data``."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "face.png").write_bytes(toy_picture.read_bytes())
    write_tone(data / "one.wav", 0.4)
    write_tone(data / "two.wav", 0.6)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fakes(monkeypatch) -> list[str]:
    """Rows are not rendered but written down; sounds called ``bad`` fail."""
    rendered: list[str] = []

    class Fake:
        def render(self, job: Job) -> dict:
            rendered.append(job.row.id)
            if "bad" in job.row.audio:
                raise AudioError(f"{job.row.audio} has no samples", code="E-AUDIO-EMPTY")
            job.staged.write_bytes(b"video")
            return {"bytes": 5, "video_s": 2.0}

    monkeypatch.setattr(
        "joyflash_cli.cli.batch._make_engine", lambda *_: InlineEngine(lambda _device: Fake())
    )
    return rendered


def write_manifest(*lines: str, name: str = "data/m.csv", data: bytes | None = None) -> str:
    text = "\n".join((HEADER, *lines)) + "\n"
    Path(name).write_bytes(text.encode() if data is None else data)
    return name


def batch(*arguments: str, checkpoint: Path) -> int:
    return run(
        ["batch", *arguments, "--checkpoint", str(checkpoint), "--device", "cpu", "--dtype", "fp32"]
    )


def test_the_same_row_gives_the_same_bytes_everywhere(place, toy_checkpoint, capsys):
    """Alone or with others, in any order, in any worker, by ``batch`` or by ``render``."""
    spreadsheet = (
        "\ufeffid;image;audio;output;prompt;seed\r\n1;face.png;one.wav;a b;$(touch pwn).mp4;;7\r\n"
    )
    data = spreadsheet.replace("a b;$(touch pwn).mp4", '"a b;$(touch pwn).mp4"')
    rest = "-y;face.png;two.wav;;;\r\n3;face.png;m.csv;;;\r\n"
    manifest = write_manifest(data=(data + rest).encode())
    assert batch(manifest, "--out-dir", "out", "--workers", "2", checkpoint=toy_checkpoint) == 7
    shown = capsys.readouterr()
    assert shown.out == f"{place / 'out' / 'results.csv'}\n"
    assert shown.err.count("error[") == 1
    assert "error[E-BATCH-ROWS]: 1 of 3 rows failed" in shown.err
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == sorted(
        [".joyflash", "results.csv", "results.jsonl",
         "-y.mp4", "-y.mp4.json", "a b;$(touch pwn).mp4", "a b;$(touch pwn).mp4.json"]
    )  # fmt: skip
    assert sorted(path.name for path in place.iterdir()) == ["data", "out"]
    assert probe(Path("out/-y.mp4")).num_frames == 15
    record = read_sidecar(Path("out/a b;$(touch pwn).mp4"))
    assert (record["seed"], record["status"]) == (7, "complete")
    assert record["output"] == "a b;$(touch pwn).mp4"
    with Path("out/results.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["done", "done", "failed"]

    write_manifest("-y,face.png,two.wav,,,", "x,face.png,one.wav,,,7", name="data/n.csv")
    assert batch("data/n.csv", "--out-dir", "n", "--workers", "1", checkpoint=toy_checkpoint) == 0
    pairs = {"n/x.mp4": "out/a b;$(touch pwn).mp4", "n/-y.mp4": "out/-y.mp4"}
    for ours, theirs in pairs.items():
        assert Path(ours).read_bytes() == Path(theirs).read_bytes()
    alone = ["--image", "data/face.png", "--audio", "data/one.wav", "--seed", "7", "-o", "x.mp4"]
    options = ["--checkpoint", str(toy_checkpoint), "--device", "cpu", "--dtype", "fp32"]
    assert run(["render", *alone, *options, "--threads", "1", "--quiet"]) == 0
    assert Path("x.mp4").read_bytes() == Path("n/x.mp4").read_bytes()


def test_one_bad_row_of_a_hundred(place, toy_checkpoint, fakes, capsys):
    (place / "data" / "bad.wav").write_bytes(b"")
    rows = [f"r{n},face.png,{'bad' if n == 41 else 'one'}.wav,,," for n in range(100)]
    manifest = write_manifest(*rows)
    arguments = [manifest, "--out-dir", "out", "--json"]
    assert batch(*arguments, "--quiet", checkpoint=toy_checkpoint) == 7
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert (summary["rows"], summary["done"], summary["failed"], summary["open"]) == (100, 99, 1, 0)
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("joyflash: error[E-BATCH-ROWS]: 1 of 100 rows failed")
    assert len(fakes) == 100
    assert batch(*arguments, checkpoint=toy_checkpoint) == 7
    assert json.loads(capsys.readouterr().out)["rendered"] == 0
    assert len(fakes) == 100
    write_tone(place / "data" / "bad2.wav", 0.4)
    assert batch(*arguments, "--retry-failed", checkpoint=toy_checkpoint) == 7
    assert fakes[100:] == ["r41"]


def test_a_failed_row_is_told_when_it_fails(place, toy_checkpoint, fakes, capsys):
    (place / "data" / "bad.wav").write_bytes(b"")
    manifest = write_manifest("a,face.png,bad.wav,,,", "b,face.png,one.wav,,,")
    assert batch(manifest, "--out-dir", "out", "--fail-fast", checkpoint=toy_checkpoint) == 7
    errors = capsys.readouterr().err
    assert "batch: row 'a' failed: E-AUDIO-EMPTY: bad.wav has no samples" in errors
    assert "1 of 2 rows failed, 1 not begun" in errors
    assert fakes == ["a"]


def test_rows_that_cannot_be_begun_are_listed_at_once_and_the_others_run(
    place, toy_checkpoint, fakes, capsys
):
    rows = [f"r{n},gone{n}.png,http://example.com/{n}.wav,,," for n in range(30)]
    manifest = write_manifest(*rows, "good,face.png,one.wav,,,", "few,face.png")
    assert batch(manifest, "--out-dir", "out", "--json", checkpoint=toy_checkpoint) == 7
    shown = capsys.readouterr()
    listed = shown.err.splitlines()
    for n in range(30):
        assert listed[n].startswith(
            f"batch: row {n + 1} (line {n + 2}) fails: image 'gone{n}.png' does not exist; audio"
        )
    assert listed[30] == "batch: row 32 (line 33) fails: has 2 cells; the header has 6"
    assert "error[E-BATCH-ROWS]: 31 of 32 rows failed" in listed[-1]
    assert fakes == ["good"]
    summary = json.loads(shown.out)
    assert (summary["done"], summary["failed"], summary["open"]) == (1, 31, 0)
    with Path("out/results.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)].count("failed") == 31


def test_fail_fast_stops_at_a_row_that_cannot_be_begun(place, toy_checkpoint, fakes, capsys):
    manifest = write_manifest("a,face.png,one.wav,,,", "b,face.png,gone.wav,,,")
    assert batch(manifest, "--out-dir", "out", "--fail-fast", checkpoint=toy_checkpoint) == 7
    assert "1 of 2 rows failed, 1 not begun" in capsys.readouterr().err
    assert fakes == []


def test_a_dry_run_tells_of_rows_that_cannot_be_begun(place, toy_checkpoint, fakes, capsys):
    manifest = write_manifest("a,face.png,one.wav,,,", "b,face.png,gone.wav,,,")
    assert batch(manifest, "--out-dir", "o", "--dry-run", "--json", checkpoint=toy_checkpoint) == 7
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert [found["id"] for found in summary["would_fail"]] == ["b"]
    assert (summary["would_render"], summary["failed"]) == (1, 0)
    assert "0 failed earlier, 1 would fail" in shown.err
    assert sorted(path.name for path in place.iterdir()) == ["data"]


def test_a_column_too_many_is_noted(place, toy_checkpoint, fakes, capsys):
    manifest = write_manifest(data=b"id,image,audio,speaker\na,face.png,one.wav,Anna\n")
    assert batch(manifest, "--out-dir", "out", checkpoint=toy_checkpoint) == 0
    assert "'speaker' is no column of a batch and is left out" in capsys.readouterr().err
    assert fakes == ["a"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"id,image,audio\r\n", "has no rows"),
        (b"id,image\na,face.png\n", "lacks the column audio"),
        (b"id,image,audio\na,face.png,one.wav\na,face.png,two.wav\n",
         "id 'a' stands in rows 1, 2 (lines 2, 3)"),
        (b"id,image,audio\na,face.png,one.wav\nA,face.png,two.wav\n",
         "output 'a.mp4', one file with 'A.mp4' on some systems, stands in rows 1, 2 (lines 2, 3)"),
        (b'id,image,audio\na,face.png,"one.wav\nb,face.png,two.wav\n', "m.csv: line 2 is not CSV"),
        (b"id|image|audio\na|face.png|one.wav\n", "(delimiter ',')"),
    ],
)  # fmt: skip
def test_tables_that_are_wrong(place, toy_checkpoint, fakes, capsys, data, told):
    manifest = write_manifest(data=data)
    assert batch(manifest, "--out-dir", "out", checkpoint=toy_checkpoint) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert told in errors
    assert fakes == []
    assert not Path("out").exists()


def test_an_existing_video_is_exit_6(place, toy_checkpoint, fakes, capsys):
    manifest = write_manifest("a,face.png,one.wav,,,")
    Path("out").mkdir()
    Path("out/a.mp4").write_text("mine")
    assert batch(manifest, "--out-dir", "out", checkpoint=toy_checkpoint) == 6
    assert "error[E-OUTPUT-EXISTS]" in capsys.readouterr().err
    assert Path("out/a.mp4").read_text() == "mine"
    assert batch(manifest, "--out-dir", "out", "--overwrite", checkpoint=toy_checkpoint) == 0
    assert Path("out/a.mp4").read_bytes() == b"video"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--shard", "0/3"], 2, "shard '0/3' is not i/n"),
        (["--ray-address", "auto"], 2, "--ray-address is for --engine ray"),
        (["--engine", "dask"], 2, "dask"),
        (["--workers", "0"], 2, "workers"),
        (["--retry-faild"], 2, "did you mean --retry-failed?"),
        (["--out-dir", "data/face.png"], 6, "is not a folder"),
    ],
)
def test_options_that_are_wrong(place, toy_checkpoint, fakes, capsys, arguments, code, told):
    manifest = write_manifest("a,face.png,one.wav,,,")
    assert batch(manifest, "--out-dir", "out", *arguments, checkpoint=toy_checkpoint) == code
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert told in errors
    assert not Path("out").exists()


def test_a_manifest_from_a_pipe(place, toy_checkpoint, fakes, monkeypatch, capsys):
    lines = b'{"id": "a", "image": "data/face.png", "audio": "data/one.wav"}\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert batch("-", "--out-dir", "out", checkpoint=toy_checkpoint) == 0
    assert fakes == ["a"]
    assert json.loads(Path("out/results.jsonl").read_text())["state"] == "done"


class Service:
    """Feeds a batch through a pipe, a line whenever it likes, and reads its events."""

    def __init__(self, monkeypatch, checkpoint, *options):
        rows, self._write = os.pipe()
        self._read, events = os.pipe()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(os.fdopen(rows, "rb")))
        self.events, self.code = os.fdopen(self._read), None

        def work():
            options_ = ["--out-dir", "out", "--progress-fd", str(events), "-q", *options]
            self.code = batch("-", *options_, checkpoint=checkpoint)
            os.close(events)

        self._thread = threading.Thread(target=work, daemon=True)
        # Signals can only be listened to in the main thread.
        monkeypatch.setattr("signal.signal", lambda *_: None)
        self._thread.start()

    def feed(self, text):
        os.write(self._write, f"{text}\n".encode())

    def answer(self):
        """The next event about a row: kind, row and code."""
        for line in self.events:
            event = json.loads(line)
            if "job" in event:
                return event["event"], event["job"], event.get("code", event.get("video_s"))
        raise AssertionError("no more events")

    def finish(self):
        os.close(self._write)
        self._thread.join(60)
        rest = [json.loads(line)["event"] for line in self.events]
        self.events.close()
        return self.code, rest


def test_rows_begin_as_they_come(place, toy_checkpoint, fakes, monkeypatch):
    """Each line is answered before the next one is written; nothing stops the others."""
    (place / "data" / "bad.wav").write_bytes(b"")
    row = {"image": "data/face.png", "audio": "data/one.wav"}
    service = Service(monkeypatch, toy_checkpoint)
    for line, told in (
        (json.dumps({"id": "a", **row}), ("saved", "a", 2.0)),
        ("{rubbish", ("error", "", "E-MANIFEST-ROW")),
        (json.dumps({"id": "a", **row}), ("error", "a", "E-MANIFEST-ROW")),
        (json.dumps({"id": "b", **row, "audio": "none.wav"}), ("error", "b", "E-MANIFEST-ROW")),
        (json.dumps({"id": "c", **row, "audio": "data/bad.wav"}), ("error", "c", "E-AUDIO-EMPTY")),
        (json.dumps({"id": "d", **row, "output": "a.mp4"}), ("error", "d", "E-MANIFEST-ROW")),
        (json.dumps({"id": "e", **row}), ("saved", "e", 2.0)),
    ):
        service.feed(line)
        assert service.answer() == told
    assert service.finish() == (7, ["error"])
    assert fakes == ["a", "c", "e"]
    results = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    assert [found["state"] for found in results] == ["done", *4 * ["failed"], "failed", "done"]
    # Fed again: what is done is told at once, and not done again.
    service = Service(monkeypatch, toy_checkpoint)
    service.feed("id,image,audio")
    service.feed("e,data/face.png,data/one.wav")
    assert service.answer()[:2] == ("saved", "e")
    service.feed("f,data/face.png,data/one.wav")
    assert service.answer() == ("saved", "f", 2.0)
    assert service.finish()[0] == 0
    assert fakes == ["a", "c", "e", "f"]


@pytest.mark.parametrize(("line", "told"), [("id,picture", "lacks the columns"), ("", "is empty")])
def test_a_pipe_that_brings_no_table(place, toy_checkpoint, fakes, monkeypatch, capfd, line, told):
    service = Service(monkeypatch, toy_checkpoint)
    if line:
        service.feed(line)
    assert service.finish()[0] == 2
    assert told in capfd.readouterr().err


def test_a_dry_run_reads_everything_and_writes_nothing(place, toy_checkpoint, fakes, capsys):
    manifest = write_manifest("a,face.png,one.wav,,,", "b,face.png,two.wav,,,")
    assert batch(manifest, "--out-dir", "o", "--dry-run", "--json", checkpoint=toy_checkpoint) == 0
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert (summary["would_render"], summary["would_fail"]) == (2, [])
    assert summary["video_s"] == pytest.approx(1.0)
    assert "would write 2 videos, 1.00 s" in shown.err
    (place / "data" / "bad.wav").write_bytes(b"RIFF")
    write_manifest("a,face.png,one.wav,,,", "b,face.png,bad.wav,,,")
    assert batch(manifest, "--out-dir", "o", "--dry-run", "--json", checkpoint=toy_checkpoint) == 7
    shown = capsys.readouterr()
    assert [found["id"] for found in json.loads(shown.out)["would_fail"]] == ["b"]
    assert "1 of 2 rows would fail" in shown.err
    assert fakes == []
    assert sorted(path.name for path in place.iterdir()) == ["data"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_tidily_and_the_same_command_goes_on(
    place, toy_checkpoint, fakes, monkeypatch, capsys, number, code
):
    manifest = write_manifest(*(f"{name},face.png,one.wav,,," for name in "abc"))
    from joyflash_cli.cli import batch as module

    make = module._make_engine

    def interrupted(*arguments):
        engine = make(*arguments)
        engine._on_submit = lambda job: job.row.id == "b" and os.kill(os.getpid(), number)
        return engine

    monkeypatch.setattr(module, "_make_engine", interrupted)
    assert batch(manifest, "--out-dir", "out", checkpoint=toy_checkpoint) == code
    assert "stopped, the same command goes on with 1" in capsys.readouterr().err
    monkeypatch.setattr(module, "_make_engine", make)
    assert batch(manifest, "--out-dir", "out", checkpoint=toy_checkpoint) == 0
    assert fakes == ["a", "b", "c"]


def test_settings_of_the_model_decide_what_is_done_again(place, toy_checkpoint, fakes, capsys):
    manifest = write_manifest("a,face.png,one.wav,,,")
    assert batch(manifest, "--out-dir", "out", checkpoint=toy_checkpoint) == 0
    assert batch(manifest, "--out-dir", "out", "--offload", "text", checkpoint=toy_checkpoint) == 0
    assert batch(manifest, "--out-dir", "out", "--workers", "3", checkpoint=toy_checkpoint) == 0
    assert fakes == ["a"]
    assert batch(manifest, "--out-dir", "out", "--seed", "3", checkpoint=toy_checkpoint) == 2
    again = ["--overwrite", "--dtype", "bf16"]
    assert run(["batch", manifest, "--out-dir", "out", "--checkpoint", str(toy_checkpoint),
                "--device", "cpu", *again]) == 0  # fmt: skip
    assert fakes == ["a", "a"]


def test_what_auto_means_here_is_what_is_done_already(place, toy_checkpoint, fakes, monkeypatch):
    from joyflash_cli.render import device as device_module

    monkeypatch.setattr(device_module, "has_bfloat16", lambda _device: False)
    manifest = write_manifest("a,face.png,one.wav,,,")
    options = [manifest, "--out-dir", "out", "--checkpoint", str(toy_checkpoint)]
    assert run(["batch", *options, "--device", "cpu"]) == 0
    assert run(["batch", *options, "--device", "cpu", "--dtype", "fp32"]) == 0
    assert fakes == ["a"]
    monkeypatch.setattr(device_module, "has_bfloat16", lambda _device: True)
    assert run(["batch", *options, "--device", "cpu"]) == 6
    assert run(["batch", *options, "--device", "cpu", "--overwrite"]) == 0
    assert fakes == ["a", "a"]


def test_workers_that_do_not_fit_are_not_started(place, toy_checkpoint, monkeypatch, capsys):
    from joyflash_cli.batch import fitting

    monkeypatch.setattr(fitting, "WORKER_BYTES", 1 << 60)
    manifest = write_manifest("a,face.png,one.wav,,,", "b,face.png,two.wav,,,")
    arguments = [manifest, "--out-dir", "out", "--workers", "2"]
    assert batch(*arguments, checkpoint=toy_checkpoint) == 0
    assert "batch: 1 of 2 workers fit: each needs" in capsys.readouterr().err
