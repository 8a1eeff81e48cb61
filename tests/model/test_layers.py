"""Modulation and gates against their formulas, in float64."""

import pytest
import torch

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
