"""A Ray of this machine for the tests that want one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_environment() -> Iterator[None]:
    """What Ray's own processes inherit: where the fakes are, and no figures sent anywhere."""
    pytest.importorskip("ray")
    changed = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]]),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="module")
def ray_address(ray_environment) -> Iterator[str]:
    """A Ray of this machine with two cores, connected to."""
    import ray

    try:
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
            logging_level="ERROR",
        )  # fmt: skip
    except Exception as error:  # Ray raises bare exceptions
        ray.shutdown()
        # It allows its own processes 30 seconds to come up, which starved machines exceed.
        if "timed out during startup" not in str(error):
            raise
        pytest.skip("Ray's processes did not come up in the time Ray allows them")
    yield "local"
    ray.shutdown()
