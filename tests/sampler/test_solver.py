"""Conversions undo each other; the table is where checkpoints expect it."""

import pytest
import torch

from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.solver import (
    add_noise,
    clean_from_flow,
    euler_step,
    flow_from_clean,
    flow_match_table,
)


def test_conversions_undo_each_other():
    clean, noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    noisy = add_noise(clean, noise, 0.625)
    flow = noise - clean
    assert torch.allclose(clean_from_flow(noisy, flow, 0.625), clean, atol=1e-6)
    assert torch.allclose(flow_from_clean(noisy, clean, 0.625), flow, atol=1e-5)
    assert torch.allclose(euler_step(noisy, flow, 0.625, 0.0), clean, atol=1e-6)


def test_timestep_zero_is_not_in_the_table():
    table = flow_match_table(5.0)
    assert table.sigmas[-1].item() == pytest.approx(0.00498, abs=1e-5)
    assert table.timesteps[table.step_index(500)].item() == pytest.approx(833.3333, abs=1e-3)


@pytest.mark.parametrize("step", [0, 1001])
def test_steps_outside_the_table(step):
    with pytest.raises(ConfigError, match=str(step)):
        flow_match_table(5.0).step_index(step)
