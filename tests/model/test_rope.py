"""The rotary embedding against complex multiplication, and its invariance to shifts."""

import pytest
import torch

from joyflash_cli.model.rope import rope_pair_split, rope_tables, rotate


@pytest.mark.parametrize(
    ("head_dim", "split"), [(128, (22, 21, 21)), (12, (2, 2, 2)), (16, (4, 2, 2))]
)
def test_pairs_are_split_as_in_wan(head_dim, split):
    assert rope_pair_split(head_dim) == split


def test_equals_complex_multiplication():
    generator = torch.Generator().manual_seed(0)
    head_dim, grid, positions = 16, (2, 3), [5, 6, 900]
    x = torch.randn(2, 18, 3, head_dim, generator=generator)
    cos, sin = rope_tables(torch.tensor(positions), grid, head_dim=head_dim)
    turned = rotate(x, cos.flatten(0, 1), sin.flatten(0, 1))

    pairs = rope_pair_split(head_dim)
    as_complex = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    token = 0
    for position in positions:
        for row in range(grid[0]):
            for column in range(grid[1]):
                angles = torch.cat([
                    where * 10000.0 ** (-torch.arange(n, dtype=torch.float64) / n)
                    for where, n in zip((position, row, column), pairs, strict=True)
                ])  # fmt: skip
                expected = as_complex[:, token] * torch.polar(torch.ones_like(angles), angles)
                expected = torch.view_as_real(expected).flatten(-2).float()
                assert torch.allclose(turned[:, token], expected, atol=1e-5)
                token += 1


def test_scores_depend_on_differences_only():
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 4, 2, 12, generator=generator).unbind(0)

    def scores(shift: int) -> torch.Tensor:
        tables = rope_tables(torch.tensor([3 + shift, 7 + shift]), (1, 2), head_dim=12)
        cos, sin = (table.flatten(0, 1) for table in tables)
        return torch.einsum("blnk,bsnk->bnls", rotate(q, cos, sin), rotate(k, cos, sin))

    for shift in (3, 1000, 2_000_000):
        assert torch.allclose(scores(0), scores(shift), atol=1e-5)


def test_there_is_no_last_position():
    cos, sin = rope_tables(torch.tensor([1024, 10**6]), (1, 1), head_dim=12)
    assert torch.allclose(cos**2 + sin**2, torch.ones_like(cos))
