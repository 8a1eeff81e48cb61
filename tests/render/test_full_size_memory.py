"""The true 1.3B geometry on a CPU: one rolling iteration, and its memory as predicted."""

import json
import subprocess
import sys

import pytest

NEEDED_GB = 6


@pytest.mark.slow
def test_peak_memory_is_within_a_tenth_of_the_prediction(repository):
    """Random bfloat16 weights at 256 x 256; takes minutes of one core and 4 GB."""
    from joyflash_cli.render.device import host_memory

    memory = host_memory()
    if memory is None or memory.free < NEEDED_GB * 1e9:
        pytest.skip(f"needs {NEEDED_GB} GB of free memory")
    script = repository / "benchmarks" / "full_size_step.py"
    done = subprocess.run(
        [sys.executable, str(script), "--json", "--threads", "1"],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["parameters"] == 1_421_187_232
    assert report["layers"] == 30
    assert report["peak_over_predicted"] == pytest.approx(1, abs=0.10)
