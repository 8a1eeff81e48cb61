"""Claims: one owner at a time, the dead replaced, the living left alone."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from joyflash_cli.batch import claims as claims_module
from joyflash_cli.batch.claims import Claims
from joyflash_cli.errors import OutputError

NAME = "ab12"


def opened(folder: Path, lease_s: float = 60.0) -> Claims:
    found = Claims(folder, lease_s=lease_s)
    found.open()
    return found


def pretend_elsewhere(folder: Path, claims: Claims, *, silent_s: float = 0.0) -> None:
    """Moves a run to another machine whose last sign of life lies some time back."""
    path = folder / "owners" / f"{claims.owner}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "another"}))
    then = time.time() - silent_s
    os.utime(path, (then, then))


def test_one_owner_at_a_time(tmp_path):
    first, second = opened(tmp_path), opened(tmp_path)
    claim = first.take(NAME)
    assert claim is not None
    assert first.holds(claim)
    assert second.take(NAME) is None
    assert not second.is_free(NAME)
    assert second.take("cd34") is not None
    first.release(claim)
    assert second.is_free(NAME)
    taken = second.take(NAME)
    assert taken is not None
    assert not first.holds(claim)
    assert second.holds(taken)


def test_closing_leaves_nothing(tmp_path):
    claims = opened(tmp_path)
    claims.take(NAME)
    claims.take("cd34")
    claims.close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_dead_machines_claim_is_taken_over_after_the_lease(tmp_path):
    dead, other = opened(tmp_path), opened(tmp_path, lease_s=30)
    claim = dead.take(NAME)
    pretend_elsewhere(tmp_path, dead, silent_s=20)
    assert other.take(NAME) is None
    pretend_elsewhere(tmp_path, dead, silent_s=40)
    taken = other.take(NAME)
    assert (claim.generation, taken.generation) == (0, 1)
    assert other.holds(taken)
    assert not dead.holds(claim)
    other.release(taken)
    assert list((tmp_path / "claims").iterdir()) == []


def test_a_heartbeat_keeps_a_claim(tmp_path):
    alive, other = opened(tmp_path), opened(tmp_path, lease_s=30)
    alive.take(NAME)
    pretend_elsewhere(tmp_path, alive, silent_s=40)
    alive.renew()
    assert other.take(NAME) is None


def test_renewing_is_cheap(tmp_path, monkeypatch):
    claims = opened(tmp_path)
    touched = []
    monkeypatch.setattr(os, "utime", lambda *_: touched.append(1))
    for _ in range(1000):
        claims.renew()
    assert len(touched) == 1


def test_a_process_that_is_gone_needs_no_lease(tmp_path):
    script = (
        "import sys; from pathlib import Path; from joyflash_cli.batch.claims import Claims\n"
        "claims = Claims(Path(sys.argv[1])); claims.open(); claims.take(sys.argv[2])\n"
        "import os; os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path), NAME], check=False)
    assert opened(tmp_path).take(NAME) is not None


def test_another_process_with_the_same_number_is_not_the_owner(tmp_path):
    dead, other = opened(tmp_path), opened(tmp_path)
    dead.take(NAME)
    path = tmp_path / "owners" / f"{dead.owner}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": 1}))
    assert other.take(NAME) is not None


def test_a_claim_whose_owner_left_no_trace_ages(tmp_path):
    lost, other = opened(tmp_path), opened(tmp_path, lease_s=30)
    lost.take(NAME)
    (tmp_path / "owners" / f"{lost.owner}.json").unlink()
    assert other.take(NAME) is None
    then = time.time() - 40
    os.utime(tmp_path / "claims" / f"{NAME}.0", (then, then))
    assert other.take(NAME) is not None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../../etc/passwd"])
def test_a_damaged_claim_ages(tmp_path, content):
    claims = opened(tmp_path, lease_s=30)
    path = tmp_path / "claims" / f"{NAME}.0"
    path.write_bytes(content)
    assert claims.take(NAME) is None
    then = time.time() - 40
    os.utime(path, (then, then))
    assert claims.take(NAME) is not None


def test_foreign_files_do_no_harm(tmp_path):
    claims = opened(tmp_path)
    (tmp_path / "claims" / "notes.txt").touch()
    (tmp_path / "claims" / f"{NAME}.x").touch()
    assert claims.take(NAME) is not None


def take_over(folder: str, start: float, results, all_looked) -> None:
    claims = opened(Path(folder), lease_s=30)
    while time.time() < start:
        pass
    results.put(claims.take(NAME) is not None)
    all_looked.wait(60)  # the claim of a process that ends is free again


def test_of_many_only_one_takes_over(tmp_path):
    dead = opened(tmp_path)
    dead.take(NAME)
    pretend_elsewhere(tmp_path, dead, silent_s=40)
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        results, all_looked = context.Queue(), context.Event()
        start = time.time() + 0.3
        many = [
            context.Process(target=take_over, args=(str(tmp_path), start, results, all_looked))
            for _ in range(6)
        ]
        for process in many:
            process.start()
        taken = [results.get() for _ in many]
        all_looked.set()
        for process in many:
            process.join()
        # Losers of a tie may all withdraw; that two succeed is what must never be.
        assert sum(taken) <= 1


def test_a_claim_made_after_an_old_look_is_withdrawn(tmp_path, monkeypatch):
    """Its maker saw an abandoned claim that was released and taken anew in the meantime."""
    first, second = opened(tmp_path), opened(tmp_path)
    claim = first.take(NAME)
    look = Claims._generations
    looks = iter([[4]])
    monkeypatch.setattr(
        Claims, "_generations", lambda self, name: next(looks, None) or look(self, name)
    )
    monkeypatch.setattr(Claims, "_is_abandoned", lambda self, name, number: number == 4)
    assert second.take(NAME) is None
    assert [path.name for path in (tmp_path / "claims").iterdir()] == [f"{NAME}.0"]
    assert first.holds(claim)


def test_the_dead_are_told_from_the_living(tmp_path):
    dead, other = opened(tmp_path), opened(tmp_path, lease_s=30)
    folder = tmp_path / "work" / dead.owner
    folder.mkdir(parents=True)
    assert not other.is_dead(dead.owner, folder)
    assert not other.is_dead(other.owner, folder)
    pretend_elsewhere(tmp_path, dead, silent_s=40)
    assert other.is_dead(dead.owner, folder)


def test_what_the_dead_have_left_is_removed_and_the_living_keep_theirs(tmp_path):
    dead, alive, other = opened(tmp_path), opened(tmp_path), opened(tmp_path, lease_s=30)
    dead.take(NAME)
    kept = alive.take("cd34")
    pretend_elsewhere(tmp_path, dead, silent_s=40)
    other.clean()
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["cd34.0"]
    assert alive.holds(kept)
    owners = {path.stem for path in (tmp_path / "owners").iterdir()}
    assert owners == {alive.owner, other.owner}


def test_a_claim_that_was_taken_over_is_not_released_by_its_old_owner(tmp_path):
    suspended, other = opened(tmp_path), opened(tmp_path, lease_s=30)
    claim = suspended.take(NAME)
    pretend_elsewhere(tmp_path, suspended, silent_s=40)
    taken = other.take(NAME)
    suspended.release(claim)
    suspended.close()
    assert other.holds(taken)


def test_an_unwritable_folder_is_told(tmp_path):
    (tmp_path / "claims").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        Claims(tmp_path).open()


def test_systems_without_proc_go_by_the_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(claims_module, "_machine", lambda: "")
    first, second = opened(tmp_path), opened(tmp_path)
    assert first.take(NAME) is not None
    assert second.take(NAME) is None
