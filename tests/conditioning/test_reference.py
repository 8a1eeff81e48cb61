"""Image channels of both conventions, and the picture before them."""

import pytest
import torch

from joyflash_cli.conditioning.reference import (
    assemble_image_channels,
    num_image_channels,
    prepare_picture,
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


def test_picture_of_the_right_size_is_only_scaled():
    picture = torch.arange(8 * 6 * 3).reshape(8, 6, 3)
    got = prepare_picture(picture, 8, 6)
    expected = picture.permute(2, 0, 1)[None] / 255 * 2 - 1
    torch.testing.assert_close(got, expected)


def test_crop_takes_the_larger_half_at_the_top():
    """13 rows to 8: three go at the top and two at the bottom."""
    rows = torch.arange(13).view(13, 1, 1).expand(13, 8, 3)
    got = prepare_picture(rows, 8, 8)
    kept = ((got[0, 0, :, 0] + 1) / 2 * 255).round()
    assert kept.tolist() == [3, 4, 5, 6, 7, 8, 9, 10]
    sideways = prepare_picture(rows.transpose(0, 1), 8, 8)
    assert torch.equal(sideways, got.transpose(2, 3))


def test_a_lost_pixel_is_black_only_on_request():
    """``int(161 * (512 / 161))`` is 511: the reference pads the last row with black."""
    picture = torch.full((161, 161, 3), 255)
    assert prepare_picture(picture, 512, 512).min() > 0.99
    padded = prepare_picture(picture, 512, 512, lost_pixel="black")
    assert padded.shape == (1, 3, 512, 512)
    assert (padded[:, :, -1] == -1).all()
    assert (padded[:, :, :, -1] == -1).all()
    assert padded[:, :, :-1, :-1].min() > 0.99


def test_only_rgb_pictures():
    with pytest.raises(ConfigError, match="RGB"):
        prepare_picture(torch.zeros(8, 8), 8, 8)
