"""Which clips a folder holds."""

import json

import numpy as np
import pytest

from joyflash_cli.errors import DataError
from joyflash_cli.report.sources import RESULTS_FILE, find_clips
from report.clips import write_record, write_video

FRAMES = np.zeros((3, 32, 32, 3), np.uint8)


def write_rows(folder, *rows) -> None:
    (folder / RESULTS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_come_first_and_each_video_once(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.mp4", "b.mp4", "sub/c.mp4"):
        write_video(tmp_path / name, FRAMES)
    write_video(tmp_path / ".b.part.mp4", FRAMES)
    (tmp_path / ".joyflash").mkdir()
    write_video(tmp_path / ".joyflash" / "staged.mp4", FRAMES)
    (tmp_path / "notes.txt").write_text("no video")
    write_rows(
        tmp_path,
        {"id": "two", "state": "failed", "error_code": "E-IMAGE", "error": "no face"},
        {"id": "one", "state": "done", "output": "b.mp4"},
        {"id": "two", "state": "failed", "error_code": "E-AUDIO", "error": "no sound"},
        {"id": "three", "state": "open", "output": "d.mp4"},
        {"id": "four", "state": "done", "output": "gone.mp4"},
    )
    clips = find_clips(tmp_path)
    assert [clip.name for clip in clips] == ["two", "one", "three", "four", "a", "sub/c"]
    assert [clip.status for clip in clips] == ["failed", "done", "open", "failed", "found", "found"]
    assert (clips[0].error_code, clips[0].error_text) == ("E-AUDIO", "no sound")
    assert clips[1].video == tmp_path / "b.mp4"
    assert clips[3].error_text == "there is no video"


def test_the_record_is_read_and_a_damaged_one_is_told(tmp_path):
    write_video(tmp_path / "a.mp4", FRAMES)
    write_record(tmp_path / "a.mp4", num_frames=3, status="partial")
    write_video(tmp_path / "b.mp4", FRAMES)
    (tmp_path / "b.mp4.json").write_text("{")
    partial, damaged = find_clips(tmp_path)
    assert (partial.status, partial.record["seed"]) == ("partial", 7)
    assert damaged.status == "found"
    assert "not valid JSON" in damaged.error_text


@pytest.mark.parametrize("output", ["../outside.mp4", "/etc/passwd", "a\0b.mp4", 7, ""])
def test_a_row_cannot_show_a_file_outside_the_folder(tmp_path, output):
    folder = tmp_path / "run"
    folder.mkdir()
    write_video(tmp_path / "outside.mp4", FRAMES)
    write_rows(folder, {"id": "x", "state": "done", "output": output})
    (clip,) = find_clips(folder)
    assert clip.video is None


def test_a_copied_folder_still_has_its_videos(tmp_path):
    write_video(tmp_path / "a.mp4", FRAMES)
    write_rows(tmp_path, {"id": "x", "state": "done", "output": "/elsewhere/run/a.mp4"})
    (clip,) = find_clips(tmp_path)
    assert clip.video == tmp_path / "a.mp4"


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", '{"id": 1}\nnope', "[" * 100_000])
def test_damaged_results_are_one_clear_error(tmp_path, text):
    (tmp_path / RESULTS_FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"results\.jsonl cannot be read"):
        find_clips(tmp_path)


def test_an_empty_or_missing_folder_is_told(tmp_path):
    with pytest.raises(DataError, match="holds no video"):
        find_clips(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        find_clips(tmp_path / "missing")


def test_what_a_failed_row_has_left_is_found(tmp_path):
    """The part that was kept, its record and the log, never a file outside the folder."""
    folder = tmp_path / "out"
    logs = folder / ".joyflash" / "logs"
    logs.mkdir(parents=True)
    (logs / "bugs.log").write_text("Traceback")
    (logs / "host-1-0.log").write_text("Killed")
    (logs / "host-1-1.log").write_text("")
    for name in ("a.partial.mp4", "a.partial.mp4.json"):
        (folder / name).write_text("x")
    (tmp_path / "b.partial.mp4").write_text("not ours")
    rows = [
        {"id": "a", "output": "a.mp4", "error_code": "E-OUTPUT-FULL"},
        {"id": "bug", "output": "bug.mp4", "error_code": "E-INTERNAL"},
        {"id": "died", "output": "died.mp4", "error_code": "E-WORKER-DIED"},
        {"id": "outside", "output": "../b.mp4", "error_code": "E-OUTPUT-FULL"},
    ]
    text = "".join(json.dumps({"state": "failed", **row}) + "\n" for row in rows)
    (folder / "results.jsonl").write_text(text)
    clips = {clip.name: clip for clip in find_clips(folder)}
    found = {
        name: [(what, path.name) for what, path in clips[name].traces]
        for name in ("a", "bug", "died", "outside")
    }
    assert found == {
        "a": [("part that was kept", "a.partial.mp4"), ("its record", "a.partial.mp4.json")],
        "bug": [("log", "bugs.log")],
        "died": [("log", "host-1-0.log")],
        "outside": [],
    }


def test_the_page_links_what_a_failed_row_has_left(tmp_path):
    from joyflash_cli.report.reading import read_clip
    from joyflash_cli.report.views import clip_view

    (tmp_path / "a b.partial.mp4").write_text("x")
    row = {"id": "a", "state": "failed", "output": "a b.mp4", "error_code": "E-DEVICE"}
    (tmp_path / "results.jsonl").write_text(json.dumps(row) + "\n")
    clip = next(clip for clip in find_clips(tmp_path) if clip.name == "a")
    view = clip_view(
        read_clip(clip, None), anchor="clip-1", page=tmp_path / "report.html", detailed=True
    )
    assert [tuple(link.values()) for link in view.links] == [
        ("part that was kept", "./a%20b.partial.mp4")
    ]
