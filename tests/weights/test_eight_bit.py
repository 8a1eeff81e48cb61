"""Weights in eight bits: half the size, rounded to half a step, refused when scales do not fit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.tensors import (
    SCALE_SUFFIX,
    as_eight_bit,
    check_state_dict,
    from_eight_bit,
    load_state_dict,
)


@given(st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_a_weight_is_off_by_half_a_step_of_its_output_at_most(seed, size):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(32, 8, 3, 3, generator=generator) * size
    stored = as_eight_bit({"w": weight})
    again = from_eight_bit(stored["w"], stored["w" + SCALE_SUFFIX])
    step = weight.abs().amax((1, 2, 3)) / 127
    assert ((again - weight).abs().amax((1, 2, 3)) <= 0.501 * step).all()


def test_small_tensors_vectors_and_zeros_survive():
    tensors = {"b": torch.randn(5000), "n": torch.randn(3, 3), "z": torch.zeros(64, 64)}
    stored = as_eight_bit(tensors)
    assert torch.equal(stored["b"], tensors["b"])
    assert torch.equal(stored["n"], tensors["n"])
    assert torch.equal(from_eight_bit(stored["z"], stored["z" + SCALE_SUFFIX]), tensors["z"])


@pytest.mark.parametrize("on_meta", [False, True])
def test_a_module_is_filled_with_floats(tmp_path, on_meta):
    source = nn.Linear(64, 64)
    path = tmp_path / "part.safetensors"
    save_file(as_eight_bit(source.state_dict()), path)
    assert load_file(path)["weight"].dtype == torch.int8
    with torch.device("meta" if on_meta else "cpu"):
        target = nn.Linear(64, 64)
    check_state_dict(target, path)
    load_state_dict(target, path, dtype=torch.float32)
    assert target.weight.dtype == torch.float32
    assert torch.allclose(target.weight, source.weight, atol=1e-3)
    assert torch.equal(target.bias, source.bias)


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        (None, "cannot be read"),
        (torch.ones(3), "3,.* scales"),
        (torch.full((64,), torch.nan), "not finite"),
    ],
)
def test_scales_that_do_not_fit_are_refused(tmp_path, scale, told):
    tensors = as_eight_bit(nn.Linear(64, 64).state_dict())
    del tensors["weight" + SCALE_SUFFIX]
    if scale is not None:
        tensors["weight" + SCALE_SUFFIX] = scale
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match=told) as caught:
        load_state_dict(nn.Linear(64, 64), tmp_path / "part.safetensors")
    assert caught.value.code == "E-CHECKPOINT-DAMAGED"
