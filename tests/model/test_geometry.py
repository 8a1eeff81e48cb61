"""Every picture size gives its own tokens, positions and cache; no number is taken for granted."""

import pytest
import torch
from file_conditioning import FileConditioning
from presets import AVATAR_1_3B, JOYAVATAR_1_3B, LIVETALK

from joyflash_cli.conditioning.frames import AudioWindowRule
from joyflash_cli.conditioning.stream import StaticConditioning
from joyflash_cli.media.inputs.framing import SizeRule
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.embeddings import patchify, unpatchify
from joyflash_cli.model.rope import rope_pair_split, rope_rotations
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.stream import Stream

VAE_STRIDE = 8
SIZES = {(832, 480): 1560, (480, 832): 1560, (512, 512): 1024, (640, 640): 1600, (624, 448): 1092}


@pytest.mark.parametrize(("size", "tokens"), SIZES.items(), ids=str)
def test_tokens_of_a_frame(size, tokens):
    width, height = SizeRule(sizes=(size,)).frame_size(*size)
    rows, columns = height // VAE_STRIDE, width // VAE_STRIDE
    for config in (AVATAR_1_3B, JOYAVATAR_1_3B):
        assert config.tokens_per_frame(rows, columns) == tokens
    latents = torch.randn(1, 1, 2, rows, columns)
    patches = patchify(latents, (2, 2))
    assert patches.shape == (1, 1, tokens, 8)
    # The order of tokens is row by row, whatever the shape.
    wide = patches.view(1, 1, rows // 2, columns // 2, 2, 2, 2)
    assert torch.equal(wide[0, 0, 1, 3, :, 0, 1], latents[0, 0, :, 2, 7])


@pytest.mark.parametrize(("size", "tokens"), SIZES.items(), ids=str)
def test_rotary_angles_follow_row_and_column(size, tokens):
    columns, rows = size[0] // 16, size[1] // 16
    turns = rope_rotations(torch.tensor([0, 7]), (rows, columns), head_dim=128)
    assert turns.shape == (2, tokens, 64)
    time_pairs, row_pairs, column_pairs = rope_pair_split(128)
    assert (time_pairs, row_pairs, column_pairs) == (22, 21, 21)
    for row, column in ((0, 0), (rows - 1, 0), (0, columns - 1), (rows - 1, columns - 1), (3, 5)):
        token = row * columns + column
        for pair, index, start, num in (
            (4, 7, 0, time_pairs),
            (3, row, time_pairs, row_pairs),
            (2, column, time_pairs + row_pairs, column_pairs),
        ):
            angle = torch.tensor(index * 10_000 ** (-pair / num), dtype=torch.float64)
            assert abs(turns[1, token, start + pair].real - angle.cos()) < 1e-6
            assert abs(turns[1, token, start + pair].imag - angle.sin()) < 1e-6


@pytest.mark.parametrize(("size", "tokens"), SIZES.items(), ids=str)
def test_the_cache_holds_whole_frames_of_this_size(size, tokens):
    config = TransformerConfig(
        dim=8, num_layers=1, num_heads=1, ffn_dim=8, in_channels=33, freq_dim=8
    )
    shape = (16, size[1] // VAE_STRIDE, size[0] // VAE_STRIDE)
    reference = torch.zeros(1, *shape)
    source = FileConditioning(
        None, AudioWindowRule("video-rows"), static=StaticConditioning(), num_blocks=1,
        block_frames=3,
    )  # fmt: skip
    stream = Stream.start(
        CausalTransformer(config), LIVETALK, source=source, noise=SeededNoise(0, shape),
        latent_shape=shape, reference_latent=reference,
    )  # fmt: skip
    assert stream.cache.tokens_per_frame == tokens
    assert stream.cache.num_bytes == 2 * (9 + 3) * tokens * 8 * 4


@pytest.mark.parametrize("shape", [(30, 52), (52, 30), (32, 32)])
def test_frames_come_back_in_their_shape(shape):
    """The head's layout undone: rows stay rows for wide and for tall frames."""
    rows, columns = shape
    values = torch.arange(rows * columns * 4.0).view(1, 1, rows * columns, 4)
    frame = unpatchify(values, shape, (2, 2))
    assert frame.shape == (1, 1, 1, 2 * rows, 2 * columns)
    assert frame[0, 0, 0, 0, 2] == values[0, 0, 1, 0]
    assert frame[0, 0, 0, 2, 0] == values[0, 0, columns, 0]
    assert frame[0, 0, 0, 1, 1] == values[0, 0, 0, 3]
