"""The Wan codec: streaming equals whole, states are values, numbers are diffusers' own."""

import inspect
import random

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from joyflash_cli.codec.wan import WanCodec  # noqa: E402
from joyflash_cli.errors import ConfigError  # noqa: E402

CONFIG = {"base_dim": 8, "z_dim": 16, "num_res_blocks": 1}
GRID = (2, 3)


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return diffusers.AutoencoderKLWan(**CONFIG).eval()


@pytest.fixture(scope="module")
def codec(vae):
    return WanCodec(vae)


@pytest.fixture(scope="module")
def latents():
    return torch.randn(2, 7, 16, *GRID, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def clip():
    generator = torch.Generator().manual_seed(2)
    return torch.rand(2, 9, 3, 16, 24, generator=generator) * 2 - 1


def decode_in_chunks(codec, latents, sizes):
    state = codec.start_decoding(torch.zeros(1, 3, 16, 24))
    chunks = []
    for part in latents.split(sizes, dim=1):
        frames, state = codec.decode(part, state)
        chunks.append(frames)
    return chunks, state


def test_private_fields_of_diffusers_are_as_the_codec_reads_them(vae, codec):
    vae.clear_cache()
    causal = [m for m in vae.decoder.modules() if type(m).__name__ == "WanCausalConv3d"]
    assert vae._conv_num == len(causal) == len(codec.start_decoding().cache)
    causal = [m for m in vae.encoder.modules() if type(m).__name__ == "WanCausalConv3d"]
    assert vae._enc_conv_num == len(causal)
    assert {"feat_cache", "feat_idx", "first_chunk"} <= set(
        inspect.signature(vae.decoder.forward).parameters
    )
    assert {"feat_cache", "feat_idx"} <= set(inspect.signature(vae.encoder.forward).parameters)


def test_sizes(codec):
    assert codec.latent_channels == 16
    assert codec.spatial_stride == 8
    assert codec.dtype == torch.float32


def test_blocks_of_three_give_9_12_12_frames(codec, latents):
    chunks, state = decode_in_chunks(codec, latents, [3, 3, 1])
    assert [c.shape[1] for c in chunks] == [9, 12, 4]
    assert state.num_latents == 7
    assert all(c.shape[2:] == (3, 16, 24) for c in chunks)


def test_any_chunking_gives_the_same_bits(codec, latents):
    (whole,), _ = decode_in_chunks(codec, latents, [7])
    assert whole.shape[1] == 4 * 7 - 3
    choose = random.Random(0)
    for _ in range(4):
        cuts = sorted(choose.sample(range(1, 7), choose.randint(1, 5)))
        sizes = [b - a for a, b in zip([0, *cuts], [*cuts, 7], strict=True)]
        chunks, _ = decode_in_chunks(codec, latents, sizes)
        assert torch.equal(torch.cat(chunks, dim=1), whole), sizes


def test_decoding_is_diffusers_decoding_of_unnormalised_latents(vae, codec, latents):
    chunks, _ = decode_in_chunks(codec, latents, [3, 4])
    mean = torch.tensor(vae.config.latents_mean).view(1, 16, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, 16, 1, 1, 1)
    with torch.no_grad():
        expected = vae.decode(latents.transpose(1, 2) * std + mean).sample.transpose(1, 2)
    # diffusers runs its first 1x1 convolution on all frames at once, which rounds differently.
    torch.testing.assert_close(torch.cat(chunks, dim=1), expected, atol=1e-5, rtol=0)


def test_history_matters(codec, latents):
    """Two fresh streams are not one stream: the property above is not vacuous."""
    (whole,), _ = decode_in_chunks(codec, latents, [7])
    (late,), _ = decode_in_chunks(codec, latents[:, 3:], [4])
    assert late.shape[1] == 13
    assert not torch.allclose(whole[:, -4:], late[:, -4:], atol=1e-4)


def test_state_is_not_changed_and_can_be_resumed_twice(codec, latents):
    _, state = codec.decode(latents[:, :2], codec.start_decoding())
    kept = [entry.clone() if isinstance(entry, torch.Tensor) else entry for entry in state.cache]
    first, _ = codec.decode(latents[:, 2:5], state)
    second, _ = codec.decode(latents[:, 2:5], state)
    assert torch.equal(first, second)
    for before, after in zip(kept, state.cache, strict=True):
        same = torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after
        assert same


def test_streams_do_not_disturb_each_other(codec, latents):
    other = latents.flip(1)
    (alone,), _ = decode_in_chunks(codec, latents[:, :4], [4])
    state, other_state = codec.start_decoding(), codec.start_decoding()
    mixed = []
    for i in range(4):
        frames, state = codec.decode(latents[:, i : i + 1], state)
        _, other_state = codec.decode(other[:, i : i + 1], other_state)
        mixed.append(frames)
    assert torch.equal(torch.cat(mixed, dim=1), alone)


def test_frames_are_clamped(codec, latents):
    frames, _ = codec.decode(latents[:, :2] * 1e3, codec.start_decoding())
    assert frames.abs().max() <= 1.0


def test_encoding_is_diffusers_encoding_normalised(vae, codec, clip):
    with torch.no_grad():
        raw = vae.encode(clip.transpose(1, 2)).latent_dist.mode()
    mean = torch.tensor(vae.config.latents_mean).view(1, 16, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, 16, 1, 1, 1)
    got = codec.encode(clip, clip[:, 0])
    assert got.shape == (2, 3, 16, 2, 3)
    torch.testing.assert_close(got, ((raw - mean) / std).transpose(1, 2), atol=1e-6, rtol=0)


def test_reference_is_the_first_latent_of_a_clip(codec, clip):
    reference = codec.reference_latents(clip[:, 0])
    assert reference.shape == (2, 16, 2, 3)
    torch.testing.assert_close(reference, codec.encode(clip, clip[:, 0])[:, 0], atol=1e-6, rtol=0)


def test_padded_clip_is_picture_then_grey(codec, clip):
    zeros = torch.zeros_like(clip)
    zeros[:, 0] = clip[:, 0]
    expected = codec.encode(zeros, clip[:, 0])
    torch.testing.assert_close(codec.padded_clip_latents(clip[:, 0], 3), expected)


@pytest.mark.parametrize("shape", [(1, 8, 3, 16, 16), (1, 5, 3, 16, 20)])
def test_sizes_that_do_not_fit_are_refused(codec, shape):
    frames = torch.zeros(shape)
    with pytest.raises(ConfigError, match=str(shape[1]) if shape[1] == 8 else "20"):
        codec.encode(frames, frames[:, 0])


def test_wan_2_2_vae_is_refused():
    vae = diffusers.AutoencoderKLWan(
        **CONFIG, is_residual=True, patch_size=2, in_channels=12, out_channels=12
    )
    with pytest.raises(ConfigError, match=r"Wan 2\.1"):
        WanCodec(vae)
