"""Tiles of the Wan VAE: where they lie, how they are averaged, and that one tile is the VAE."""

import pytest
import torch

from joyflash_cli.codec.tiling import (
    DECODE_STRIDE,
    DECODE_TILE,
    ENCODE_STRIDE,
    ENCODE_TILE,
    TiledWanCodec,
    tiles_of,
)
from joyflash_cli.codec.wan import WanCodec, wan_vae_module
from joyflash_cli.errors import ConfigError


def test_no_tile_begins_where_the_one_before_reached_the_end():
    rows = [tile[:2] for tile in tiles_of((50, 10), DECODE_TILE, DECODE_STRIDE)]
    assert rows == [(0, 30), (15, 45), (30, 50)]
    assert [tile[:2] for tile in tiles_of((45, 10), DECODE_TILE, DECODE_STRIDE)] == [
        (0, 30), (15, 45),
    ]  # fmt: skip
    assert len(tiles_of((30, 52), DECODE_TILE, DECODE_STRIDE)) == 1
    # 400 x 720 pixels, the size that OmniAvatar is sampled at most.
    assert len(tiles_of((400, 720), ENCODE_TILE, ENCODE_STRIDE)) == 2 * 5


class PlainTiles(TiledWanCodec):
    """A decoder that enlarges, and counts the latents of every tile."""

    _num_decoder_convs = 0

    def __init__(self):
        self.spatial_stride, self.calls = 8, 0

    def decode_unclamped(self, latents, state):
        self.calls += 1
        value = 1.0 if self.calls % 2 else 3.0
        return torch.full((1, 1, 3, latents.shape[-2] * 8, latents.shape[-1] * 8), value), state


def test_where_tiles_overlap_their_weights_rise_from_the_inner_edges():
    codec = PlainTiles()
    frames, state = codec.decode(torch.zeros(1, 1, 1, 40, 2), codec.start_decoding())
    column = frames[0, 0, 0, :, 0]
    ramp = torch.arange(1, 121) / 120
    first, second = ramp.flip(0), ramp
    expected = (first * 1.0 + second * 3.0) / (first + second)
    assert (column[:120] == 1).all()
    assert torch.allclose(column[120:240], expected.clamp(-1, 1))
    assert (column[240:] == 1).all()  # 3, clamped after the mean
    assert state.num_latents == 1


@pytest.fixture(scope="module")
def codecs():
    pytest.importorskip("diffusers")
    torch.manual_seed(2)
    vae = wan_vae_module({"base_dim": 4, "z_dim": 16, "num_res_blocks": 1})
    return WanCodec(vae), TiledWanCodec(vae)


def test_up_to_one_tile_it_is_the_vae_itself(codecs):
    plain, tiled = codecs
    clip = torch.rand(1, 5, 3, 16, 24) * 2 - 1
    latents = tiled.encode(clip, clip[:, 0])
    assert torch.equal(latents, plain.encode(clip, clip[:, 0]))
    frames, _ = tiled.decode(latents, tiled.start_decoding())
    assert torch.equal(frames, plain.decode(latents, plain.start_decoding())[0])


def test_a_clip_of_several_tiles_is_decoded_in_one_call(codecs):
    plain, tiled = codecs
    latents = torch.randn(1, 2, 16, 2, 54)
    frames, state = tiled.decode(latents, tiled.start_decoding())
    assert frames.shape == (1, 5, 3, 16, 432)
    first, _ = plain.decode(latents[..., :52], plain.start_decoding())
    # Left of where the second tile begins there is the first one alone.
    torch.testing.assert_close(frames[..., :208], first[..., :208])
    with pytest.raises(ConfigError, match="continued"):
        tiled.decode(latents, state)
