"""The rotary embedding against real arithmetic in float64, and its invariance to shifts."""

import pytest
import torch

from joyflash_cli.model.rope import rope_pair_split, rope_rotations, rotate


@pytest.mark.parametrize(
    ("head_dim", "split"), [(128, (22, 21, 21)), (12, (2, 2, 2)), (16, (4, 2, 2))]
)
def test_pairs_are_split_as_in_wan(head_dim, split):
    assert rope_pair_split(head_dim) == split


def rotated_in_real_numbers(x, positions, grid):
    """Pair by pair: ``(even cos - odd sin, even sin + odd cos)``, in float64."""
    pairs = rope_pair_split(x.shape[-1])
    places = [(t, row, column) for t in positions for row in range(grid[0])
              for column in range(grid[1])]  # fmt: skip
    angles = torch.stack([
        torch.cat([
            where * 10000.0 ** (-torch.arange(n, dtype=torch.float64) / n)
            for where, n in zip(place, pairs, strict=True)
        ])
        for place in places
    ])  # fmt: skip
    even, odd = x.double().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.bfloat16, 8e-3)])
def test_every_pair_is_turned_by_its_angle(dtype, atol):
    generator = torch.Generator().manual_seed(0)
    grid, positions = (2, 3), [5, 6, 900]
    x = torch.rand(2, 18, 3, 16, generator=generator).to(dtype)
    turns = rope_rotations(torch.tensor(positions), grid, head_dim=16)
    turned = rotate(x, turns.flatten(0, 1))
    assert turned.dtype == dtype
    expected = rotated_in_real_numbers(x, positions, grid)
    # In bfloat16 nothing but the result is rounded.
    assert torch.allclose(turned.double(), expected, atol=atol, rtol=0)


def test_scores_depend_on_differences_only():
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 4, 2, 12, generator=generator).unbind(0)

    def scores(shift: int) -> torch.Tensor:
        turns = rope_rotations(torch.tensor([3 + shift, 7 + shift]), (1, 2), head_dim=12)
        turns = turns.flatten(0, 1)
        return torch.einsum("blnk,bsnk->bnls", rotate(q, turns), rotate(k, turns))

    for shift in (3, 1000, 2_000_000):
        assert torch.allclose(scores(0), scores(shift), atol=1e-5)


def test_there_is_no_last_position():
    turns = rope_rotations(torch.tensor([1024, 10**6]), (1, 1), head_dim=12)
    assert torch.allclose(turns.abs(), torch.ones(2, 1, 6))
