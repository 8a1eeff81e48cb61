"""Modulation, gates and activation against their formulas, in float64."""

import pytest
import torch
import torch.nn.functional as F

from joyflash_cli.model.kernels import GELU_ELEMENTS, gelu_tanh
from joyflash_cli.model.layers import add_gated, modulate

WIDTH = 24


def per_frame(values):
    """Vectors of two frames, for each of their three tokens."""
    return values.double().repeat_interleave(3, dim=1)


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(0)
    x, update = torch.rand(2, 2, 6, WIDTH, generator=generator).unbind(0)
    shift, scale = torch.rand(2, 2, 2, WIDTH, generator=generator).unbind(0)
    return x, update, shift, scale


def test_modulation_scales_and_shifts_by_frame(parts):
    x, _, shift, scale = parts
    expected = x.double() * (1 + per_frame(scale)) + per_frame(shift)
    assert torch.allclose(modulate(x, shift, scale).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gate_lets_in_its_share_and_only_the_sum_is_rounded(dtype, parts):
    x, update, gate = parts[0].to(dtype), parts[1].to(dtype), parts[2]
    expected = x.double() + update.double() * per_frame(gate)
    result = add_gated(x, update, gate)
    assert result.dtype == dtype
    assert torch.allclose(result.double(), expected, atol=1e-6, rtol=torch.finfo(dtype).eps / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, GELU_ELEMENTS // 2)])
def test_the_activation_is_the_tanh_approximation(dtype, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).mul(4).to(dtype)
    expected = F.gelu(x.double(), approximate="tanh")
    ours = gelu_tanh(x)
    assert ours.dtype == dtype
    assert torch.allclose(ours.double(), expected, atol=1e-6, rtol=torch.finfo(dtype).eps / 2)
    if dtype == torch.float32:
        return
    theirs = F.gelu(x, approximate="tanh").double()
    assert (ours.double() - expected).abs().mean() <= (theirs - expected).abs().mean()


def test_the_activation_of_large_and_odd_numbers():
    x = torch.tensor([-1e30, -50.0, -0.0, 0.0, 50.0, 1e30, float("inf"), float("nan")])
    expected = torch.tensor([0.0, 0.0, 0.0, 0.0, 50.0, 1e30, float("inf"), float("nan")])
    assert torch.allclose(gelu_tanh(x), expected, equal_nan=True)


def test_the_activation_has_a_gradient():
    x = torch.linspace(-3, 3, 7, requires_grad=True)
    gelu_tanh(x).sum().backward()
    expected = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    F.gelu(expected, approximate="tanh").sum().backward()
    assert torch.allclose(x.grad.double(), expected.grad, atol=1e-6)
