"""The tiny codec: streaming equals whole, what rests stays the reference."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from joyflash_cli.codec.tiny import KnownBlinks, TinyCodec, TinyCodecConfig
from joyflash_cli.config import from_dict, to_dict
from joyflash_cli.errors import ConfigError

SMALL = TinyCodecConfig(
    latent_channels=4,
    encoder_dim=16,
    latent_dim=16,
    num_latent_layers=1,
    decoder_dim=16,
    reference_dim=8,
    num_flow_layers=2,
    num_drawing_layers=2,
    seam_limit=0.0,
    flow_seam_limit=0.0,
)


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    codec = TinyCodec(SMALL)
    for parameter in codec.parameters():  # the zero-initialised ends would hide the networks
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return codec.eval()


def _stream(codec, latents, reference, cuts):
    state = codec.start_decoding(reference)
    chunks = []
    for length in cuts:
        frames, state = codec.decode(latents[:, :length], state)
        latents = latents[:, length:]
        chunks.append(frames)
    return chunks


@torch.no_grad()
@pytest.mark.parametrize("cuts", [(3, 3, 1), (1,) * 7, (2, 5), (7,)])
def test_any_chunking_gives_the_same_bits(codec, cuts):
    reference = torch.rand(1, 3, 64, 64) * 2 - 1
    latents = torch.randn(1, 7, 4, 8, 8)
    whole, _ = codec.decode(latents, codec.start_decoding(reference))
    assert whole.shape == (1, 25, 3, 64, 64)
    assert torch.equal(torch.cat(_stream(codec, latents, reference, cuts), 1), whole)


@torch.no_grad()
@pytest.mark.parametrize("cuts", [(7,), (2, 5)])
def test_halved_it_draws_almost_the_same_however_it_is_cut(codec, cuts):
    reference = torch.rand(1, 3, 64, 64) * 2 - 1
    latents = torch.randn(1, 7, 4, 8, 8)
    exact, _ = codec.decode(latents, codec.start_decoding(reference))
    halved = copy.deepcopy(codec)
    halved.halve()
    frames = torch.cat(_stream(halved, latents, reference, cuts), 1)
    assert frames.dtype == torch.float32
    assert 0 < float((frames - exact).abs().mean()) < 0.01
    whole, _ = halved.decode(latents, halved.start_decoding(reference))
    assert torch.equal(frames, whole)


@torch.no_grad()
def test_a_seeded_stream_blinks_by_its_plan_however_it_is_cut(codec):
    blinking = TinyCodec(dataclasses.replace(SMALL, blink_every_frames=12))
    blinking.load_state_dict(codec.state_dict())
    reference = torch.rand(1, 3, 64, 64) * 2 - 1
    latents = torch.randn(1, 7, 4, 8, 8)
    whole, _ = blinking.decode(latents, blinking.start_decoding(reference, seed=3))
    state, parts = blinking.start_decoding(reference, seed=3), []
    for part in latents.split(2, 1):
        frames, state = blinking.decode(part, state)
        parts.append(frames)
    assert torch.equal(torch.cat(parts, 1), whole)
    other, _ = blinking.decode(latents, blinking.start_decoding(reference, seed=4))
    assert not torch.equal(other, whole)
    # Without a seed, or without a rate, only the latents tell of eyes.
    plain, _ = codec.decode(latents, codec.start_decoding(reference))
    for unseeded in (
        blinking.decode(latents, blinking.start_decoding(reference))[0],
        codec.decode(latents, codec.start_decoding(reference, seed=3))[0],
    ):
        assert torch.equal(unseeded, plain)
    assert torch.equal(whole[:, 0], plain[:, 0])  # the picture itself comes first
    assert not torch.equal(whole, plain)


@torch.no_grad()
def test_blocks_of_three_latents_are_9_12_12_frames(codec):
    chunks = _stream(codec, torch.randn(1, 9, 4, 8, 8), torch.zeros(1, 3, 64, 64), (3, 3, 3))
    assert [chunk.shape[1] for chunk in chunks] == [9, 12, 12]


@torch.no_grad()
def test_the_memory_reaches_the_next_latent_and_a_state_is_not_changed(codec):
    reference = torch.rand(1, 3, 64, 64) * 2 - 1
    first, other = torch.randn(2, 1, 1, 4, 8, 8)
    later = torch.randn(1, 1, 4, 8, 8)
    _, after_first = codec.decode(first, codec.start_decoding(reference))
    _, after_other = codec.decode(other, codec.start_decoding(reference))
    kept = [memory.clone() for memory in after_first.memories]
    from_first, _ = codec.decode(later, after_first)
    from_other, _ = codec.decode(later, after_other)
    assert not torch.equal(from_first, from_other)
    assert all(map(torch.equal, kept, after_first.memories))


@torch.no_grad()
def test_together_equals_the_stream(codec):
    reference = torch.rand(2, 3, 64, 64) * 2 - 1
    latents = torch.randn(2, 4, 4, 8, 8)
    drawing, _ = codec.draw(latents, codec.start_decoding(reference), torch.zeros(2, 4, 4))
    together = drawing.frames.unflatten(1, (4, 3)).unflatten(0, (2, 4))
    streamed, _ = codec.decode(latents, codec.start_decoding(reference))
    expected = torch.cat([together[:, 0, 3:], together[:, 1:].flatten(1, 2)], 1).clamp(-1, 1)
    assert torch.allclose(streamed, expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("detail_scale", [1, 2])
def test_above_its_line_a_stream_only_moves_the_picture_unless_it_blinks(codec, detail_scale):
    every = {"detail_scale": detail_scale, "flow_seam_limit": 0.0, "seam_limit": 0.0}
    restrained, free = (
        TinyCodec(dataclasses.replace(codec.config, draw_below=line, **every)).eval()
        for line in (0.5, 0.0)
    )
    restrained.load_state_dict(codec.state_dict())
    free.load_state_dict(codec.state_dict())
    size = 64 * detail_scale
    reference = torch.rand(1, 3, size, size) * 2 - 1
    latents = torch.randn(1, 3, 4, 8, 8)
    upper, lower = slice(0, size * 46 // 100), slice(size * 54 // 100, size)
    for lids, drawn_above in ((np.zeros(9), False), (np.full(9, 0.3), True)):
        calm, wild = (
            model.decode(
                latents,
                dataclasses.replace(model.start_decoding(reference), blinks=KnownBlinks(lids)),
            )[0]
            for model in (restrained, free)
        )
        if detail_scale == 1:  # larger frames are blurred across the line by a pixel or two
            mouth = slice(size * 29 // 100, size * 71 // 100)
            assert torch.allclose(calm[..., lower, mouth], wild[..., lower, mouth], atol=1e-6)
        assert torch.allclose(calm[..., upper, :], wild[..., upper, :], atol=1e-5) is drawn_above


@torch.no_grad()
def test_a_still_reference_is_the_zero_latent_of_an_untrained_codec():
    codec = TinyCodec(SMALL).eval()
    reference = torch.rand(1, 3, 64, 64) * 2 - 1
    latents = codec.encode(reference[:, None].expand(-1, 5, -1, -1, -1), reference)
    assert latents.abs().max() < 1e-5


@torch.no_grad()
def test_the_untrained_decoder_copies_the_reference_for_zero_latents():
    codec = TinyCodec(SMALL).eval()
    reference = torch.rand(1, 3, 64, 64) * 2 - 1
    frames, _ = codec.decode(torch.zeros(1, 2, 4, 8, 8), codec.start_decoding(reference))
    expected = reference[:, None].expand(-1, 5, -1, -1, -1)
    assert torch.allclose(frames, expected, atol=1e-5)  # sampled at whole pixels, to rounding


@torch.no_grad()
def test_encoding_groups_frames_as_the_wan_vae_does(codec):
    reference = torch.rand(1, 3, 64, 64) * 2 - 1
    frames = torch.rand(1, 9, 3, 64, 64) * 2 - 1
    latents = codec.encode(frames, reference)
    assert latents.shape == (1, 3, 4, 8, 8)
    changed = frames.clone()
    changed[:, 5:] = 0  # frames 5..8 belong to latent 2 alone
    again = codec.encode(changed, reference)
    assert torch.equal(again[:, :2], latents[:, :2])
    assert not torch.equal(again[:, 2], latents[:, 2])


def test_wrong_sizes_are_refused(codec):
    with pytest.raises(ConfigError, match="8 frames are not 4T-3"):
        codec.encode(torch.zeros(1, 8, 3, 64, 64), torch.zeros(1, 3, 64, 64))
    with pytest.raises(ConfigError, match="no key 'widht'"):
        from_dict(TinyCodecConfig, {"widht": 3})
    assert from_dict(TinyCodecConfig, to_dict(TinyCodecConfig())) == TinyCodecConfig()


@torch.no_grad()
def test_a_larger_reference_gives_larger_frames_and_its_own_detail(codec):
    large = TinyCodec(dataclasses.replace(codec.config, detail_scale=2)).eval()
    large.load_state_dict(codec.state_dict())
    assert large.spatial_stride == 2 * codec.spatial_stride
    coarse_noise = torch.rand(1, 3, 9, 9) * 2 - 1  # as smooth as pictures are
    picture = torch.nn.functional.interpolate(coarse_noise, (128, 128), mode="bicubic")
    small = torch.nn.functional.avg_pool2d(picture, 2)
    latents = torch.randn(1, 3, 4, 8, 8) * 0.2
    assert torch.allclose(large.reference_latents(picture), codec.reference_latents(small))
    fine, _ = large.decode(latents, large.start_decoding(picture))
    coarse, _ = codec.decode(latents, codec.start_decoding(small))
    assert fine.shape == (1, 9, 3, 128, 128)
    pooled = torch.nn.functional.avg_pool2d(fine[0], 2)
    assert (pooled - coarse[0]).abs().mean() < 0.5 * (coarse[0] - small).abs().mean()
    cuts = torch.cat(_stream(large, latents, picture, (1, 2)), 1)
    assert torch.equal(cuts, fine)


@torch.no_grad()
def test_what_rests_keeps_every_pixel_of_a_larger_reference():
    codec = TinyCodec(dataclasses.replace(SMALL, detail_scale=2)).eval()
    codec.warp.to_copied.bias.fill_(20)  # everything is copied
    picture = torch.rand(1, 3, 128, 128) * 2 - 1
    frames, _ = codec.decode(torch.zeros(1, 2, 4, 8, 8), codec.start_decoding(picture))
    assert torch.allclose(frames, picture[:, None].expand(-1, 5, -1, -1, -1), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("limits", [{"seam_limit": 0.1}, {"flow_seam_limit": 1.0}])
@pytest.mark.parametrize("detail_scale", [1, 2])
def test_a_stream_with_smooth_joints_may_be_cut_anywhere(codec, limits, detail_scale):
    plain_config = dataclasses.replace(codec.config, detail_scale=detail_scale)
    state, codec = codec.state_dict(), TinyCodec(plain_config).eval()
    codec.load_state_dict(state)
    smooth = TinyCodec(dataclasses.replace(plain_config, **limits)).eval()
    smooth.load_state_dict(state)
    size_px = 64 * detail_scale
    reference = torch.rand(1, 3, size_px, size_px) * 2 - 1
    latents = torch.randn(1, 7, 4, 8, 8) * 0.1
    whole, _ = smooth.decode(latents, smooth.start_decoding(reference))
    plain, _ = codec.decode(latents, codec.start_decoding(reference))
    assert not torch.equal(whole, plain)
    assert torch.equal(whole[:, 4::4], plain[:, 4::4])  # a latent's last frame is its own
    assert torch.equal(torch.cat(_stream(smooth, latents, reference, (1, 2, 4)), 1), whole)


@torch.no_grad()
def test_motion_goes_on_smoothly_from_latent_to_latent():
    """A ramp that every latent moves by another amount: frames between two amounts are between."""
    codec = TinyCodec(dataclasses.replace(SMALL, flow_seam_limit=4.0)).eval()
    for parameter in codec.warp.parameters():
        parameter.zero_()
    codec.warp.to_copied.bias.fill_(20)  # everything is copied
    ramp = torch.linspace(-0.5, 0.5, 64).expand(1, 3, 64, 64)
    state, shown = codec.start_decoding(ramp), []
    for shift in (0.0, 0.02, 0.02):
        codec.warp.to_flow.bias.fill_(shift)
        frames, state = codec.decode(torch.zeros(1, 1, 4, 8, 8), state)
        shown.append(frames[0, :, 0, 32, 32])
    steps = torch.cat(shown).diff().tolist()
    assert steps[0] > 0
    assert steps[:4] == pytest.approx([steps[0]] * 4, rel=0.1)  # no jump, four equal steps
    assert steps[4:] == pytest.approx([0.0] * 4, abs=1e-5)
