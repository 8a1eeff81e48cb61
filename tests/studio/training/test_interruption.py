"""Runs that are really stopped and really killed, and go on as if nothing had happened."""

import json
import signal
import subprocess
import time

import pytest
import torch
from programs import Program
from safetensors.torch import load_file
from toy_distillation import CLEAN_CONFIG, toy_model
from toy_run import save_start, toy_run

STEPS = 16
PATIENCE_S = 900
"""Only against a run that hangs; a run takes seconds."""


def start(run_file, *options):
    command = ["train", "dmd", "--config", str(run_file), *options]
    return Program(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def make_run(folder):
    folder.mkdir()
    run_file = toy_run(folder, save_every_steps=3, steps=STEPS, log_every=2)
    save_start(folder)
    return run_file


def wait_for_state(folder, process):
    pointer, deadline = folder / "work" / "dmd" / "state.json", time.monotonic() + PATIENCE_S
    while not pointer.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def results(folder):
    lines = (folder / "work" / "dmd" / "metrics.jsonl").read_text().splitlines()
    figures = [json.loads(line) for line in lines]
    for line in figures:
        line.pop("elapsed_s")
    return load_file(folder / "work" / "dmd" / "generator.safetensors"), figures


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted run gives."""
    folder = tmp_path_factory.mktemp("interruption") / "whole"
    process = start(make_run(folder))
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, told
    return results(folder)


def assert_same(ours, theirs):
    assert ours[1] == theirs[1]
    assert [line["step"] for line in theirs[1]] == list(range(2, STEPS + 1, 2))
    assert all(torch.equal(ours[0][name], value) for name, value in theirs[0].items())
    start_weights = toy_model(CLEAN_CONFIG).state_dict()
    assert any((ours[0][name] != value).any() for name, value in start_weights.items())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)]
)
def test_an_interrupted_run_goes_on_bit_for_bit(number, code, whole, tmp_path):
    folder = tmp_path / "stopped"
    run_file = make_run(folder)
    process = start(run_file)
    wait_for_state(folder, process)
    process.send_signal(number)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, told
    saved = json.loads((folder / "work" / "dmd" / "state.json").read_text())["folder"]
    step = int(saved.removeprefix("state-"))
    assert 3 <= step < STEPS
    assert not (folder / "work" / "dmd" / "generator.safetensors").exists()
    if number == signal.SIGTERM:
        assert f"stopped at step {step}" in told
        assert "--resume" in told
    process = start(run_file, "--resume")
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, told
    assert_same(results(folder), whole)
