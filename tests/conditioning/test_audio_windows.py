"""Audio windows: recorded tables, tiling, and slices that equal the slice of the whole."""

import pytest
import torch
from file_conditioning import num_blocks_for, num_latents_for
from hypothesis import given, settings
from hypothesis import strategies as st

from joyflash_cli.conditioning.frames import (
    AudioWindowRule,
    audio_window_mask,
    audio_windows,
    row_indices,
)
from joyflash_cli.errors import ConfigError

VIDEO_ROWS = AudioWindowRule("video-rows")
MARGIN = AudioWindowRule("own-frames-margin", margin=2)
FANTASY = AudioWindowRule("fantasytalking", rows_per_frame=50 / 16)
RULES = st.sampled_from([VIDEO_ROWS, MARGIN, FANTASY])


def numbered_rows(rule, num_latents):
    """Rows whose only feature is their time, the row at time zero being 0."""
    lead = rule.lead_rows
    return torch.arange(-lead, rule.num_rows(num_latents)).float()[None, :, None]


def test_video_rows():
    assert row_indices(VIDEO_ROWS, 0, 3).tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert VIDEO_ROWS.num_rows(3) == 9
    assert VIDEO_ROWS.lead_rows == 0


def test_own_frames_with_margin():
    assert MARGIN.tokens_per_latent == 8
    assert row_indices(MARGIN, 0, 1).tolist() == [[-5, -4, -3, -2, -1, 0, 1, 2]]
    assert row_indices(MARGIN, 2, 3).tolist() == [list(range(3, 11))]
    assert MARGIN.lead_rows == 5
    assert MARGIN.num_rows(3) == 11


@pytest.mark.parametrize(
    ("num_rows", "tokens", "ranges"),
    [
        (252, 21, [(-14, 6), (-2, 18), (10, 30), (23, 43)]),
        (175, 17, [(-11, 5), (-3, 13), (6, 22), (14, 30)]),
        (161, 15, [(-9, 5), (-3, 11), (5, 19), (13, 27)]),
    ],
    ids=["16fps", "23fps", "25fps"],
)
def test_fantasytalking_table_of_81_frames(num_rows, tokens, ranges):
    """Ranges recorded from FantasyTalking's ``split_audio_sequence`` at three frame rates."""
    rule = AudioWindowRule("fantasytalking", rows_per_frame=num_rows / 81)
    rows = row_indices(rule, 0, 4)
    assert rule.tokens_per_latent == rows.shape[1] == tokens
    assert [(int(row[0]), int(row[-1])) for row in rows] == ranges
    assert (rows.diff(dim=1) == 1).all()


def test_truncation_widens_the_window_at_two_rows_per_frame():
    assert AudioWindowRule("fantasytalking", rows_per_frame=2.0).tokens_per_latent == 17


@given(rule=RULES, num_latents=st.integers(1, 200))
def test_windows_tile_without_a_gap(rule, num_latents):
    indices = row_indices(rule, 0, num_latents)
    heard = set(indices.flatten().tolist())
    assert heard == set(range(int(indices.min()), rule.num_rows(num_latents)))
    assert int(indices.min()) <= 0
    assert int(indices.min()) >= -rule.lead_rows or rule.kind == "fantasytalking"


@given(num_latents=st.integers(2, 200), margin=st.integers(0, 5))
def test_own_frames_are_cut_once_each(num_latents, margin):
    """Without its margins, every row of the clip belongs to exactly one latent frame."""
    rule = AudioWindowRule("own-frames-margin", margin=margin)
    own = row_indices(rule, 0, num_latents)[:, margin : margin + 4].flatten().tolist()
    assert own == list(range(-3, 4 * num_latents - 3))


@settings(max_examples=50)
@given(rule=RULES, num_latents=st.integers(1, 60), data=st.data())
def test_a_slice_is_the_slice_of_the_whole(rule, num_latents, data):
    start = data.draw(st.integers(0, num_latents))
    stop = data.draw(st.integers(start, num_latents))
    rows = numbered_rows(rule, num_latents)
    lead = rule.lead_rows
    whole = audio_windows(rows, rule, 0, num_latents, lead_rows=lead)
    part = audio_windows(rows, rule, start, stop, lead_rows=lead)
    assert part.shape == (1, stop - start, rule.tokens_per_latent, 1)
    assert torch.equal(part, whole[:, start:stop])
    longer = audio_windows(numbered_rows(rule, num_latents + 9), rule, start, stop, lead_rows=lead)
    assert torch.equal(longer, part)


def test_rows_arrive_by_time():
    windows = audio_windows(numbered_rows(MARGIN, 4), MARGIN, 0, 4, lead_rows=5)
    assert torch.equal(windows[0, :, :, 0], row_indices(MARGIN, 0, 4).float())


def test_fantasytalking_rows_outside_are_zero_and_masked():
    rows = torch.ones(2, 40, 3)
    windows = audio_windows(rows, FANTASY, 0, 4)
    mask = audio_window_mask(FANTASY, 0, 4, num_rows=40)
    assert mask.sum(dim=1).tolist() == [7, 19, 21, 17]
    assert torch.equal(windows, mask[None, :, :, None].expand_as(windows).float())


def test_missing_rows_are_an_error_not_zeros():
    rows = numbered_rows(MARGIN, 3)
    with pytest.raises(ConfigError, match="5 rows of silence"):
        audio_windows(rows, MARGIN, 0, 3)
    with pytest.raises(ConfigError, match="outside"):
        audio_windows(rows, MARGIN, 0, 4, lead_rows=5)
    with pytest.raises(ConfigError, match="no range"):
        row_indices(VIDEO_ROWS, 3, 2)


@given(num_frames=st.integers(1, 5000))
def test_latents_cover_the_frames_and_no_more(num_frames):
    latents = num_latents_for(num_frames)
    assert 4 * latents - 3 >= num_frames
    assert latents == 1 or 4 * (latents - 1) - 3 < num_frames


@pytest.mark.parametrize(
    ("num_frames", "blocks"), [(1, 1), (9, 1), (10, 2), (21, 2), (22, 3), (33, 3), (34, 4)]
)
def test_blocks_of_three(num_frames, blocks):
    assert num_blocks_for(num_frames, 3) == blocks == -(-(num_frames + 3) // 12)


def test_blocks_of_four_behind_a_given_first_latent():
    assert num_blocks_for(1, 4, prefix_frames=1) == 1
    assert num_blocks_for(17, 4, prefix_frames=1) == 1
    assert num_blocks_for(18, 4, prefix_frames=1) == 2
