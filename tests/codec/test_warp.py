"""The warp decoder moves the reference where the flow says."""

import torch

from joyflash_cli.codec.networks import move_reference


def _flow(x_px, y_px, size):
    flow = torch.zeros(1, 8, size // 2, size // 2)
    flow[:, 0::2] = x_px
    flow[:, 1::2] = y_px
    return flow


def test_no_flow_is_the_reference_four_times():
    reference = torch.rand(1, 3, 32, 32)
    moved = move_reference(reference, _flow(0, 0, 32))
    assert torch.allclose(moved, reference.repeat(1, 4, 1, 1), atol=1e-5)


def test_a_flow_of_whole_pixels_shifts():
    reference = torch.rand(1, 3, 32, 32)
    moved = move_reference(reference, _flow(3, -2, 32)).unflatten(1, (4, 3))[0, 2]
    assert torch.allclose(moved[:, 2:, :-3], reference[0, :, :-2, 3:], atol=1e-5)


def test_each_frame_has_its_own_flow():
    reference = torch.rand(1, 3, 32, 32)
    flow = _flow(0, 0, 32)
    flow[:, 4] = 5  # the third frame's sideways displacement
    moved = move_reference(reference, flow).unflatten(1, (4, 3))[0]
    assert torch.allclose(moved[1], reference[0], atol=1e-5)
    assert torch.allclose(moved[2, :, :, :-5], reference[0, :, :, 5:], atol=1e-5)


def test_a_larger_reference_moves_by_the_same_share_of_its_width():
    reference = torch.rand(1, 3, 64, 64)
    moved = move_reference(reference, _flow(2, 0, 32)).unflatten(1, (4, 3))[0, 0]
    assert torch.allclose(moved[:, :, :-4], reference[0, :, :, 4:], atol=1e-4)


def test_beyond_the_edge_the_edge_goes_on():
    reference = torch.rand(1, 3, 32, 32)
    moved = move_reference(reference, _flow(40, 0, 32)).unflatten(1, (4, 3))[0, 0]
    assert torch.allclose(moved, reference[0, :, :, -1:].expand(-1, -1, 32), atol=1e-5)
