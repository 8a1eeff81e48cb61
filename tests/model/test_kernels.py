"""Attention kernels: the same numbers from all, in pieces or whole, and clear refusals."""

import pytest
import torch

from joyflash_cli.errors import ConfigError, DeviceError, UsageError
from joyflash_cli.model.attention import CrossAttention, SelfAttention, use_backend
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.kernels import (
    attend,
    attend_by_matmul,
    check_backend,
    resolve_backend,
    usable_backends,
)
from joyflash_cli.model.transformer import CausalTransformer

CPU = torch.device("cpu")
SETTING = {"device": CPU, "dtype": torch.float32, "head_dim": 8}


@pytest.fixture
def qkv():
    generator = torch.Generator().manual_seed(0)
    sizes = ((2, 10, 3, 8), (2, 14, 3, 8), (2, 14, 3, 8))
    return tuple(torch.randn(size, generator=generator) for size in sizes)


def explicit(q, k, v, mask=None):
    scores = torch.einsum("blnk,bsnk->bnls", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.einsum("bnls,bsnk->blnk", scores.softmax(-1), v)


@pytest.mark.parametrize("backend", ["auto", "sdpa", "math", "flash"])
def test_every_kernel_gives_the_same(backend, qkv):
    assert torch.allclose(attend(*qkv, backend=backend), explicit(*qkv), atol=1e-6)


@pytest.mark.parametrize("max_scores", [1, 84, 600, 10_000])
@pytest.mark.parametrize("masked", [False, True])
def test_pieces_are_the_whole(max_scores, masked, qkv):
    mask = torch.rand(10, 14, generator=torch.Generator().manual_seed(1)) > 0.3 if masked else None
    q, k, v = (x.transpose(1, 2) for x in qkv)
    got = attend_by_matmul(q, k, v, mask, max_scores=max_scores).transpose(1, 2)
    assert torch.allclose(got, explicit(*qkv, mask), atol=1e-6)


def test_no_piece_holds_more_scores_than_allowed(qkv, monkeypatch):
    sizes = []
    real = torch.Tensor.softmax

    def watched(scores, dim):
        sizes.append(scores.numel())
        return real(scores, dim)

    monkeypatch.setattr(torch.Tensor, "softmax", watched)
    q, k, v = (x.transpose(1, 2) for x in qkv)
    attend_by_matmul(q, k, v, max_scores=300)
    assert sizes == [2 * 10 * 14] * 3  # one head at once
    sizes.clear()
    attend_by_matmul(q, k, v, max_scores=100)
    assert len(sizes) == 3 * 4  # 100 // (2 * 14) = 3 of its queries at once, of 10
    assert max(sizes) <= 100


def test_auto_writes_bfloat16_out_on_a_cpu_only():
    assert resolve_backend("auto", CPU, torch.bfloat16) == "math"
    assert resolve_backend("auto", CPU, torch.float32) == "sdpa"
    assert resolve_backend("auto", torch.device("cuda"), torch.bfloat16) == "sdpa"
    assert resolve_backend("flash", CPU, torch.bfloat16) == "flash"


def test_a_fused_kernel_takes_no_mask(qkv):
    with pytest.raises(ConfigError, match="takes no mask"):
        attend(*qkv, torch.ones(10, 14, dtype=torch.bool), backend="flash")


def test_a_kernel_that_runs_is_accepted():
    assert check_backend("flash", **SETTING) == "flash"
    usable = usable_backends(**SETTING)
    assert {"auto", "sdpa", "math"} <= set(usable)
    assert "cudnn" not in usable


def test_an_unknown_kernel_names_the_known_ones():
    with pytest.raises(UsageError, match="'sage' does not exist") as caught:
        check_backend("sage", **SETTING)
    assert "flash" in caught.value.hint


def test_a_kernel_that_does_not_run_names_those_that_do():
    with pytest.raises(DeviceError, match="'cudnn' does not run on cpu in float32") as caught:
        check_backend("cudnn", **SETTING)
    assert caught.value.code == "E-DEVICE-ATTENTION"
    assert caught.value.hint == "here --attention can be auto, sdpa, math, flash"
    assert "\n" not in str(caught.value)


def test_the_whole_model_uses_the_chosen_kernel(monkeypatch):
    config = TransformerConfig(
        dim=16, num_layers=2, num_heads=2, ffn_dim=16, in_channels=4, out_channels=4, text_dim=6
    )
    transformer = CausalTransformer(config)
    use_backend(transformer, "math")
    attentions = [
        part for part in transformer.modules() if isinstance(part, SelfAttention | CrossAttention)
    ]
    assert [part.backend for part in attentions] == ["math"] * 4
