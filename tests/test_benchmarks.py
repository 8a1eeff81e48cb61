"""What the benchmarks count of the product, which no machine's load changes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def test_a_steady_block_waits_for_nothing_and_is_compiled_once():
    """Not in this process: the checks of shapes that tests install stand in a compiler's way."""
    command = [sys.executable, str(REPOSITORY / "benchmarks/references.py"), "--self", "--json"]
    done = subprocess.run(
        [*command, "--size", "small", "--rounds", "1"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["host_syncs_per_block"] == 0
    assert 0.98 < found["flops_ratio"] < 1.02
    assert (found["graphs"], found["graphs_later"]) == (1, 0)
    assert found["kernels_per_block"] > 100
    assert found["peak_gflop_per_s"] > 0


@pytest.mark.slow
def test_a_gpu_s_first_day_can_be_rehearsed(tmp_path):
    command = [sys.executable, str(REPOSITORY / "benchmarks/gpu_first_day.py"), "--rehearse"]
    subprocess.run([*command, "-o", str(tmp_path / "day.json")], check=True, capture_output=True)
    found = json.loads((tmp_path / "day.json").read_text())
    assert found["equal"]["float32 math"]["relative_error"] == 0
    assert all(step["is_right"] for step in found["equal"].values())
    assert found["speed"]["clean_kv last-pass"]["fps_dit"] > 0
    assert found["shared"]["2"]["relative_error"] < 1e-5
    assert not found["left_out"]
