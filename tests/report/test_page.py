"""The page: complete, one file, nothing from data becomes markup, nothing is overwritten."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from joyflash_cli.cli.app import run
from joyflash_cli.errors import OutputError
from joyflash_cli.report.write import write_comparison, write_report
from report.clips import HOSTILE, held_out, write_record, write_video


class Reader(HTMLParser):
    """Every element with its attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def values(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def page(batch_folder):
    return Reader((batch_folder / "report.html").read_text(encoding="utf-8"))


def test_it_shows_every_clip_and_what_became_of_it(page):
    badges = [a["class"] for tag, a in page.elements if a.get("class", "").startswith("badge")]
    assert {"badge complete", "badge failed", "badge open", "badge found"} == set(badges)
    for words in (
        "row-a", "E-AUDIO-EMPTY", "talk.wav has no samples", "not measured", "Sound and mouth",
        "Work for each block", "tiny 1 (abababababab), cpu float32",
    ):  # fmt: skip
        assert words in page.text, words
    assert sum(tag == "svg" for tag, _ in page.elements) == 6 + 2
    assert sum(tag == "video" for tag, _ in page.elements) == 2


def test_nothing_of_the_data_becomes_markup(page):
    """R1: a prompt, an id and an error that are markup stay text."""
    assert HOSTILE in page.text
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "two <b>faces</b>" in page.text
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not [name for _, a in page.elements for name in a if name.startswith("on")]


def test_it_is_one_file_that_asks_for_nothing(page):
    for name in ("src", "href", "poster"):
        for address in page.values(name):
            assert re.match(r"data:image/jpeg;base64,|\./|#clip-", address), address
    assert "./wide%20%27quoted%22.mp4" in page.values("src")
    assert not [tag for tag, _ in page.elements if tag in ("link", "iframe", "object", "base")]
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_only_its_own_script_may_run(page, batch_folder):
    text = (batch_folder / "report.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", text, flags=re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for tag, a in page.elements if "http-equiv" in a]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_the_verb_prints_figures_and_replaces_only_reports(batch_folder, tmp_path, capsys):
    assert run(["report", str(batch_folder), "--json", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    figures = json.loads(shown.out)
    assert figures["summary"]["states"] == {"complete": 1, "failed": 1, "open": 1, "found": 1}
    assert figures["summary"]["failures"] == {"E-AUDIO-EMPTY": 1}
    assert figures["clips"][0]["realtime_factor"] == pytest.approx(73 / 25 / 2.0)
    other = tmp_path / "mine.html"
    other.write_text("<p>mine</p>")
    assert run(["report", str(batch_folder), "-o", str(other), "--quiet"]) == 6
    assert "E-OUTPUT-EXISTS" in capsys.readouterr().err
    assert other.read_text() == "<p>mine</p>"
    assert (
        run(["report", str(batch_folder), "-o", str(other), "--overwrite", "--details", "0"]) == 0
    )
    shown = capsys.readouterr()
    assert shown.out == f"{other}\n"
    assert "report: 4/4" in shown.err
    assert "4 of 4 clips are listed here only" in other.read_text(encoding="utf-8")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [([], 2), (["missing"], 3), (["."], 3), ([".", "--compare", "a", "b"], 2)],
)
def test_mistakes_are_told_in_one_line(arguments, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["report", *arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_told_before_any_work(batch_folder, tmp_path):
    with pytest.raises(OutputError, match="not a folder"):
        write_report(batch_folder, tmp_path / "gone" / "report.html")


def test_two_folders_side_by_side(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(0, 200, (1, 48, 64, 3)), 60, axis=0).astype(np.uint8)
    drifting = still.copy()
    drifting[30:] += 40
    for name, frames, wall_s in (("before", drifting, 4.0), ("after", still, 1.0)):
        (tmp_path / name).mkdir()
        path = write_video(tmp_path / name / "x.mp4", frames, profile="wan")
        write_record(path, num_frames=60, wall_s=wall_s, profile="wan")
    write_video(tmp_path / "after" / "new.mp4", still)
    written = write_comparison((tmp_path / "before", tmp_path / "after"))
    assert written["page"] == "compare.html"
    figures = {row["name"]: row for row in written["figures"]}
    assert (figures["colour_change"]["b_better"], figures["colour_change"]["b_worse"]) == (1, 0)
    assert figures["realtime_factor"]["a"] == pytest.approx(2.4 / 4.0)
    assert "identity" not in figures
    page = Reader((tmp_path / "compare.html").read_text(encoding="utf-8"))
    assert page.values("src").count("./before/x.mp4") == 1
    assert "Only in B: new." in page.text
    assert [a["class"] for tag, a in page.elements if "better" in a.get("class", "")]


def test_what_was_judged_stands_on_the_page(tmp_path):
    frames, sound = held_out()
    write_video(tmp_path / "a<b>.mp4", frames[:40], sound)
    (tmp_path / "bad.mp4").write_bytes(b"none")
    command = ["evaluate", "videos", str(tmp_path), "--metrics", "speed,sync", "--quiet"]
    assert run(command) == 7
    found = write_report(tmp_path)
    assert [row["error"] is None for row in found["judged"]["rows"]] == [True, False]
    page = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    for words in ("Judged by", "By system", "2 (1 failed)", "bad.mp4", "SyncNet's weights"):
        assert words in page.text, words
    results = tmp_path / "measures"
    alone = Reader(Path(write_report(results)["page"]).read_text(encoding="utf-8"))
    assert "By system" in alone.text
    (results / "videos.json").write_text("[]")
    write_report(tmp_path)
    assert "videos.json cannot be read" in (tmp_path / "report.html").read_text(encoding="utf-8")
