"""Joints in time: small jumps are spread evenly, motion is left alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.codec.composition import smooth_seam


def _changes(frames, previous):
    return torch.cat([previous[:, None], frames], 1).diff(dim=1).abs().amax((0, 2, 3, 4))


def test_a_small_jump_becomes_four_equal_steps():
    previous = torch.zeros(1, 3, 4, 4)
    frames = torch.full((1, 4, 3, 4, 4), 0.01)
    smooth = smooth_seam(frames, previous, limit=0.1)
    assert torch.allclose(_changes(smooth, previous), torch.full((4,), 0.0025), atol=1e-4)


def test_a_cut_stays_a_cut():
    frames = torch.ones(1, 4, 3, 4, 4)
    smooth = smooth_seam(frames, -torch.ones(1, 3, 4, 4), limit=0.1)
    assert torch.allclose(smooth, frames)


def test_a_jump_at_the_limit_is_spread_by_a_third():
    frames = torch.full((1, 4, 3, 2, 2), 0.1)
    smooth = smooth_seam(frames, torch.zeros(1, 3, 2, 2), limit=0.1)
    spread = (frames - smooth)[0, 0, 0, 0, 0].item()
    assert spread == pytest.approx(0.75 * 0.1 * 0.3679, rel=1e-3)


@given(st.floats(0, 2), st.integers(0, 2**31))
def test_the_last_frame_and_a_limit_of_zero_change_nothing(limit, seed):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(1, 4, 3, 4, 4, generator=generator) * 2 - 1
    previous = torch.rand(1, 3, 4, 4, generator=generator) * 2 - 1
    assert torch.equal(smooth_seam(frames, previous, limit=limit)[:, -1], frames[:, -1])
    assert torch.equal(smooth_seam(frames, previous, limit=0.0), frames)
    # A jump g grows no larger than limit / sqrt(2 e), wherever it comes from.
    moved = (smooth_seam(frames, previous, limit=limit) - frames).abs().max()
    assert moved <= 0.75 * limit * 0.4289 + 1e-6


def test_mouths_keep_their_jumps_and_all_else_loses_them():
    frames = torch.zeros(1, 4, 3, 20, 20)
    previous = torch.full((1, 3, 20, 20), 0.02)
    spared = smooth_seam(frames, previous, limit=0.1, mouth=0.0)
    smooth = smooth_seam(frames, previous, limit=0.1)
    assert torch.equal(spared[..., 13:15, 9:11], frames[..., 13:15, 9:11])
    assert torch.equal(spared[..., :10, :], smooth[..., :10, :])
    assert torch.equal(spared[..., :5], smooth[..., :5])
    half = smooth_seam(frames, previous, limit=0.1, mouth=0.5)
    torch.testing.assert_close(half, (spared + smooth) / 2)
