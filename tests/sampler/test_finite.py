"""Latents that are no numbers are found, and their block is named."""

import pytest
import torch

from joyflash_cli.errors import DeviceError
from joyflash_cli.sampler.finite import FiniteCheck


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_block_is_named_when_asked(value):
    latents = torch.zeros(2, 9, 4, 2, 2)
    FiniteCheck(latents, [5, 6, 7]).confirm()
    latents[1, 4, 3, 1, 0] = value
    latents[0, 8, 0, 0, 0] = value
    check = FiniteCheck(latents, [5, 6, 7])  # says nothing yet
    latents.zero_()
    for _ in range(2):
        with pytest.raises(DeviceError, match="Block 6 has latents that are not finite") as caught:
            check.confirm()
    assert caught.value.code == "E-DEVICE-NONFINITE"
