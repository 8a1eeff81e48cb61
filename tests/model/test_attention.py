"""One seam, several kernels, the same numbers."""

import pytest
import torch

from joyflash_cli.model.attention import block_causal_mask
from joyflash_cli.model.kernels import attend, attend_by_matmul


def explicit(q, k, v, mask=None):
    """Softmax attention of single vectors, written as loops over everything."""
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for head in range(q.shape[2]):
            for i in range(q.shape[1]):
                scores = k[b, :, head] @ q[b, i, head] / q.shape[-1] ** 0.5
                if mask is not None:
                    scores = torch.where(mask[i], scores, -torch.inf)
                out[b, i, head] = scores.softmax(0) @ v[b, :, head]
    return out


@pytest.fixture
def qkv():
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 6, 3, 8, generator=generator)
    k, v = torch.randn(2, 2, 9, 3, 8, generator=generator).unbind(0)
    return q, k, v


@pytest.mark.parametrize("masked", [False, True])
def test_attend_is_softmax_attention(qkv, masked):
    mask = torch.ones(6, 9, dtype=torch.bool).tril(3) if masked else None
    assert torch.allclose(attend(*qkv, mask), explicit(*qkv, mask), atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_written_out_attention_is_the_same(qkv, masked):
    mask = torch.ones(6, 9, dtype=torch.bool).tril(3) if masked else None
    q, k, v = (x.transpose(1, 2) for x in qkv)
    ours = attend_by_matmul(q, k, v, mask).transpose(1, 2)
    assert torch.allclose(ours, attend(*qkv, mask), atol=1e-6)


def test_bfloat16_on_a_cpu_is_close_to_float32(qkv):
    half = attend(*(x.bfloat16() for x in qkv))
    assert half.dtype == torch.bfloat16
    exact = attend(*(x.bfloat16().float() for x in qkv))
    assert (half.float() - exact).abs().max() < 0.03


def test_block_causal_mask_with_prefix():
    mask = block_causal_mask(5, 2, 1, prefix_frames=1)
    expected = ["10000", "11100", "11100", "11111", "11111"]
    assert ["".join(str(int(x)) for x in row) for row in mask] == expected
    assert block_causal_mask(4, 2, 3).shape == (12, 12)
