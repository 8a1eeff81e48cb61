"""SyncNet's weights: brought from the published pickle, and nothing in it is executed."""

import dataclasses
import hashlib
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from joyflash_cli.errors import CheckpointError
from joyflash_cli.measures.network_weights import bring_weights, load_network, weights_path
from joyflash_cli.measures.s3fd import S3FD
from joyflash_cli.measures.syncnet import SyncNet
from joyflash_cli.weights.manifest import find_profile
from tests.measures.syncnet_reference import random_state


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def state():
    return OrderedDict(random_state(SyncNet(), 1))


def unknown():
    """The manifest's entry, as if size and hash were not known."""
    return dataclasses.replace(published(), bytes=0, sha256="")


def published():
    return next(file for file in find_profile("measures").files if file.role == "syncnet")


def s3fd_entry():
    return next(file for file in find_profile("measures").files if file.role == "s3fd")


def saved(path, payload, *, old=True):
    torch.save(payload, path, _use_new_zipfile_serialization=not old)
    return path


@pytest.mark.parametrize("old", [True, False])
def test_the_weights_are_kept_as_they_are(tmp_path, state, old):
    trained = OrderedDict((k, v) for k, v in state.items() if "num_batches" not in k)
    path = bring_weights(saved(tmp_path / "syncnet_v2.model", trained, old=old), unknown())
    assert path == weights_path("syncnet")
    network = load_network("syncnet")
    assert not network.training
    for name, value in trained.items():
        assert torch.equal(network.state_dict()[name], value), name


def test_the_published_size_is_that_of_this_network_s_numbers(tmp_path, state):
    """The file as published is of the old kind; only names of records differ in length."""
    trained = OrderedDict((k, v) for k, v in state.items() if "num_batches" not in k)
    size = saved(tmp_path / "file", trained).stat().st_size
    assert abs(size - published().bytes) < 1000


def test_another_file_than_the_published_one_is_refused(tmp_path, state):
    source = saved(tmp_path / "file", state)
    with pytest.raises(CheckpointError) as caught:
        bring_weights(source, published())
    assert caught.value.code == "E-WEIGHTS-SIZE"
    sized = dataclasses.replace(published(), bytes=source.stat().st_size)
    with pytest.raises(CheckpointError) as caught:
        bring_weights(source, sized)
    assert caught.value.code == "E-WEIGHTS-HASH"
    assert not weights_path("syncnet").exists()


def test_a_file_of_unknown_hash_decides_what_later_ones_must_be(tmp_path, state):
    bring_weights(saved(tmp_path / "first", state), unknown())
    bring_weights(tmp_path / "first", unknown())
    other = OrderedDict(state, **{"netfcaud.0.bias": state["netfcaud.0.bias"] + 1})
    with pytest.raises(CheckpointError) as caught:
        bring_weights(saved(tmp_path / "second", other), unknown())
    assert caught.value.code == "E-WEIGHTS-HASH"


class Harm:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("old", [True, False])
def test_nothing_in_it_is_executed(tmp_path, state, old):
    mark = tmp_path / "executed"
    source = saved(tmp_path / "file", OrderedDict(state, harm=Harm(mark)), old=old)
    with pytest.raises(CheckpointError) as caught:
        bring_weights(source, unknown())
    assert caught.value.code == "E-CHECKPOINT-PICKLE"
    assert not mark.exists()


def test_a_bare_pickle_is_not_executed_either(tmp_path):
    mark = tmp_path / "executed"
    source = tmp_path / "file"
    source.write_bytes(pickle.dumps(Harm(mark), 2))
    with pytest.raises(CheckpointError):
        bring_weights(source, unknown())
    assert not mark.exists()


def test_an_old_file_that_claims_more_than_it_holds_is_refused(tmp_path):
    source = saved(tmp_path / "file", OrderedDict(bias=torch.zeros(300)))
    honest = source.read_bytes()
    claim = (300).to_bytes(2, "little")
    place = honest.index(b"M" + claim)
    huge = b"J" + (1 << 30).to_bytes(4, "little")
    source.write_bytes(honest[:place] + huge + honest[place + 3 :])
    with pytest.raises(CheckpointError, match="claims 1073741824 numbers"):
        bring_weights(source, unknown())


def test_every_cut_of_an_old_file_is_told(tmp_path):
    source = saved(tmp_path / "whole", OrderedDict(bias=torch.zeros(30)))
    whole = source.read_bytes()
    cut = tmp_path / "cut"
    for length in range(0, len(whole), 37):
        cut.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            bring_weights(cut, unknown())


def test_s3fd_is_brought_beside_syncnet(tmp_path, state):
    syncnet = bring_weights(saved(tmp_path / "syncnet", state), unknown())
    trained = S3FD().state_dict()
    source = saved(tmp_path / "sfd_face.pth", OrderedDict(trained))
    # Of the published file; only names of records differ in length.
    assert abs(source.stat().st_size - s3fd_entry().bytes) < 5000
    with pytest.raises(CheckpointError) as caught:
        bring_weights(source, s3fd_entry())
    assert caught.value.code in ("E-WEIGHTS-SIZE", "E-WEIGHTS-HASH")
    path = bring_weights(source, dataclasses.replace(s3fd_entry(), bytes=0, sha256=""))
    assert syncnet.is_file()
    assert path == weights_path("s3fd")
    for name, value in load_network("s3fd").state_dict().items():
        assert torch.equal(trained[name], value), name
    assert load_network("syncnet").training is False


def test_syncnet_is_not_s3fd(tmp_path, state):
    entry = dataclasses.replace(s3fd_entry(), bytes=0, sha256="")
    with pytest.raises(CheckpointError, match="is not S3FD"):
        bring_weights(saved(tmp_path / "wrong", state), entry)


@pytest.mark.parametrize("changed", [{"netfcaud.0.bias": torch.zeros(3)}, {"more": torch.zeros(3)}])
def test_another_network_is_refused(tmp_path, state, changed):
    source = saved(tmp_path / "file", OrderedDict(state, **changed))
    with pytest.raises(CheckpointError, match="is not SyncNet") as caught:
        bring_weights(source, unknown())
    assert caught.value.code == "E-CHECKPOINT-LAYOUT"


def test_weights_that_changed_since_are_not_used(tmp_path, state):
    path = bring_weights(saved(tmp_path / "file", state), unknown())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="has changed since"):
        load_network("syncnet")


def test_without_weights_the_command_is_named():
    with pytest.raises(CheckpointError) as caught:
        load_network("syncnet")
    assert caught.value.code == "E-CHECKPOINT-MISSING"
    assert caught.value.hint.startswith("joyflash weights fetch measures --role syncnet --from")


def test_the_published_hash_is_a_sha256():
    assert len(published().sha256) == len(hashlib.sha256().hexdigest())
