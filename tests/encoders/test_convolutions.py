"""wav2vec2's convolutions in pieces are those of one call, whatever the norm and the length."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from joyflash_cli.encoders.convolutions import convolution_features  # noqa: E402


def extractor(norm, bias):
    torch.manual_seed(1)
    config = transformers.Wav2Vec2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        conv_dim=[6] * 7, feat_extract_norm=norm, conv_bias=bias, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = transformers.Wav2Vec2Model(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.feature_extractor


@pytest.mark.parametrize(("norm", "bias"), [("group", False), ("layer", True)])
@pytest.mark.parametrize("num_samples", [400, 16_000, 16_013, 33_333])
@pytest.mark.parametrize("piece", [1, 7, 50])
@torch.no_grad()
def test_pieces_are_the_whole(norm, bias, num_samples, piece):
    if piece == 1 and num_samples > 16_000:
        pytest.skip("thousands of calls")
    stack = extractor(norm, bias)
    sound = torch.randn(1, num_samples, generator=torch.Generator().manual_seed(3)) + 0.1
    whole = stack(sound)
    pieces = convolution_features(stack, sound, piece=piece)
    assert pieces.shape == whole.shape
    torch.testing.assert_close(pieces, whole, atol=2e-5, rtol=2e-4)


@torch.no_grad()
def test_the_norm_is_that_of_all_the_sound():
    """Were it taken piece by piece, a quiet second would come out as loud as the others."""
    stack = extractor("group", False)
    sound = torch.randn(1, 32_000, generator=torch.Generator().manual_seed(3))
    sound[:, 16_000:] *= 0.01
    assert not torch.allclose(stack(sound[:, 16_000:]), stack(sound)[:, :, -49:], atol=1e-2)
    pieces = convolution_features(stack, sound, piece=20)
    torch.testing.assert_close(pieces, stack(sound), atol=2e-5, rtol=2e-4)
