"""Drivers that are killed, drivers side by side: nothing lost, nothing done twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_fakes import Bench, count

HERE = Path(__file__).parent
PATIENCE_S = 60.0


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def drive(bench: Bench, workers: int = 1, lease_s: float = 60.0) -> subprocess.Popen:
    """Starts a driver whose manifest has been written."""
    paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.Popen(
        [sys.executable, str(HERE / "drive.py"), str(bench.folder), str(workers), str(lease_s)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def finished(driver: subprocess.Popen) -> tuple[int, int, int]:
    """Rows done, failed, and rendered by this driver."""
    told, errors = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, errors
    done, failed, rendered = json.loads(told)
    return done, failed, rendered


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def worker_pids(bench: Bench) -> list[int]:
    return [int(path.name.split("-")[1]) for path in bench.log.glob("load-*")]


def test_workers_end_with_their_driver_and_the_next_run_goes_on(bench):
    bench.add("a")
    bench.add("long", "wait 600")
    bench.manifest()
    driver = drive(bench)
    wait_until(lambda: count(bench.log, "render-long") > 0)
    workers = worker_pids(bench)
    assert workers
    assert all(is_running(pid) for pid in workers)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    wait_until(lambda: not any(is_running(pid) for pid in workers))
    assert bench.left_behind() != []
    bench.rows[1]["prompt"] = ""
    bench.manifest()
    assert finished(drive(bench)) == (2, 0, 1)
    assert bench.left_behind() == []
    assert count(bench.log, "finish-a") == 1


def test_two_drivers_in_one_folder_do_each_row_once(bench):
    for number in range(10):
        bench.add(f"r{number}", "wait 0.2")
    bench.manifest()
    drivers = [drive(bench), drive(bench)]
    results = [finished(driver) for driver in drivers]
    assert [result[:2] for result in results] == [(10, 0), (10, 0)]
    assert sum(rendered for _, _, rendered in results) == 10
    assert count(bench.log, "render") == 10
    assert set(bench.states().values()) == {"done"}
    assert bench.left_behind() == []


def kill_at_random_times(bench: Bench, rounds: int, seed: int) -> None:
    """Starts a driver again and again, kills it each time, and lets the last one finish."""
    generator = random.Random(seed)
    for number in range(rounds):
        bench.add(f"r{number}", "wait 0.05")
    bench.manifest()
    for _ in range(rounds):
        driver = drive(bench)
        known = count(bench.log, "finish")
        wait_until(lambda known=known, driver=driver: count(bench.log, "finish") > known
                   or driver.poll() is not None)  # fmt: skip
        time.sleep(generator.uniform(0, 0.15))
        driver.kill()
        driver.communicate()
    done, failed, _ = finished(drive(bench))
    assert (done, failed) == (rounds, 0)
    assert bench.left_behind() == []
    videos = [name for name in bench.files() if name.endswith(".mp4")]
    assert len(videos) == rounds
    assert set(bench.states().values()) == {"done"}
    settled = [line["output"] for line in bench.ledger if line["state"] == "done"]
    assert sorted(settled) == sorted(videos)


def test_killed_at_random_times(bench):
    kill_at_random_times(bench, rounds=3, seed=1)


@pytest.mark.slow
def test_killed_at_fifty_random_times(bench):
    kill_at_random_times(bench, rounds=50, seed=2)


def test_a_stopped_driver_that_comes_back_publishes_nothing_twice(bench):
    """Suspended for longer than its lease; another run has taken its row over meanwhile."""
    bench.add("a", "wait 1")
    bench.manifest()
    sleeper = drive(bench, lease_s=1.0)
    wait_until(lambda: count(bench.log, "render") > 0)
    sleeper.send_signal(signal.SIGSTOP)
    try:
        assert finished(drive(bench, lease_s=1.0)) == (1, 0, 1)
    finally:
        sleeper.send_signal(signal.SIGCONT)
    assert finished(sleeper) == (1, 0, 0)
    assert [line["state"] for line in bench.ledger].count("done") == 1
