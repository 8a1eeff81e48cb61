"""Safetensors into modules: everything agrees, or the first differences are named."""

import pytest
import torch
from public_layouts import save_state_dict
from safetensors.torch import save_file
from torch import nn

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.tensors import load_state_dict


class Net(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, width) for _ in range(4))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("scale", torch.ones(()))


def equal(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_round_trip_keeps_every_bit(tmp_path):
    source, target = Net(), Net()
    assert not equal(source, target)
    save_state_dict(source, tmp_path / "net.safetensors")
    load_state_dict(target, tmp_path / "net.safetensors")
    assert equal(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_a_module_on_the_meta_device_is_filled(tmp_path):
    source = Net()
    save_state_dict(source, tmp_path / "net.safetensors")
    with torch.device("meta"):
        target = Net()
    load_state_dict(target, tmp_path / "net.safetensors")
    assert equal(source, target)


def test_dtypes(tmp_path):
    source = Net()
    save_state_dict(source, tmp_path / "half.safetensors", dtype=torch.bfloat16)
    target = Net()
    load_state_dict(target, tmp_path / "half.safetensors")
    assert target.layers[0].weight.dtype == torch.float32
    load_state_dict(target, tmp_path / "half.safetensors", dtype=torch.bfloat16)
    assert target.layers[0].weight.dtype == torch.bfloat16
    assert target.scale.dtype == torch.bfloat16
    assert target.count.dtype == torch.int64
    assert torch.equal(target.layers[1].bias, source.layers[1].bias.bfloat16())


def test_differences_are_named_five_at_most(tmp_path):
    path = tmp_path / "net.safetensors"
    save_state_dict(Net(width=4), path)
    target = Net()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_state_dict(target, path)
    message = caught.value.message
    assert message.count("instead of") == 5
    assert "and 3 more" in message
    assert "layers.0.weight is (4, 2) instead of (3, 2)" in message
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())


def test_missing_and_unknown_tensors_are_named(tmp_path):
    path = tmp_path / "net.safetensors"
    tensors = {name: value.clone() for name, value in Net().state_dict().items()}
    tensors["other"] = tensors.pop("scale")
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"scale is missing; other is unknown"):
        load_state_dict(Net(), path)


def test_names_of_a_file_cannot_put_anything_into_a_message(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file({"\x1b[2J": torch.zeros(1), "n" * 5_000: torch.zeros((1,) * 60)}, path)
    with pytest.raises(CheckpointError) as caught:
        load_state_dict(nn.Module(), path)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1_000


def test_values_that_are_not_finite_are_refused(tmp_path):
    source = Net()
    source.layers[2].bias.data[1] = float("nan")
    save_state_dict(source, tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.2\.bias"):
        load_state_dict(Net(), tmp_path / "net.safetensors")


@pytest.mark.parametrize("data", [b"", b"{}", bytes(100), b"\x10" + bytes(7) + b"not json at all!"])
def test_files_that_cannot_be_read(tmp_path, data):
    path = tmp_path / "net.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        load_state_dict(Net(), path)
    assert caught.value.code == "E-CHECKPOINT-DAMAGED"
