"""One contract for every engine: processes of this machine, and actors of a Ray cluster.

The first Ray test runs with the others and is skipped where Ray is not installed; the rest of its
contract takes longer (actors start slowly) and is marked ``slow``.
"""

import time

import pytest
from batch_fakes import Bench, count
from ray_fixtures import ray_address, ray_environment  # noqa: F401 - fixtures

from joyflash_cli.batch.engines.local import local_engine
from joyflash_cli.errors import JoyFlashError

ENGINES = ["local", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def make_engine(kind: str, request, loader, num_workers: int = 2):
    if kind == "local":
        return local_engine(loader, devices=["cpu"] * num_workers)
    request.getfixturevalue("ray_address")
    from joyflash_cli.batch.engines.ray import ray_engine

    return ray_engine(loader, device="cpu", num_workers=num_workers)


def check_a_batch_with_every_kind_of_row(kind, bench, request):
    for name in ("a", "b", "c"):
        bench.add(name)
    bench.add("bad", "refuse")
    bench.add("bug", "bug")
    bench.add("unlucky", "die-once")
    bench.add("deadly", "die")
    status = bench.run(make_engine(kind, request, bench.loader()))
    assert (status.num_done, status.num_failed, status.num_open) == (4, 3, 0)
    assert bench.states() == {
        "a": "done", "b": "done", "c": "done", "bad": "failed", "bug": "failed",
        "unlucky": "done", "deadly": "failed",
    }  # fmt: skip
    found = bench.results
    assert (found["bad"]["error_code"], found["bug"]["error_code"]) == (
        "E-AUDIO-EMPTY", "E-INTERNAL"
    )  # fmt: skip
    assert (found["deadly"]["error_code"], found["deadly"]["attempt"]) == ("E-WORKER-DIED", 2)
    assert found["unlucky"]["attempt"] == 2
    assert count(bench.log, "finish") == 4
    # At least one worker at the start, and a new one for each of the three deaths that was not
    # the end of the batch; at most two at the start, and one for each death.
    assert 3 <= count(bench.log, "load") <= 5
    assert bench.left_behind() == []


def test_a_batch_in_processes(bench, request):
    check_a_batch_with_every_kind_of_row("local", bench, request)


def test_a_batch_in_ray(bench, request):
    check_a_batch_with_every_kind_of_row("ray", bench, request)


@pytest.mark.parametrize("kind", ENGINES)
def test_weights_are_loaded_once_in_each_worker(kind, bench, request):
    for number in range(8):
        bench.add(f"r{number}", "wait 0.2")
    bench.run(make_engine(kind, request, bench.loader()))
    assert count(bench.log, "load") <= 2
    assert count(bench.log, "render") == 8


def test_a_worker_with_a_gpu_begins_anew_after_an_error_of_the_device_or_a_bug(bench):
    """A CUDA context that has failed once answers every later call with the same error."""
    for row_id, prompt in (("bug", "bug"), ("bad", "refuse"), ("good", "")):
        bench.add(row_id, prompt)
    bench.run(local_engine(bench.loader(), devices=["cuda:0"]))
    assert bench.states() == {"bug": "failed", "bad": "failed", "good": "done"}
    assert count(bench.log, "load") == 2


@pytest.mark.parametrize("kind", ENGINES)
def test_no_more_workers_than_rows(kind, bench, request):
    bench.add("a")
    bench.run(make_engine(kind, request, bench.loader()))
    assert count(bench.log, "load") == 1


@pytest.mark.parametrize("kind", ENGINES)
def test_weights_that_cannot_be_loaded_end_the_batch(kind, bench, request):
    bench.add("a")
    with pytest.raises(JoyFlashError) as caught:
        bench.run(make_engine(kind, request, bench.loader("refuse")))
    assert (caught.value.code, caught.value.exit_code) == ("E-CHECKPOINT", 4)
    assert str(caught.value) == "the weights are damaged (hint: fetch them)"
    assert not (bench.out / ".joyflash" / "ledger.jsonl").exists()


@pytest.mark.parametrize("kind", ENGINES)
def test_workers_that_die_while_loading_end_the_batch(kind, bench, request):
    bench.add("a")
    bench.add("b")
    with pytest.raises(JoyFlashError) as caught:
        bench.run(make_engine(kind, request, bench.loader("die")))
    assert (caught.value.code, caught.value.exit_code) == ("E-DEVICE-WORKER", 5)
    assert not (bench.out / ".joyflash" / "ledger.jsonl").exists()


@pytest.mark.parametrize("kind", ENGINES)
def test_stopping_kills_what_is_being_done_and_starting_again_works(kind, bench, request):
    bench.add("slow", "wait 60")
    with make_engine(kind, request, bench.loader(), num_workers=1) as engine:
        from joyflash_cli.batch.runner import BatchRunner

        runner = BatchRunner(
            bench.plan(), engine, should_stop=lambda: count(bench.log, "render") > 0
        )
        started = time.monotonic()
        status = runner.run()
        assert time.monotonic() - started < 55
        assert (runner.stopped, status.num_open) == (True, 1)
        assert engine.num_workers == 0
        bench.rows[0]["prompt"] = ""
        assert BatchRunner(bench.plan(), engine).run().num_done == 1


def test_ray_that_is_not_installed_is_told(bench, monkeypatch):
    import sys

    from joyflash_cli.batch.engines.ray import ray_engine

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(JoyFlashError, match=r"pip install 'joyflash\[ray\]'") as caught:
        ray_engine(bench.loader())
    assert caught.value.exit_code == 2
