"""Image channels of both conventions, and the picture before them."""

import pytest
import torch

from joyflash_cli.conditioning.frames import (
    assemble_image_channels,
    num_image_channels,
)
from joyflash_cli.errors import ConfigError


def test_avatar_channels_are_reference_then_mask():
    reference = torch.randn(2, 16, 3, 4)
    channels = assemble_image_channels(reference, 0, 3, convention="avatar")
    assert channels.shape == (2, 3, num_image_channels(16, "avatar"), 3, 4) == (2, 3, 17, 3, 4)
    assert torch.equal(channels[:, :, :16], reference[:, None].expand(-1, 3, -1, -1, -1))
    assert channels[:, :, 16].mean(dim=(0, 2, 3)).tolist() == [0.0, 1.0, 1.0]


def test_a_reference_may_stand_beside_the_first_frame_only():
    reference = torch.randn(2, 16, 3, 4)
    first, later = (
        assemble_image_channels(reference, start, stop, convention="avatar-first-frame")
        for start, stop in ((0, 4), (2, 5))
    )
    assert torch.equal(first[:, 0, :16], reference)
    assert first[:, 1:, :16].abs().max() == later[:, :, :16].abs().max() == 0
    assert first[:, :, 16].mean(dim=(0, 2, 3)).tolist() == [0.0, 1.0, 1.0, 1.0]
    assert num_image_channels(16, "avatar-first-frame") == 17


def test_wan_channels_are_mask_then_padded_clip():
    latents = torch.randn(2, 5, 16, 3, 4)
    channels = assemble_image_channels(latents, 0, 7, convention="wan-i2v")
    assert channels.shape == (2, 7, num_image_channels(16, "wan-i2v"), 3, 4) == (2, 7, 20, 3, 4)
    assert channels[:, :, :4].mean(dim=(0, 2, 3, 4)).tolist() == [1.0] + [0.0] * 6
    assert torch.equal(channels[:, :5, 4:], latents)
    assert torch.equal(channels[:, 6, 4:], latents[:, 4])


@pytest.mark.parametrize(
    ("convention", "shape"), [("avatar", (1, 16, 2, 2)), ("wan-i2v", (1, 4, 16, 2, 2))]
)
def test_a_slice_is_the_slice_of_the_whole(convention, shape):
    latents = torch.randn(shape)
    whole = assemble_image_channels(latents, 0, 12, convention=convention)
    for start, stop in [(0, 3), (2, 9), (9, 12), (5, 5)]:
        part = assemble_image_channels(latents, start, stop, convention=convention)
        assert torch.equal(part, whole[:, start:stop])


def test_channels_keep_the_number_format():
    channels = assemble_image_channels(
        torch.zeros(1, 16, 2, 2, dtype=torch.bfloat16), 0, 2, convention="avatar"
    )
    assert channels.dtype == torch.bfloat16


def test_wrong_latents_are_refused():
    with pytest.raises(ConfigError, match="5 axes"):
        assemble_image_channels(torch.zeros(1, 16, 2, 2), 0, 2, convention="wan-i2v")
    with pytest.raises(ConfigError, match="no range"):
        assemble_image_channels(torch.zeros(1, 16, 2, 2), 3, 2, convention="avatar")
