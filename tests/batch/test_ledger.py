"""The ledger: whole lines whatever happens, read once, damage skipped."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from joyflash_cli.batch.ledger import Ledger
from joyflash_cli.errors import OutputError


def done(number: int, **more) -> dict:
    return {"state": "done", "output": f"{number}.mp4", "id": str(number), **more}


def test_lines_are_read_once_in_order(tmp_path):
    path = tmp_path / "ledger.jsonl"
    reader = Ledger(path)
    assert (reader.read_new(), reader.last("1.mp4")) == (0, None)
    writer = Ledger(path)
    writer.append(done(1), owner="me", host="here")
    writer.append({"state": "started", "output": "2.mp4"})
    assert reader.read_new() == 1
    found = reader.last("1.mp4")
    assert (found["owner"], found["host"], found["v"]) == ("me", "here", 1)
    assert (reader.last_state("1.mp4"), reader.last_position("1.mp4")) == ("done", 0)
    assert (reader.last("2.mp4"), reader.last_state("2.mp4")) == (None, "")
    middle = reader.position
    writer.append(done(3))
    writer.append(done(1) | {"state": "failed"})
    assert reader.read_new() == 2
    assert (reader.last("3.mp4")["id"], reader.last_position("3.mp4")) == ("3", middle)
    assert reader.last("1.mp4")["state"] == reader.last_state("1.mp4") == "failed"
    assert reader.position == path.stat().st_size


@pytest.mark.parametrize(
    "rubbish", [b'{"v": 1, "state": "do', b"\0" * 100, b"[]", b'{"v": 2}', b"{" * 100_000, b"\xff"]
)
def test_a_damaged_line_costs_only_itself(tmp_path, rubbish):
    path = tmp_path / "ledger.jsonl"
    writer = Ledger(path)
    writer.append(done(1))
    with path.open("ab") as file:
        file.write(rubbish)
    assert Ledger(path).read_new() == 1
    writer.append(done(2))
    reader = Ledger(path)
    assert reader.read_new() == 2
    assert [reader.last(f"{n}.mp4")["id"] for n in (1, 2)] == ["1", "2"]


def test_a_line_still_being_written_is_left_for_later(tmp_path):
    path = tmp_path / "ledger.jsonl"
    line = json.dumps({"v": 1, **done(1)}).encode()
    path.write_bytes(line[:20])
    reader = Ledger(path)
    assert reader.read_new() == 0
    path.write_bytes(line + b"\n")
    assert reader.read_new() == 1


def write_many(path: str, writer: int, num_lines: int) -> None:
    ledger = Ledger(Path(path))
    for number in range(num_lines):
        ledger.append(done(number, filler="x" * (number * 37 % 3000)), owner=str(writer))


def test_many_writers_never_mix_their_lines(tmp_path):
    path = tmp_path / "ledger.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(str(path), n, 40)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = [(line["owner"], line["id"]) for line in lines]
    assert Ledger(path).read_new() == len(lines)
    assert sorted(found) == sorted((str(n), str(k)) for n in range(4) for k in range(40))


def test_every_line_reaches_the_disk(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    Ledger(tmp_path / "ledger.jsonl").append(done(1))
    assert len(flushed) == 1


def test_file_systems_without_locks_work(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    Ledger(tmp_path / "ledger.jsonl").append(done(1))
    assert Ledger(tmp_path / "ledger.jsonl").read_new() == 1


def test_a_full_disk_is_told_and_the_next_line_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    write = os.write

    def little_room(descriptor: int, data: bytes) -> int:
        if os.fstat(descriptor).st_size:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:10])

    monkeypatch.setattr(os, "write", little_room)
    with pytest.raises(OutputError, match="the disk is full") as caught:
        ledger.append(done(1))
    assert (caught.value.code, caught.value.exit_code) == ("E-OUTPUT-FULL", 6)
    assert path.read_bytes() == b""
    monkeypatch.setattr(os, "write", write)
    ledger.append(done(2))
    reader = Ledger(path)
    assert (reader.read_new(), reader.last("2.mp4")["id"]) == (1, "2")


def test_a_folder_that_vanished(tmp_path):
    with pytest.raises(OutputError) as caught:
        Ledger(tmp_path / "gone" / "ledger.jsonl").append(done(1))
    assert caught.value.code == "E-OUTPUT-WRITE"


@pytest.mark.parametrize(
    "wrong",
    [{"facts": "o"}, {"facts": {"sha256": 3}}, {"replaces": "s"}, {"key": 7}, {"settings": []},
     {"error": {}}, {"output": None}],
)  # fmt: skip
def test_a_line_of_another_kind_is_damage(tmp_path, wrong):
    """Whatever wrote it: later runs go by what these fields say."""
    path = tmp_path / "ledger.jsonl"
    line = {"v": 1, "state": "done", "output": "1.mp4", "id": "1", "key": "k", "facts": None}
    path.write_text(json.dumps(line | wrong) + "\n" + json.dumps(line) + "\n")
    ledger = Ledger(path)
    assert ledger.read_new() == 1
    assert ledger.last("1.mp4")["id"] == "1"
