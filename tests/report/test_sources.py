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
