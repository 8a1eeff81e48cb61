"""Layers whose weights stay in CPU memory: the same numbers, one linear map on the device."""

import copy

import pytest
import torch
from torch import nn

from joyflash_cli.errors import UsageError
from joyflash_cli.model.offloading import offload_linear_maps
from joyflash_cli.model.quantization import check_weight_format, quantize_layers

CPU = torch.device("cpu")


def layers() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(
        nn.Sequential(nn.Linear(8, 24), nn.GELU(), nn.LayerNorm(24), nn.Linear(24, 8, bias=False))
        for _ in range(3)
    ).requires_grad_(False)


def run(model: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
    for layer in model:
        x = x + layer(x)
    return x


def addresses(model: nn.Module) -> dict[str, int]:
    return {name: value.data_ptr() for name, value in model.named_parameters()}


def test_numbers_do_not_change():
    model, x = layers(), torch.randn(5, 8)
    expected = run(model, x)
    offload_linear_maps(model, CPU)
    assert torch.equal(run(model, x), expected)
    assert torch.equal(run(model, x), expected)


def test_weights_come_for_one_linear_map_only_and_leave_again():
    model = layers()
    names = set(model.state_dict())
    offload_linear_maps(model, CPU)
    at_home = addresses(model)
    abroad: list[list[str]] = []

    def look(*_arguments) -> None:
        now = addresses(model)
        abroad.append([name for name in now if now[name] != at_home[name]])

    for module in model.modules():
        if isinstance(module, nn.Linear):
            # After fetching and before releasing: hooks run in the order they were registered.
            module.register_forward_pre_hook(look)
    run(model, torch.randn(2, 8))
    assert abroad == [
        parts for i in range(3) for parts in ([f"{i}.0.weight", f"{i}.0.bias"], [f"{i}.3.weight"])
    ]
    assert addresses(model) == at_home
    assert set(model.state_dict()) == names


def test_everything_else_moves_to_the_device():
    model = layers()
    offload_linear_maps(model, torch.device("meta"))
    for name, parameter in model.named_parameters():
        in_linear_map = name.split(".")[1] in ("0", "3")
        assert parameter.device.type == ("cpu" if in_linear_map else "meta"), name


def test_unknown_weight_formats_name_the_known_ones():
    with pytest.raises(UsageError, match="'int4' does not exist") as caught:
        check_weight_format("int4")
    assert caught.value.hint == "one of none, int8, fp8"


def test_a_missing_library_is_named_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setattr("joyflash_cli.model.quantization.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs torchao") as caught:
        quantize_layers(layers(), "int8")
    assert "joyflash[quant]" in caught.value.hint
    assert caught.value.code == "E-QUANTIZE-MISSING"


@pytest.mark.parametrize(("weight_format", "error"), [("int8", 0.02), ("fp8", 0.06)])
def test_eight_bit_weights_are_nearly_the_same_and_half_as_large(weight_format, error):
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 64))])
    model = model.to(torch.bfloat16).requires_grad_(False)
    quantized = copy.deepcopy(model)
    quantize_layers(quantized, weight_format)
    x = torch.randn(7, 64, dtype=torch.bfloat16)
    with torch.inference_mode():
        expected, got = model[0](x).float(), quantized[0](x).float()
    assert 0 < (got - expected).norm() / expected.norm() < error
    weight = quantized[0][0].weight
    assert weight.qdata.element_size() == 1
    assert weight.dtype == torch.bfloat16
