"""The loop: what is done once, what is done again, and what is never touched."""

import io
import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest
from batch_fakes import Bench, count
from inline_engine import InlineEngine

from joyflash_cli.batch.checks import RowRules
from joyflash_cli.batch.claims import Claims
from joyflash_cli.batch.ledger import Ledger
from joyflash_cli.batch.plan import BatchChoices, BatchProblems, check_out_dir, prepare_batch
from joyflash_cli.batch.rows import STATE_FOLDER, Shard
from joyflash_cli.batch.runner import BatchRunner, _claim_name
from joyflash_cli.errors import JoyFlashError, OutputError, UsageError


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def run(bench: Bench, *, lose=(), on_submit=None, **choices):
    return bench.run(InlineEngine(bench.loader(), lose=lose, on_submit=on_submit), **choices)


def test_every_row_is_done_once(bench):
    for name in "abc":
        bench.add(name)
    status = run(bench)
    assert (status.num_rows, status.num_done, status.num_rendered) == (3, 3, 3)
    assert status.video_s == 3.0
    assert count(bench.log, "load") == 1
    assert count(bench.log, "render") == 3
    videos = [f"{name}.mp4{suffix}" for name in "abc" for suffix in ("", ".json")]
    assert bench.files() == sorted([*videos, "results.csv", "results.jsonl"])
    assert bench.left_behind() == []
    assert [line["state"] for line in bench.ledger] == ["started", "publishing", "done"] * 3


def test_the_same_command_again_does_nothing(bench):
    for name in "ab":
        bench.add(name)
    run(bench)
    before = {path.name: path.stat().st_mtime_ns for path in bench.out.glob("*.mp4")}
    engine = InlineEngine(bench.loader())
    status = bench.run(engine)
    assert (status.num_done, status.num_rendered, engine.num_starts) == (2, 0, 0)
    assert {path.name: path.stat().st_mtime_ns for path in bench.out.glob("*.mp4")} == before
    assert bench.states() == {"a": "done", "b": "done"}


def test_a_file_that_was_touched_is_hashed_again_and_found_the_same(bench):
    bench.add("a")
    run(bench)
    os.utime(bench.folder / "a.wav")
    assert run(bench).num_rendered == 0


def test_a_removed_video_is_made_again(bench):
    for name in "ab":
        bench.add(name)
    run(bench)
    (bench.out / "a.mp4").unlink()
    assert run(bench).num_rendered == 1
    assert (bench.out / "a.mp4").is_file()


@pytest.mark.parametrize("change", ["sound", "picture", "seed", "prompt"])
def test_a_changed_row_is_brought_up_to_date_and_no_other(bench, change):
    bench.add("a", seed=1)
    bench.rows.append({**bench.rows[0], "id": "b", "image": "other.png", "audio": "b.wav"})
    (bench.folder / "other.png").write_bytes(b"another picture")
    (bench.folder / "b.wav").write_bytes(b"another sound")
    run(bench)
    old = {name: (bench.out / f"{name}.mp4").read_bytes() for name in "ab"}
    if change in ("sound", "picture"):
        name = {"sound": "a.wav", "picture": "face.png"}[change]
        (bench.folder / name).write_bytes(b"another " + change.encode())
    else:
        bench.rows[0][change] = {"seed": 9, "prompt": "smile"}[change]
    assert bench.plan().num_changed == 1
    assert run(bench).num_rendered == 1
    assert (bench.out / "a.mp4").read_bytes() != old["a"]
    assert (bench.out / "b.mp4").read_bytes() == old["b"]
    assert run(bench).num_rendered == 0


def test_a_changed_row_that_fails_leaves_its_old_video(bench):
    bench.add("a")
    run(bench)
    old = (bench.out / "a.mp4").read_bytes()
    bench.rows[0]["prompt"] = "refuse"
    assert run(bench).num_failed == 1
    assert (bench.out / "a.mp4").read_bytes() == old
    bench.rows[0]["prompt"] = "smile"
    assert run(bench).num_rendered == 1
    assert (bench.out / "a.mp4").read_bytes() != old


def test_a_run_killed_while_it_replaces_a_video_goes_on(bench):
    bench.add("a")
    run(bench)
    old = (bench.out / "a.mp4").read_bytes()
    bench.rows[0]["seed"] = 9
    run(bench)
    path = bench.out / STATE_FOLDER / "ledger.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    (bench.out / "a.mp4").write_bytes(old)
    assert run(bench).num_rendered == 1
    assert (bench.out / "a.mp4").read_bytes() != old


@pytest.mark.parametrize("change", ["weights", "parameters", "video"])
def test_what_another_setting_or_another_hand_made_is_kept_unless_asked(bench, change):
    """A mistyped option must not cost a night's videos."""
    bench.add("a")
    run(bench)
    choices = {}
    if change == "video":
        bench.rows[0]["seed"] = 9
        (bench.out / "a.mp4").write_bytes(b"cut by hand")
    else:
        choices[change] = {"weights": "other", "parameters": {"dtype": "bfloat16"}}[change]
    old = (bench.out / "a.mp4").read_bytes()
    with pytest.raises(BatchProblems, match="was made with other settings, or") as caught:
        run(bench, **choices)
    assert (caught.value.code, caught.value.exit_code) == ("E-OUTPUT-EXISTS", 6)
    assert (bench.out / "a.mp4").read_bytes() == old
    assert run(bench, overwrite=True, **choices).num_rendered == 1
    assert run(bench, **choices).num_rendered == 0


def test_a_foreign_file_in_the_way_is_left_alone(bench):
    bench.add("a")
    bench.add("b")
    bench.out.mkdir()
    (bench.out / "a.mp4").write_text("mine")
    (bench.out / "b.mp4.json").write_text("mine")
    with pytest.raises(BatchProblems) as caught:
        run(bench)
    assert "'a.mp4' exists already and was made by something else" in str(caught.value)
    assert "'b.mp4.json', the record of output 'b.mp4', exists" in str(caught.value)
    assert count(bench.log, "load") == 0
    assert (bench.out / "a.mp4").read_text() == "mine"
    assert bench.files() == ["a.mp4", "b.mp4.json"]
    assert not (bench.out / STATE_FOLDER).exists()


def test_foreign_results_are_left_alone(bench):
    bench.add("a")
    bench.out.mkdir()
    (bench.out / "results.csv").write_text("mine")
    with pytest.raises(BatchProblems, match="no batch wrote it"):
        run(bench)


def test_an_input_is_never_an_output(bench):
    bench.add("a")
    bench.out.mkdir()
    (bench.out / "voice.mp4").write_bytes(b"sound")
    bench.rows[0]["audio"] = str(bench.out / "voice.mp4")
    bench.add("b", output="voice.mp4")
    with pytest.raises(BatchProblems, match="is a file that rows read"):
        run(bench, overwrite=True)


def test_a_failed_row_fails_alone_and_stays_failed(bench):
    bench.add("a")
    bench.add("bad", "refuse")
    bench.add("bug", "bug")
    bench.add("c")
    status = run(bench)
    assert (status.num_done, status.num_failed) == (2, 2)
    assert bench.results["bad"]["error_code"] == "E-AUDIO-EMPTY"
    assert bench.results["bad"]["error"] == "bad.wav has no samples"
    assert bench.results["bug"]["error_code"] == "E-INTERNAL"
    assert "nothing to divide" in (bench.out / STATE_FOLDER / "logs" / "bugs.log").read_text()
    assert "bad.mp4" not in bench.files()
    assert run(bench).num_failed == 2
    assert count(bench.log, "render") == 4
    status = run(bench, retry_failed=True)
    assert (status.num_failed, count(bench.log, "render")) == (2, 6)


def test_a_row_that_failed_for_its_file_is_tried_when_the_file_changes(bench):
    bench.add("bad", "refuse")
    run(bench)
    (bench.folder / "bad.wav").write_bytes(b"a better sound")
    run(bench)
    assert count(bench.log, "render") == 2


def test_what_a_failed_row_kept_lies_beside_its_place_until_it_succeeds(bench):
    bench.add("a", "partial", output="sub/a.mp4")
    run(bench)
    kept = bench.out / "sub" / "a.partial.mp4"
    assert kept.read_bytes() == b"half"
    assert bench.results["a"]["error"].endswith(f"9 frames are kept in {kept}")
    bench.rows[0]["prompt"] = ""
    run(bench)
    assert bench.files() == ["results.csv", "results.jsonl", "sub/a.mp4", "sub/a.mp4.json"]


def test_fail_fast_begins_nothing_more(bench):
    for name in "abc":
        bench.add(name, "refuse" if name == "b" else "")
    status = run(bench, fail_fast=True)
    assert (status.num_done, status.num_failed, status.num_open) == (1, 1, 1)
    assert bench.states() == {"a": "done", "b": "failed", "c": "open"}


def test_a_dead_worker_costs_one_try(bench):
    bench.add("a")
    bench.add("b")
    status = run(bench, lose=["a"])
    assert status.num_done == 2
    assert bench.results["a"]["attempt"] == 2
    assert [line["state"] for line in bench.ledger if line["id"] == "a"] == [
        "started", "lost", "publishing", "done"
    ]  # fmt: skip
    bench.add("c")
    status = run(bench, lose=["c", "c"])
    assert (status.num_done, status.num_failed) == (2, 1)
    assert bench.results["c"]["error"] == "the worker died, 2 times"
    assert bench.left_behind() == []


def test_a_full_disk_stops_the_batch_and_blames_no_row(bench):
    bench.add("a")
    bench.add("b", "full")
    bench.add("c")
    with pytest.raises(JoyFlashError) as caught:
        run(bench)
    assert (caught.value.code, caught.value.exit_code) == ("E-OUTPUT-FULL", 6)
    assert bench.ledger[-1]["state"] == "released"
    assert bench.left_behind() == []
    bench.rows[1]["prompt"] = ""
    assert run(bench).num_rendered == 2


def test_weights_that_cannot_be_loaded_touch_no_row(bench):
    bench.add("a")
    with pytest.raises(JoyFlashError) as caught:
        bench.run(InlineEngine(bench.loader("refuse")))
    assert caught.value.exit_code == 4
    assert not (bench.out / STATE_FOLDER / "ledger.jsonl").exists()
    assert bench.left_behind() == []


def test_a_stop_leaves_the_rest_open(bench):
    for name in "abc":
        bench.add(name)
    answers = iter([False, True])
    with InlineEngine(bench.loader()) as engine:
        runner = BatchRunner(bench.plan(), engine, should_stop=lambda: next(answers))
        status = runner.run()
    assert runner.stopped
    assert (status.num_done, status.num_open) == (1, 2)
    assert bench.left_behind() == []
    assert run(bench).num_rendered == 2


def test_rows_that_another_run_does_are_waited_for(bench):
    """Its worker finishes row a while ours does row b; nobody does a row twice."""
    bench.add("a")
    bench.add("b")
    plan = bench.plan()
    other = Claims(bench.out / STATE_FOLDER)
    other.open()
    claim = other.take(_claim_name("a.mp4"))

    def finish(job):
        if job.row.id == "b":
            row = next(iter(plan.rows))
            record = {**plan.inputs(row), "facts": {"bytes": 4}}
            (bench.out / "a.mp4").write_bytes(b"done")
            ledger = Ledger(bench.out / STATE_FOLDER / "ledger.jsonl")
            ledger.append({"state": "done", "id": "a", "output": "a.mp4", **record})
            other.release(claim)

    with InlineEngine(bench.loader(), on_submit=finish) as engine:
        status = BatchRunner(plan, engine).run()
    assert (status.num_done, status.num_rendered) == (2, 1)
    assert (bench.out / "a.mp4").read_bytes() == b"done"
    other.close()


def test_rows_of_a_dead_run_are_taken_over(bench):
    bench.add("a")
    dead = Claims(bench.out / STATE_FOLDER)
    dead.open()
    dead.take(_claim_name("a.mp4"))
    path = bench.out / STATE_FOLDER / "owners" / f"{dead.owner}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "another"}))
    then = time.time() - 100
    os.utime(path, (then, then))
    work = bench.out / STATE_FOLDER / "work" / dead.owner
    work.mkdir(parents=True)
    assert run(bench, lease_s=30).num_rendered == 1
    assert not work.exists()


def test_a_run_that_was_taken_for_dead_publishes_nothing(bench):
    bench.add("a")

    def lose_the_claim(_job):
        next((bench.out / STATE_FOLDER / "claims").iterdir()).write_text("somebody else")

    answers = iter([False, False, True])
    with InlineEngine(bench.loader(), on_submit=lose_the_claim) as engine:
        status = BatchRunner(bench.plan(), engine, should_stop=lambda: next(answers, True)).run()
    assert (count(bench.log, "render"), status.num_rendered) == (1, 0)
    assert "a.mp4" not in bench.files()
    then = time.time() - 100
    os.utime(next((bench.out / STATE_FOLDER / "claims").iterdir()), (then, then))
    assert run(bench, lease_s=30).num_rendered == 1


@pytest.mark.parametrize("named", [True, False])
def test_a_run_killed_while_publishing_is_made_good(bench, named):
    """The ledger says that the video was about to get its name; it has it, or it has not."""
    bench.add("a")
    run(bench)
    path = bench.out / STATE_FOLDER / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    if not named:
        (bench.out / "a.mp4").unlink()
    status = run(bench)
    assert status.num_rendered == (0 if named else 1)
    assert bench.ledger[-1]["state"] == "done"
    assert bench.ledger[-1]["key"] == json.loads(lines[-1])["key"]


def test_an_older_video_of_the_same_size_is_not_taken_for_the_new_one(bench):
    bench.add("a")
    run(bench)
    path = bench.out / STATE_FOLDER / "ledger.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    (bench.out / "a.mp4").write_bytes(b"x" * 256)
    with pytest.raises(BatchProblems, match="was changed since"):
        run(bench)


def test_shards_do_each_row_once_in_one_folder(bench):
    for number in range(7):
        bench.add(f"r{number}")
    statuses = [run(bench, shard=Shard(index, 3)) for index in (1, 2, 3)]
    assert [status.num_rendered for status in statuses] == [3, 2, 2]
    assert count(bench.log, "render") == 7
    assert set(bench.states().values()) == {"done"}


def test_rows_that_contradict_each_other_are_told_before_anything_is_loaded(bench):
    bench.add("a", output="A.mp4")
    bench.add("b", output="a.mp4")
    bench.add("c", output="d.mp4")
    bench.add("c")
    bench.add("d")
    with pytest.raises(BatchProblems) as caught:
        run(bench)
    told = str(caught.value)
    for part in ("output 'A.mp4', one file with 'a.mp4' on some systems, stands in rows 1, 2",
                 "id 'c' stands in rows 3, 4 (lines 3, 4)",
                 "output 'd.mp4' stands in rows 3, 5 (lines 3, 5)"):  # fmt: skip
        assert part in told
    assert caught.value.count == 3
    assert caught.value.exit_code == 2
    assert "\n" not in told
    assert not bench.out.exists()


def test_a_row_that_cannot_be_begun_fails_alone(bench):
    bench.add("a", image="gone.png", seed=-1)
    bench.add("b")
    bench.add("c", output="../c.mp4")
    bench.add("d", prompt=7)
    plan = bench.plan()
    assert [(row.id, row.error_code) for row in plan.refused] == [
        ("a", "E-MANIFEST-ROW"), ("c", "E-MANIFEST-ROW"), ("", "E-MANIFEST-ROW"),
    ]  # fmt: skip
    status = run(bench)
    assert (status.num_done, status.num_failed, status.num_open) == (1, 3, 0)
    assert bench.results["a"]["error"] == (
        "image 'gone.png' does not exist; seed '-1' is not an integer of 0 <= seed < 2**63"
    )
    assert [row["state"] for row in bench.results.values()] == [
        "failed",
        "done",
        "failed",
        "failed",
    ]
    assert bench.results["c"]["output"] is None
    assert [line["id"] for line in bench.ledger if line["state"] == "failed"] == []
    bench.rows[0] |= {"image": "face.png", "seed": 1}  # put right, it is simply rendered
    assert run(bench).num_rendered == 1


def test_fail_fast_begins_nothing_behind_a_row_that_cannot_be_begun(bench):
    bench.add("a", audio="gone.wav")
    bench.add("b")
    status = run(bench, fail_fast=True)
    assert (status.num_failed, status.num_open) == (1, 1)
    assert count(bench.log, "load") == 0


def test_a_manifest_without_rows(bench):
    choices = BatchChoices(out_dir=bench.out, weights_sha256="w")
    rules = RowRules(folder=bench.folder, profile="fake", hears_text=True)
    header = io.BytesIO(b"id,image,audio\r\n\r\n")
    with pytest.raises(UsageError, match="has no rows") as caught:
        prepare_batch(header, "m.csv", choices=choices, rules=rules)
    assert caught.value.exit_code == 2
    assert not bench.out.exists()


def test_an_output_folder_that_cannot_be(bench):
    bench.add("a")
    bench.out.write_text("a file")
    with pytest.raises(OutputError, match="out is not a folder"):
        run(bench)
    with pytest.raises(OutputError, match="out is not a folder"):
        check_out_dir(bench.out / "below")
    with pytest.raises(OutputError, match="is not a folder"):
        check_out_dir(Path("/dev/null/x"))


def test_bytes_depend_on_the_row_alone(bench):
    for name in "abc":
        bench.add(name, seed=3)
    run(bench)
    together = {name: (bench.out / f"{name}.mp4").read_bytes() for name in "abc"}
    assert len(set(together.values())) == 3
    alone = Bench(bench.folder / "alone")
    for name in "cba":
        alone.rows = []
        (alone.folder / "face.png").write_bytes(b"a picture")
        alone.add(name, seed=3)
        run(alone)
        assert (alone.out / f"{name}.mp4").read_bytes() == together[name]


def test_a_long_table_fits_into_memory(tmp_path):
    """A hundred thousand rows are to take some 100 MB, whatever else is remembered of them."""
    num_rows = 5_000
    (tmp_path / "f.png").write_bytes(b"x")
    lines = "".join(f"r{number},f.png,f.png,{'a prompt ' * 9}\n" for number in range(num_rows))
    table = io.BytesIO(f"id,image,audio,prompt\n{lines}".encode())
    choices = BatchChoices(out_dir=tmp_path / "out", weights_sha256="w")
    rules = RowRules(folder=tmp_path, profile="fake", hears_text=True)
    tracemalloc.start()
    plan = prepare_batch(table, "m.csv", choices=choices, rules=rules)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert plan.rows.count("open") == num_rows
    assert held < 1_000 * num_rows
