"""Reading everything again: downloads, converted and embedded checkpoints."""

import shutil

import pytest

from joyflash_cli.weights.download import fetch_files
from joyflash_cli.weights.fetch_plan import plan_fetch
from joyflash_cli.weights.hub import open_hub
from joyflash_cli.weights.manifest import find_profile, select_files
from joyflash_cli.weights.publishing import published_directory
from joyflash_cli.weights.sources import local_sources
from joyflash_cli.weights.verify import verify_profile


def verify(name="small"):
    return {
        (finding.role, finding.name.rpartition("/")[2]): finding
        for finding in verify_profile(name, find_profile(name))
    }


def fetch(*roles):
    profile = find_profile("small")
    files = select_files(profile, roles=roles)
    return fetch_files(plan_fetch("small", profile, files, hub=open_hub()))


def test_missing_files_are_failures_and_optional_ones_are_not(hub_case):
    fetch("codec", "transformer")
    found = verify()
    assert found["codec", "vae.pth"].state == "ok"
    assert found["transformer", "model.safetensors"].state == "ok"
    assert found["text_encoder", "encoder.safetensors"].state == "missing"
    assert found["fast_codec", "tae.safetensors"].state == "absent"
    assert hub_case.hub.seen[-1].method == "GET"


def test_a_file_that_nobody_recorded_is_not_called_right(hub_case):
    """Another program downloaded it, and no hash of it is known."""
    fetch("transformer")
    hub_case.lock.unlink()
    assert local_sources("small", ["transformer"])["transformer"]
    assert verify()["transformer", "model.safetensors"].state == "unknown"


def test_damage_is_found_and_forgotten_by_the_lock(hub_case):
    (file,) = fetch("codec").files
    content = file.local.read_bytes()
    file.local.resolve().write_bytes(content[:-1] + b"?")
    finding = verify()["codec", "vae.pth"]
    assert (finding.state, finding.failed) == ("damaged", True)
    assert "SHA-256" in finding.detail
    # The next fetch puts the right one in its place.
    assert fetch("codec").files[0].local.read_bytes() == content


def test_a_converted_checkpoint(hub_case, toy_checkpoint):
    target = hub_case.converted / "small"
    with published_directory(target) as staging:
        shutil.copytree(toy_checkpoint, staging, dirs_exist_ok=True)
    found = verify()
    assert {finding.state for (role, _), finding in found.items() if role == "checkpoint"} == {"ok"}
    # Downloads are not needed any more.
    assert found["codec", "vae.pth"].state == "absent"
    with (target / "codec.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    (target / "checkpoint.json").unlink()
    found = verify()
    assert found["checkpoint", "codec.safetensors"].state == "damaged"
    assert found["checkpoint", "checkpoint.json"].state == "missing"
    assert found["checkpoint", "transformer.safetensors"].state == "ok"


def test_the_embedded_checkpoint():
    found = verify_profile("tiny", find_profile("tiny"))
    assert {finding.role for finding in found} == {"checkpoint"}
    assert {finding.state for finding in found} == {"ok"}


@pytest.mark.parametrize("name", ["none"])
def test_profiles_without_files(hub_case, name):
    assert verify_profile(name, find_profile(name)) == ()
