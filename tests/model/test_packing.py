"""Packed linear maps: what PyTorch's give, in any shape, and nothing where oneDNN is missing."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from joyflash_cli.model import packing
from joyflash_cli.model.layers import FeedForward, GeluLinear
from joyflash_cli.model.packing import PackedLinear, pack_linear_maps

pytestmark = pytest.mark.skipif(
    not packing._packs(torch.float32), reason="this PyTorch has no oneDNN to pack for"
)


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.Linear, GeluLinear])
@torch.inference_mode()
def test_a_packed_map_is_no_further_from_the_exact_result(kind, bias, dtype):
    if not packing._packs(dtype):
        pytest.skip("no instructions for it")
    linear = kind(40, 72, bias=bias).to(dtype)
    packed = PackedLinear(linear)
    exact = kind(40, 72, bias=bias).double()
    exact.load_state_dict(linear.double().state_dict())
    linear = linear.to(dtype)
    for shape in ((1, 9, 40), (2, 3, 5, 40), (40,)):
        x = numbers(*shape, dtype=dtype) * 3
        expected, found = exact(x.double()), packed(x)
        assert (found.dtype, found.shape) == (dtype, expected.shape)
        error = (found.double() - expected).norm()
        assert error <= 1.05 * (linear(x).double() - expected).norm() + 1e-6 * expected.norm()


@torch.inference_mode()
def test_the_fused_activation_is_gelu_of_large_and_odd_numbers_too():
    ends = [-1e30, -50.0, -0.0, 0.0, 50.0, 1e30, float("inf"), float("nan")]
    linear = GeluLinear(1, 1, bias=False)
    linear.weight.fill_(1)
    x = torch.tensor(ends)[:, None]
    expected = F.gelu(x.double(), approximate="tanh").float()
    assert torch.allclose(PackedLinear(linear)(x), expected, equal_nan=True)


@torch.inference_mode()
def test_every_linear_map_inside_is_packed_and_its_parameters_go():
    layers = nn.ModuleList(FeedForward(16, 24) for _ in range(2))
    x = numbers(1, 5, 16)
    expected = layers[1](layers[0](x))
    pack_linear_maps(layers)
    assert not list(layers.parameters())
    assert torch.allclose(layers[1](layers[0](x)), expected, atol=1e-6)


def test_without_the_operators_everything_stays(monkeypatch):
    def missing(_linear):
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute")

    monkeypatch.setattr(packing, "PackedLinear", missing)
    layer = FeedForward(16, 24)
    pack_linear_maps(layer)
    assert (type(layer.input), type(layer.output)) == (GeluLinear, nn.Linear)
