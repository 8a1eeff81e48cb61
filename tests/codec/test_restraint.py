"""Drawing around the mouth, and above a line only what lids need."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.codec.composition import draw_below
from joyflash_cli.codec.networks import Drawing

SIZE = 100
BESIDE = torch.cat([torch.arange(20), torch.arange(80, 100)])
"""Columns of shoulders and background: further from the middle than is drawn."""


def drawing_of(num_latents: int = 1) -> Drawing:
    generator = torch.Generator().manual_seed(0)
    frames, coarse, moved = (
        torch.rand(num_latents, 12, SIZE, SIZE, generator=generator) for _ in range(3)
    )
    copied = torch.rand(num_latents, 4, SIZE, SIZE, generator=generator)
    return Drawing(frames, torch.zeros(num_latents, 8, 50, 50), copied, coarse, moved)


def test_above_the_line_there_is_the_moved_picture_and_below_the_drawn_one():
    drawing = drawing_of()
    restrained = draw_below(drawing, 0.5, torch.zeros(1, 4))
    assert torch.equal(restrained.frames[:, :, :48], drawing.moved[:, :, :48])
    assert torch.equal(restrained.copied[:, :, :48], torch.ones(1, 4, 48, SIZE))
    mouth = (..., slice(52, None), slice(29, 71))
    assert torch.equal(restrained.frames[mouth], drawing.frames[mouth])
    assert torch.allclose(restrained.copied[mouth], drawing.copied[mouth])


@pytest.mark.parametrize("closed", [0.0, 1.0])
def test_beside_the_mouth_there_is_the_moved_picture_even_while_eyes_blink(closed):
    drawing = drawing_of()
    restrained = draw_below(drawing, 0.5, torch.full((1, 4), closed))
    assert torch.equal(restrained.frames[:, :, 52:, BESIDE], drawing.moved[:, :, 52:, BESIDE])
    assert torch.equal(restrained.copied[:, :, 52:, BESIDE], torch.ones(1, 4, 48, 40))


def test_between_them_the_drawing_sets_in_without_an_edge():
    drawing = drawing_of()
    restrained = draw_below(drawing, 0.5, torch.zeros(1, 4))
    share = (restrained.frames - drawing.moved) / (drawing.frames - drawing.moved)
    rows = share[0, 0, 48:52, 29:71].median(1).values
    assert rows.tolist() == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=1e-3)


@given(line=st.floats(0, 1), closed=st.integers(0, 3))
def test_above_the_line_a_frame_whose_lids_close_is_drawn_and_no_other(line, closed):
    lids = torch.zeros(2, 4)
    lids[1, closed] = 0.6
    drawing = drawing_of(2)
    restrained = draw_below(drawing, line, lids)
    whole = restrained.frames.unflatten(1, (4, 3))
    drawn = drawing.frames.unflatten(1, (4, 3))
    above = (1, closed, slice(None), slice(0, max(0, int(SIZE * (line - 0.03)))))
    if line:
        torch.testing.assert_close(whole[above], drawn[above])
    if line > 0.1:
        others = [k for k in range(4) if k != closed]
        moved = drawing.moved.unflatten(1, (4, 3))
        assert torch.equal(whole[0, :, :, 0], moved[0, :, :, 0])
        assert torch.equal(whole[1, others, :, 0], moved[1, others, :, 0])


def test_no_line_changes_nothing():
    drawing = drawing_of()
    assert draw_below(drawing, 0.0, torch.zeros(1, 4)) is drawing
