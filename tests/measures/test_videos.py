"""Videos of known quality are judged in the right order; nothing is lost, hidden or done twice."""

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from measures.judged_films import write_qualities
from programs import Program, run_program

from joyflash_cli.cli.app import run
from joyflash_cli.errors import DataError, OutputError, UsageError
from joyflash_cli.measures import videos
from joyflash_cli.measures.clip import VideoRow
from joyflash_cli.measures.evaluation_set import build_set
from joyflash_cli.measures.film import FilmReading, read_film
from joyflash_cli.measures.metric import Measured
from joyflash_cli.measures.table import Measure
from joyflash_cli.measures.video_rows import read_video_rows
from joyflash_cli.measures.video_table import as_markdown, summarise

KEYS = (
    "lip_correlation", "lip_lag_frames", "mouth_movement", "blinks_per_min", "identity_similarity",
    "sharpness_drift", "border_flicker", "fps", "fps_dit",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_qualities(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def judged(folder):
    """Every quality's row."""
    made, out = folder / "made", folder / "results"
    command = ["evaluate", "videos", str(made), "--truth", str(folder / "true"), "--out", str(out)]
    readings: dict[bytes, FilmReading] = {}

    def read_once(frames, **options):
        """The true film of all is the same: what is read of it is, too."""
        frames = list(frames)
        key = hashlib.sha256(np.stack(frames)).digest()
        if key not in readings:
            readings[key] = read_film(frames, **options)
        return readings[key]

    with pytest.MonkeyPatch.context() as change:
        change.setattr("joyflash_cli.measures.clip.read_film", read_once)
        assert run([*command, "--metrics", "lips,drift,picture", "--quiet"]) == 0
    summary = json.loads((out / "videos.json").read_text())
    return {Path(row["video"]).stem: row for row in summary["rows"]}


ORDER = {
    # Higher is better: what is before > has more than what is behind it.
    "lip_correlation": "true > aged > blurred > other, late > blurred, late > still",
    "lip_correlation_at_zero_lag": "true > late > other, blurred > other, late > still",
    "width_correlation_at_zero_lag": "true > late > other, blurred > other, late > still",
    "open_mouth_psnr_db": "true > late",  # of softer ones no mouth is read as open
    "sound_correlation": "true > other, true > blurred, late > other, true > still",
    "mouth_movement": "true > blurred > still, other > still",
    "blinks_per_min": "true > still, late > still, other > still",
    "face_clarity": "true > aged > blurred",
    "sharpness": "true > aged > blurred",
    "sharpness_drift": "true > aged, blurred > aged",
    "identity_similarity": "true > aged, still > aged",
    "identity_drift": "true > aged, still > aged, blurred > aged",
    # Lower is better.
    "silence_movement": "other > true, other > late",
    "colour_drift": "aged > true, aged > other",
}


@pytest.mark.parametrize("key", ORDER)
def test_known_qualities_come_out_in_order(judged, key):
    found = {name: row["metrics"][key] for name, row in judged.items()}
    for chain in ORDER[key].split(", "):
        names = chain.split(" > ")
        for more, less in itertools.pairwise(names):
            assert found[more] > found[less], f"{more} > {less}: {found}"


def test_lags_are_those_of_the_films(judged):
    metrics = {name: row["metrics"] for name, row in judged.items()}
    lags = {name: found["lip_lag_frames"] for name, found in metrics.items()}
    assert lags == {
        "true": 0, "late": 2, "blurred": 0, "aged": 0, "still": None, "other": None,
    }  # fmt: skip
    assert metrics["late"]["sound_lag_frames"] - metrics["true"]["sound_lag_frames"] == 2
    assert "have no lag" in judged["other"]["reasons"]["lip_lag_frames"]


def test_true_and_late_amplitudes_are_one_and_a_still_mouth_has_none(judged):
    metrics = {name: row["metrics"] for name, row in judged.items()}
    assert metrics["true"]["mouth_amplitude"] == pytest.approx(1)
    assert metrics["other"]["mouth_amplitude"] == pytest.approx(1, abs=0.05)
    assert metrics["blurred"]["sharpness_drift"] == pytest.approx(1, abs=0.05)
    still, reasons = metrics["still"], judged["still"]["reasons"]
    assert still["mouth_amplitude"] < 0.05
    assert still["blinks_per_min"] == 0
    assert (still["lip_correlation"], still["sound_correlation"]) == (0, 0)
    assert still["silence_movement"] is None
    for key in ("lip_lag_frames", "sound_lag_frames", "silence_movement"):
        assert reasons[key] == "the lips stand still"


def test_a_figure_is_null_with_a_reason_and_never_missing(judged):
    for row in judged.values():
        assert row["system"] == "made"
        assert row["error"] is None
        assert set(KEYS) <= set(row["metrics"])
        for key, value in row["metrics"].items():
            assert (value is None) == (key in row["reasons"])
    reasons = judged["true"]["reasons"]
    assert "only known of videos that JoyFlash made" in reasons["border_flicker"]
    assert reasons["fps"] == "not asked for: --metrics speed"


def test_rows_that_fail_are_listed_and_end_with_7(folder, tmp_path, capsys):
    source = tmp_path / "videos"
    source.mkdir()
    (source / "good.mp4").write_bytes((folder / "made" / "true.mp4").read_bytes())
    (source / "damaged.mp4").write_bytes(b"no video")
    assert run(["evaluate", "videos", str(source), "--metrics", "lips,speed", "--json"]) == 7
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    bad, good = found["rows"]
    assert "cannot be read" in bad["error"]
    assert bad["metrics"]["mouth_movement"] is None
    assert bad["reasons"]["mouth_movement"] == bad["error"]
    assert good["metrics"]["mouth_movement"] > 0
    assert "no true film is given" in good["reasons"]["lip_correlation"]
    assert [entry["video"] for entry in found["failed"]] == [str(source / "damaged.mp4")]
    group = found["systems"]["videos"]
    assert (group["clips"], group["failed"]) == (2, 1)
    assert group["metrics"]["mouth_movement"] == {
        "mean": good["metrics"]["mouth_movement"], "spread": None, "clips": 1,
    }  # fmt: skip
    assert "1 of 2 videos could not be measured" in shown.err
    assert "damaged.mp4" in (source / "measures" / "videos.md").read_text()


class Counting:
    """A metric that counts its calls, and stops the test's process if told to."""

    needs_download = False
    measures = (Measure("length", "length", "s", "length of the file's name"),)

    def __init__(self, name="counting", why="", settings=()):
        self.name, self.why, self.calls, self.settings = name, why, [], dict(settings)

    def missing(self):
        return self.why

    def compute(self, clip):
        self.calls.append(clip.row.name)
        if "bad" in clip.row.name:
            raise DataError("it is bad")
        if "bug" in clip.row.name:
            raise ValueError("inner matter")
        return Measured({"length": len(clip.row.name) if "nan" not in clip.row.name else np_nan()})


def np_nan():
    return float("nan")


@pytest.fixture
def rows(tmp_path):
    found = []
    for name in ("a", "bad", "bug", "nan", "a/b"):
        path = tmp_path / f"{name.replace('/', '-')}.mp4"
        path.write_bytes(name.encode())
        found.append(VideoRow(name, path, system="x", category="y" if name == "a" else ""))
    return [*found, VideoRow("gone", tmp_path / "gone.mp4")]


def measure(rows, metric, folder, **options):
    return videos.measure_videos(rows, [metric], [metric], folder, **options)


def test_what_is_known_is_not_measured_again_and_failures_are(rows, tmp_path):
    metric, out = Counting(), tmp_path / "out"
    first = measure(rows, metric, out)
    assert metric.calls == ["a", "bad", "bug", "nan", "a/b"]
    assert [row["metrics"]["length"] for row in first] == [1, None, None, None, 3, None]
    errors = [row["error"] for row in first]
    assert errors[:5] == [None, "it is bad", "this is a bug: ValueError: inner matter", None, None]
    assert "gone.mp4 cannot be read" in errors[5]
    assert first[3]["reasons"]["length"] == "it does not apply to this video"
    metric.calls.clear()
    assert measure(rows, metric, out) == first
    assert metric.calls == ["bad", "bug"]
    rows[0].video.write_bytes(b"another film")
    for file in (out / "clips").glob("nan*"):
        file.write_text("{")
    metric.calls.clear()
    measure(rows, metric, out)
    assert metric.calls == ["a", "bad", "bug", "nan"]


def test_another_setting_is_measured_anew_and_the_other_metrics_are_not(rows, tmp_path):
    out, rows = tmp_path / "out", rows[:1]
    other = Counting("other")
    for settings, calls in (({"a": 1}, 1), ({"a": 1}, 0), ({"a": (2, 3)}, 1), ({"a": [2, 3]}, 0)):
        metric = Counting(settings=settings)
        videos.measure_videos(rows, [metric, other], [metric, other], out)
        assert len(metric.calls) == calls
    assert len(other.calls) == 1
    # What was not asked for stays kept.
    measure(rows, Counting(settings={"a": 4}), out)
    measure(rows, other, out)
    assert len(other.calls) == 1


def test_a_place_that_cannot_be_written_is_told_before_any_work(rows, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    metric = Counting()
    with pytest.raises(OutputError, match="cannot be written"):
        measure(rows, metric, tmp_path / "file/out")
    assert not metric.calls
    (tmp_path / "out/videos.json").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot be written"):
        measure(rows, metric, tmp_path / "out")
    assert not metric.calls


def test_a_stopped_run_goes_on_where_it_was(rows, tmp_path):
    metric, out = Counting(), tmp_path / "out"
    assert measure(rows, metric, out, should_stop=lambda: len(metric.calls) == 2) is None
    assert metric.calls == ["a", "bad"]
    measure(rows, metric, out)
    assert metric.calls == ["a", "bad", "bad", "bug", "nan", "a/b"]


def test_weights_that_are_not_here_are_a_reason_and_no_failure(rows, tmp_path):
    absent = Counting(why="its weights are not here: joyflash weights fetch x")
    found = measure(rows[:1], absent, tmp_path / "out")
    assert found[0]["error"] is None
    assert found[0]["reasons"] == {"length": absent.why}
    assert measure(rows[:1], Counting(), tmp_path / "out")[0]["metrics"] == {"length": 1}


def test_tables_say_how_many_clips_are_behind_a_mean(rows, tmp_path):
    metric = Counting()
    summary = summarise(measure(rows, metric, tmp_path / "out"), metric.measures)
    assert summary["systems"]["x"]["metrics"]["length"] == {
        "mean": 2, "spread": pytest.approx(2**0.5), "clips": 2,
    }  # fmt: skip
    assert set(summary["categories"]["x"]) == {"y", "(no category)"}
    page = as_markdown(summary, metric.measures, paper=True)
    assert "| length (s) | 2.00 ± 1.41 (2) | – |" in page
    assert "| JoyAvatar-Flash 1.3B | published | 5.25 | 8.30 | 0.72 | 0.84 | 0.53 | 16.2 |" in page
    assert "| x | measured here | – |" in page
    assert "| clips | 5 (2 failed) | 1 (1 failed) |" in page


def test_folders_and_tables_name_systems_and_twins(tmp_path):
    for name in ("one/real/a.mp4", "one/real/b.mov", "two/a.webm", "c.mp4", ".d.mp4", "t/a.mp4"):
        path = tmp_path / "v" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "face.png").write_bytes(b"")
    found = read_video_rows(
        tmp_path / "v", reference=tmp_path / "face.png", truth=tmp_path / "v" / "t"
    )
    assert [(row.name, row.system, row.category) for row in found] == [
        ("c", "v", ""), ("one/real/a", "one", "real"), ("one/real/b", "one", "real"),
        ("t/a", "t", ""), ("two/a", "two", ""),
    ]  # fmt: skip
    assert [row.truth and row.truth.name for row in found] == [
        None,
        "a.mp4",
        None,
        "a.mp4",
        "a.mp4",
    ]
    assert {row.reference for row in found} == {tmp_path / "face.png"}
    table = tmp_path / "v.csv"
    table.write_text("\ufeffVideo;system;truth\r\nv/c.mp4;x;\r\nv/c.mp4;y;v/t/a.mp4\r\n;;\r\n")
    first, second = read_video_rows(table)
    assert first == VideoRow("v/c", tmp_path / "v/c.mp4", system="x")
    assert (second.name, second.truth) == ("v/c-2", tmp_path / "v/t/a.mp4")
    lines = tmp_path / "v.jsonl"
    lines.write_text('{"video": "v/c.mp4", "category": "song", "system": null}\n')
    assert read_video_rows(lines) == [VideoRow("v/c", tmp_path / "v/c.mp4", category="song")]


def test_the_manifest_of_a_set_names_the_videos_of_its_batches(tmp_path):
    build_set(tmp_path / "set", count=2)
    manifest = tmp_path / "set/manifest.csv"
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    found = read_video_rows(manifest, videos=[tmp_path / "ours", tmp_path / "theirs"])
    assert [row.system for row in found] == ["ours", "ours", "theirs", "theirs"]
    one, other, *_ = found
    assert (one.category, other.category) == ("three-dimensional", "animated")
    assert one.name == "ours/clip-00-three-dimensional-public-speaking"
    assert one.video == tmp_path / "ours/clip-00-three-dimensional-public-speaking.mp4"
    assert all(path.is_file() for path in (one.reference, one.audio, one.truth))
    with pytest.raises(UsageError, match="is the manifest of a batch"):
        read_video_rows(manifest)
    for place in (tmp_path / "gone", manifest):
        with pytest.raises(UsageError, match="is not a folder"):
            read_video_rows(manifest, videos=[place])
    (tmp_path / "v.csv").write_text("video\na.mp4\n")
    with pytest.raises(UsageError, match="is no manifest"):
        read_video_rows(tmp_path / "v.csv", videos=[tmp_path / "ours"])
    with pytest.raises(UsageError, match="is for a manifest"):
        read_video_rows(tmp_path, videos=[tmp_path / "ours"])


def test_a_manifest_may_be_json_lines_and_name_its_outputs(tmp_path):
    table = tmp_path / "m.jsonl"
    table.write_text(
        '{"id": "a", "image": "a.png", "audio": "a.wav", "output": "x/y.mp4", "seed": 3}'
    )
    (row,) = read_video_rows(table, videos=[tmp_path])
    assert row.video == tmp_path / "x/y.mp4"
    assert (row.reference, row.truth, row.category) == (tmp_path / "a.png", None, "")
    (tmp_path / "set.json").write_text("[")
    with pytest.raises(DataError, match=r"set\.json cannot be read"):
        read_video_rows(table, videos=[tmp_path])
    table.write_text('{"id": "a", "image": "a.png", "audio": ""}')
    (tmp_path / "set.json").unlink()
    with pytest.raises(DataError, match="line 1 names no audio"):
        read_video_rows(table, videos=[tmp_path])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no video"),
        ("video,sytem\na.mp4,x\n", "unknown column 'sytem'"),
        ("video,system\na.mp4\n", "line 2 has 1 cells; the header has 2"),
        ("system\nx\n", "names no video"),
        ('{"video": 3}', "video is not a text"),
        ('{"video": "a"}\n[', "line 2 is not JSON"),
    ],
)
def test_a_table_that_is_none_is_refused(text, words, tmp_path):
    path = tmp_path / "v.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_video_rows(path)


def test_wrong_options_are_refused(tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"")
    for more, words in (
        (["--metrics", "lip"], "did you mean lips?"),
        (["--metrics", ","], "no metric is named"),
        (["--json", "--markdown"], "two answers"),
        (["--beside", "table"], "give paper"),
        (["--truth", str(tmp_path / "gone")], "is not a folder"),
        (["--reference", str(tmp_path / "gone")], "does not exist"),
    ):
        assert run(["evaluate", "videos", str(tmp_path), *more]) == 2
        assert words in capsys.readouterr().err
    assert run(["evaluate", "videos", str(tmp_path / "gone")]) == 3
    with pytest.raises(UsageError):
        read_video_rows(tmp_path, truth=tmp_path / "a.mp4")


def test_every_figure_is_explained(capsys):
    assert run(["evaluate", "videos", "--explain"]) == 0
    text = capsys.readouterr().out
    for key in KEYS:
        assert f"  {key}" in text


def test_a_run_that_is_killed_goes_on(folder, tmp_path):
    made, out = tmp_path / "made", tmp_path / "out"
    made.mkdir()
    for quality in ("true", "late", "still"):
        shutil.copy(folder / "made" / f"{quality}.mp4", made)
    command = ["evaluate", "videos", str(made), "--metrics", "lips", "--out", str(out)]
    process = Program(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    give_up = time.monotonic() + 120
    while not list(out.glob("clips/*.json")) and time.monotonic() < give_up:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    known = sorted(out.glob("clips/*.json"))
    assert 0 < len(known) < 3
    times = {path: os.stat(path).st_mtime_ns for path in known}
    done = run_program(command, text=True)
    assert done.returncode == 0
    assert done.stderr.count(": lips") == 3 - len(known)
    assert times == {path: os.stat(path).st_mtime_ns for path in known}
    assert len(list(out.glob("clips/*.json"))) == 3
