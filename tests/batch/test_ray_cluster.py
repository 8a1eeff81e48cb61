"""A Ray cluster of two nodes on this machine, one of which is killed in the middle of its work."""

import time
from collections import Counter
from pathlib import Path

import pytest
from batch_fakes import Bench, count
from conftest import write_tone
from ray_fixtures import ray_address, ray_environment  # noqa: F401 - fixtures

from joyflash_cli.batch.runner import BatchRunner, BatchStatus
from joyflash_cli.cli.app import run

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(request):
    """Two nodes of one core each."""
    request.getfixturevalue("ray_environment")
    import ray
    from ray.cluster_utils import Cluster

    for attempts_left in (2, 1, 0):
        found = Cluster()
        try:
            found.add_node(num_cpus=1, include_dashboard=False)
            found.add_node(num_cpus=1)
            found.wait_for_nodes()
            break
        except Exception:  # a busy machine: Ray allows its processes 30 s
            found.shutdown()
            if not attempts_left:
                raise
    yield found
    ray.shutdown()
    found.shutdown()


def nodes_used(bench: Bench) -> set[str]:
    return {path.name.split("-")[1] for path in bench.log.glob("node-*")}


def test_a_node_killed_mid_job_loses_nothing_and_repeats_nothing(tmp_path, cluster):
    from joyflash_cli.batch.engines.ray import ray_engine

    bench = Bench(tmp_path)
    for number in range(16):
        bench.add(f"r{number}", "wait 1")
    killed = []

    def kill_a_node(status: BatchStatus) -> None:
        # Both nodes work, and the second is in the middle of a row.
        if not killed and len(nodes_used(bench)) == 2 and status.num_running == 2:
            time.sleep(0.3)
            worker = next(node for node in cluster.list_all_nodes() if not node.head)
            cluster.remove_node(worker, allow_graceful=False)
            killed.append(status.num_done)

    with ray_engine(bench.loader(), address=cluster.address, device="cpu") as engine:
        assert engine.max_workers == 2
        status = BatchRunner(bench.plan(), engine, report=kill_a_node).run()
    assert killed
    assert killed[0] < 15
    assert (status.num_done, status.num_failed, status.num_rendered) == (16, 0, 16)
    states = Counter((line["output"], line["state"]) for line in bench.ledger)
    assert all(states[f"r{number}.mp4", "done"] == 1 for number in range(16))
    lost = [line for line in bench.ledger if line["state"] == "lost"]
    assert len(lost) == 1
    assert len([name for name in bench.files() if name.endswith(".mp4")]) == 16
    assert count(bench.log, "render") == 17
    assert bench.left_behind() == []


@pytest.mark.usefixtures("ray_address")
def test_real_renders_in_ray_have_the_bytes_of_local_ones(tmp_path, toy_checkpoint, toy_picture):
    write_tone(tmp_path / "one.wav", 0.4)
    write_tone(tmp_path / "two.wav", 0.5)
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        f"id,image,audio,seed\na,{toy_picture},one.wav,3\nb,{toy_picture},two.wav,4\n"
    )
    common = ["--checkpoint", str(toy_checkpoint), "--device", "cpu", "--dtype", "fp32", "--quiet"]
    for engine in ("local", "ray"):
        out = ["--out-dir", str(tmp_path / engine), "--engine", engine, "--workers", "2"]
        assert run(["batch", str(manifest), *out, *common]) == 0
    for name in ("a.mp4", "b.mp4"):
        paths = [Path(tmp_path / engine / name) for engine in ("local", "ray")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
