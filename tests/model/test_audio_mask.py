"""Audio tokens outside the clip are not attended (FantasyTalking's windows reach before time 0)."""

import torch
from file_conditioning import FileConditioning

from joyflash_cli.conditioning.frames import AudioWindowRule
from joyflash_cli.conditioning.stream import StaticConditioning
from joyflash_cli.model.attention import CrossAttention, StaticKeysValues
from joyflash_cli.model.config import AudioAttentionConfig, TransformerConfig
from joyflash_cli.model.kernels import attend, attend_by_matmul

CONFIG = TransformerConfig(
    dim=16, num_layers=1, num_heads=2, ffn_dim=8, in_channels=16,
    audio_attention=AudioAttentionConfig(audio_dim=6, tokens_per_latent=5, projection_dim=12),
)  # fmt: skip


def test_masked_audio_tokens_have_no_part():
    """As if they were not there: the other tokens give the same result without them."""
    torch.manual_seed(0)
    config = CONFIG
    attention = CrossAttention(config).eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    width = config.audio_attention.projection_dim
    x, audio = torch.randn(2, 12, config.dim), torch.randn(2, 3, 5, width)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[0, :3] = mask[2, 4] = False
    static = StaticKeysValues()
    masked = attention(x, static=static, audio=audio, audio_mask=mask).unflatten(1, (3, 4))
    for frame in range(3):
        kept = audio[:, frame : frame + 1, mask[frame]]
        alone = attention(x.unflatten(1, (3, 4))[:, frame], static=static, audio=kept)
        assert torch.allclose(masked[:, frame], alone, atol=1e-5)
    loud = audio.masked_fill(~mask[None, :, :, None], 100.0)
    assert torch.equal(
        attention(x, static=static, audio=loud, audio_mask=mask).unflatten(1, (3, 4)), masked
    )
    changed = attention(x, static=static, audio=loud).unflatten(1, (3, 4))
    assert not torch.allclose(changed, masked, atol=1e-3)


def test_a_mask_per_frame_in_every_kernel():
    q, k, v = (torch.randn(6, 4, 2, 8), torch.randn(6, 5, 2, 8), torch.randn(6, 5, 2, 8))
    mask = torch.rand(6, 1, 1, 5) > 0.3
    mask[..., 0] = True
    expected = attend(q, k, v, mask, backend="sdpa")
    heads = [x.transpose(1, 2) for x in (q, k, v)]
    for max_scores in (1 << 20, 70):
        ours = attend_by_matmul(*heads, mask, max_scores=max_scores).transpose(1, 2)
        assert torch.allclose(ours, expected, atol=1e-6)


def test_conditioning_says_which_tokens_are_outside():
    rule = AudioWindowRule("fantasytalking", rows_per_frame=3.125)
    rows = torch.randn(1, rule.num_rows(12), 6)
    source = FileConditioning(rows, rule, static=StaticConditioning(), num_blocks=4, block_frames=3)
    start = source.frames(0, 3)
    # The window of latent 0 reaches 14 rows before the sound, that of latent 1 two.
    assert start.audio_mask.sum(dim=1).tolist() == [7, 19, 21]
    assert (start.audio[0][~start.audio_mask] == 0).all()
    assert source.frames(3, 6).audio_mask is None
