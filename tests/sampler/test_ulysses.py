"""Processes that share every pass give what one process gives, and send what the formula says."""

import dataclasses
import multiprocessing
import traceback

import pytest
import torch
import torch.distributed as dist
from toy_stream import ROLLING, toy_stream

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.config import (
    AudioAttentionConfig,
    AudioPackConfig,
    FaceAttentionConfig,
    TransformerConfig,
)
from joyflash_cli.model.initialisation import initialise
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.model.ulysses import Ranks
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.settings import PAPER
from joyflash_cli.types import Conditioning

TOLERANCE = 1e-5
SHAPE = (4, 4, 6)  # six tokens: four ranks have two, two, one and one of every frame
ATTENTION = TransformerConfig(
    dim=48, num_layers=1, num_heads=4, ffn_dim=32, freq_dim=16, in_channels=9, out_channels=4,
    text_dim=6, text_len=4, image_token_dim=7, face_attention=FaceAttentionConfig(5, 2),
    audio_attention=AudioAttentionConfig(audio_dim=3, tokens_per_latent=2, projection_dim=12),
    audio_modulation=True, position_embedding=6, prediction="clean",
)  # fmt: skip
PACK = TransformerConfig(
    dim=48, num_layers=4, num_heads=4, ffn_dim=32, freq_dim=16, in_channels=9, out_channels=4,
    text_dim=6, text_len=4, audio_pack=AudioPackConfig(audio_dim=3, rows_per_latent=2),
)  # fmt: skip
RESET = {"reset_threshold": 24, "reset_rule": "periodic"}
STREAMS = {
    "attention": (ATTENTION, dataclasses.replace(PAPER, first_frame_rule="replace", **RESET), 24),
    "pack": (
        PACK,
        dataclasses.replace(
            ROLLING, clean_kv="next-pass", first_frame_rule="prefix", audio_guidance=2.0, **RESET
        ),
        8,
    ),
}
"""Transformer, sampler and number of blocks."""


class Source:
    """Every kind of conditioning, drawn per latent frame where it changes."""

    def __init__(self, num_blocks=0):
        self.num_blocks = num_blocks

    def has_block(self, block_index):
        return block_index < self.num_blocks

    def frames(self, start, stop):
        def drawn(*shape, seed=5):
            return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

        def per_frame(*shape):
            return torch.stack([drawn(*shape, seed=frame) for frame in range(start, stop)])[None]

        mask = torch.ones(stop - start, 2, dtype=torch.bool)
        mask[-1, 1] = stop < 3 * self.num_blocks  # the last frame hears beyond the end of the sound
        return Conditioning(
            image=per_frame(5, *SHAPE[1:]), audio=per_frame(2, 3), audio_mask=mask,
            text=drawn(1, 3, 6), image_tokens=drawn(1, 5, 7), face=drawn(1, 5),
        )  # fmt: skip


def sampled(name, ranks=None):
    """Latents of all blocks, index bases of their passes, and bytes in cache."""
    config, settings, num_blocks = STREAMS[name]
    generator = torch.Generator().manual_seed(0)
    model = initialise(CausalTransformer(config), generator).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    if ranks is not None:
        model.share_with(ranks)
    stream = toy_stream(
        settings, num_blocks, transformer=model, source=Source(num_blocks),
        noise=SeededNoise(0, SHAPE), latent_shape=SHAPE,
        reference_latent=torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(9)),
    )  # fmt: skip
    blocks, bases = [], []
    for block in stream.blocks():
        blocks.append(block.latents)
        bases.append(stream.base)
    return torch.cat(blocks), bases, stream.cache.num_bytes


def sent_in_a_pass(ranks):
    """Bytes that this rank sends to others in one pass over five frames."""
    model = CausalTransformer(ATTENTION).requires_grad_(False)
    model.share_with(ranks)
    sent, exchange = [], dist.all_to_all_single

    def counted(received, given, received_sizes, given_sizes, **more):
        kept = given_sizes[ranks.rank]
        sent.append((given.numel() - kept) * given.element_size())
        return exchange(received, given, received_sizes, given_sizes, **more)

    dist.all_to_all_single = counted
    latents = torch.zeros(1, 5, *SHAPE)
    model(latents, torch.zeros(1, 5), Source().frames(0, 5), positions=torch.arange(5))
    dist.all_to_all_single = exchange
    return sum(sent)


def in_process(rank, size, folder):
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting{size}", rank=rank, world_size=size
        )
        ranks = Ranks(rank, size)
        names = STREAMS if size == 2 else ["attention"]
        results = {name: sampled(name, ranks) for name in names}
        results["sent"] = sent_in_a_pass(ranks)
        torch.save(results, f"{folder}/{size}-{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        raise


@pytest.fixture(scope="module")
def alone():
    return {name: sampled(name) for name in STREAMS}


@pytest.fixture(scope="module", params=[2, 4])
def shared(request, tmp_path_factory):
    """What each of two or four processes has."""
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=in_process, args=(rank, request.param, folder))
        for rank in range(request.param)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * request.param
    return [torch.load(folder / f"{request.param}-{rank}.pt") for rank in range(request.param)]


def test_every_rank_has_the_latents_of_one_process(alone, shared):
    for name in shared[0].keys() & STREAMS.keys():
        latents, bases, cache_bytes = alone[name]
        assert len(latents) == STREAMS[name][2]
        assert latents.isfinite().all()
        assert latents.std() > 0.1
        assert len(set(bases)) >= 2  # the indices began anew
        for results in shared:
            theirs, their_bases, their_bytes = results[name]
            assert (theirs - latents).abs().max() < TOLERANCE
            assert torch.equal(theirs, shared[0][name][0])
            assert their_bases == bases
            assert their_bytes * len(shared) == cache_bytes


def test_what_ranks_send_each_other(shared):
    """Queries, keys, values and what was attended of every layer, and all predictions to all.

    Of each a rank keeps its own part.
    """
    tokens = 5 * ATTENTION.tokens_per_frame(*SHAPE[1:])
    in_layers = 4 * ATTENTION.num_layers * ATTENTION.dim // len(shared)
    predicted = ATTENTION.patch_area * ATTENTION.out_channels
    numbers = tokens * (len(shared) - 1) * (in_layers + predicted)
    assert sum(results["sent"] for results in shared) == numbers * 4  # bytes of float32


def test_ranks_that_do_not_divide_the_heads_are_refused():
    with pytest.raises(ConfigError, match="3 ranks cannot share 4 heads"):
        CausalTransformer(ATTENTION).share_with(Ranks(0, 3))
