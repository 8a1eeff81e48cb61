"""The stream as a whole: order, equality with plain loops, unbounded length, and failures."""

import dataclasses
import itertools

import pytest
import torch
from presets import AVATARFORCING, LIVETALK, ROLLINGFORCING
from toy_stream import ROLLING, SHAPE, FakeTransformer, ToySource, toy_stream
from toy_stream import toy_transformer as make_transformer

from joyflash_cli.errors import ConfigError, DeviceError
from joyflash_cli.model.transformer import Context
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.psb import noise_levels
from joyflash_cli.sampler.settings import PAPER
from joyflash_cli.sampler.solver import add_noise, clean_from_flow
from joyflash_cli.sampler.stream import Stream


def stream(profile, num_blocks, *, noise=None, source=None, transformer=None, **changes):
    return Stream.start(
        transformer or make_transformer(),
        profile,
        source=source or ToySource(num_blocks),
        noise=noise or SeededNoise(0, SHAPE),
        latent_shape=SHAPE,
        **changes,
    ).blocks()


def latents(profile, num_blocks, **changes) -> torch.Tensor:
    blocks = list(stream(profile, num_blocks, **changes))
    assert [block.index for block in blocks] == list(range(num_blocks))
    return torch.cat([block.latents for block in blocks], dim=1)


@pytest.mark.parametrize("num_blocks", [1, 2, 6])
def test_blocks_come_in_order_with_their_steps(num_blocks):
    blocks = list(stream(PAPER, num_blocks))
    assert [block.num_steps for block in blocks] == [8, 7, 6, 5, 4, 4][:num_blocks]
    assert [block.iteration for block in blocks] == list(range(8, 8 + num_blocks))
    assert all(block.latents.shape == (1, 3, *SHAPE) for block in blocks)


def test_a_block_is_handed_out_before_the_next_is_made():
    source = ToySource(100)
    blocks = stream(PAPER, 100, source=source)
    next(blocks)
    # The first pass after it would ask for the fifth block.
    assert max(stop for _, stop in source.asked) == 12


@torch.inference_mode()
def test_without_additions_it_is_rolling_forcing():
    model, noise, levels = make_transformer(), SeededNoise(3, SHAPE), noise_levels(ROLLING)
    source, num_blocks = ToySource(7), 7
    # Rolling Forcing in ten lines: all clean keys in lists, positions counted from the stream.
    window, kept, out = {}, [], []
    for i in range(num_blocks + 3):
        if i < num_blocks:
            window[i] = noise.initial(i, 3)
        first, frames = min(window), 3 * len(window)
        past = kept[:1] + kept[1:][-2:]
        steps = [levels[2 * (i - b)] for b in window for _ in range(3)]
        x0 = predict(model, torch.cat(list(window.values()), 1), steps, source, first, frames, past)
        for b, x in zip(list(window), x0.chunk(len(window), 1), strict=True):
            if i - b == 3:
                out.append(x)
                store = predict(model, x, [levels[8]] * 3, source, b, 3, past, keys=True)
                del window[b]
            else:
                level = 2 * (i - b) + 2
                window[b] = add_noise(x, noise.renoise(b, level, 3), levels[level].sigma)
        if i >= 3:
            kept.append(store)
    expected = torch.cat(out, dim=1)
    assert torch.allclose(latents(ROLLING, 7, noise=noise), expected, atol=1e-5)


def predict(model, x, steps, source, first, frames, past, *, keys=False):
    """One plain pass with the given clean blocks in front, at consecutive positions."""
    lead = 3 * len(past)
    context = None
    if past:
        layers = zip(*past, strict=True)
        joined = tuple(tuple(torch.cat(t, 1) for t in zip(*ly, strict=True)) for ly in layers)
        context = Context(joined, torch.arange(lead))
    timesteps = torch.tensor([[s.timestep for s in steps]])
    conditioning = source.frames(3 * first, 3 * first + frames)
    positions = torch.arange(lead, lead + frames)
    output = model(x, timesteps, conditioning, positions=positions, context=context)
    if keys:
        return output.keys_values
    sigmas = torch.tensor([s.sigma for s in steps])[None, :, None, None, None]
    return clean_from_flow(x, output.prediction, sigmas)


def test_reset_threshold_cannot_be_seen_but_a_fixed_sink_can():
    num_blocks = 35  # beyond the last threshold
    expected = latents(PAPER, num_blocks)
    assert expected.isfinite().all()
    resets = [(21, "pinned"), (27, "periodic"), (27, "pinned"), (100, "periodic")]
    for threshold, rule in resets:
        profile = dataclasses.replace(PAPER, reset_threshold=threshold, reset_rule=rule)
        assert torch.allclose(latents(profile, num_blocks), expected, atol=1e-5), (threshold, rule)
    fixed = latents(dataclasses.replace(PAPER, position_policy="absolute"), num_blocks)
    assert (fixed - expected).abs().max() > 1e-3


@torch.inference_mode()
def test_more_than_1024_latent_frames_in_constant_memory():
    # The paper's layout with blocks four times as long, so that fewer passes get there.
    profile = dataclasses.replace(
        PAPER, block_frames=12, sink_frames=12, context_frames=24, attention_span_frames=84
    )
    stream = toy_stream(profile, 88)
    sizes, last = set(), None
    for block in stream.iterate():
        sizes.add(stream.cache.num_bytes)
        last = block or last
        assert len(stream.cache.sink) + len(stream.cache.context) <= 36
        assert len(stream.window) <= 4
    assert len(sizes) == 1
    assert last.index == 87
    assert stream.cache.sink == list(range(12))
    assert stream.cache.context == list(range(1020, 1044))  # nobody sees the last block
    assert last.latents.isfinite().all()


@pytest.mark.parametrize("profile", [LIVETALK, AVATARFORCING, ROLLINGFORCING], ids=str)
def test_other_checkpoints_by_profile_alone(profile):
    reference = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    out = latents(profile, 7, reference_latent=reference)
    assert out.shape[1] == 7 * profile.block_frames
    assert out.isfinite().all()
    assert torch.equal(out[:, 0], reference) == (profile.first_frame_rule == "replace")


def test_prefix_reference_is_the_sink_and_blocks_start_behind_it():
    source = ToySource(3)
    with torch.inference_mode():
        stream = toy_stream(AVATARFORCING, 3, source=source)
        assert stream.cache.sink == [0]
        next(stream.iterate())
    assert source.asked == [(0, 1), (1, 5)]


def test_first_frame_rule_needs_a_reference():
    with pytest.raises(ConfigError, match="reference"):
        next(stream(LIVETALK, 1))


def test_replaced_frame_is_in_every_input_of_block_zero_only():
    fake = FakeTransformer(lambda t: torch.zeros_like(t))
    reference = torch.full((1, *SHAPE), 5.0)
    list(stream(LIVETALK, 2, transformer=fake, reference_latent=reference))
    is_reference = [bool((x[:, 0] == 5).all()) for x in fake.latents]
    # Four steps and the clean pass of each block.
    assert is_reference == [True] * 5 + [False] * 5
    assert [int(t[0, 0]) for t in fake.timesteps[:5]] == [1000, 936, 832, 624, 0]


def test_emitted_latents_are_the_prediction_of_the_last_step():
    fake = FakeTransformer(lambda t: t)
    blocks = list(stream(PAPER, 5, transformer=fake))
    # Block 0 ends on a sub-step, the others on the last main step; the clean pass says 0.
    assert [round(float(b.latents.mean()), 3) for b in blocks] == [416.667, *[625.0] * 4]


def test_clean_keys_by_extra_pass_or_from_the_last_pass():
    passes = {}
    for rule in ("extra-pass", "last-pass"):
        fake = FakeTransformer(lambda t: torch.zeros_like(t))
        list(stream(dataclasses.replace(PAPER, clean_kv=rule), 5, transformer=fake))
        passes[rule] = len(fake.timesteps)
    assert passes == {"extra-pass": 12 + 5, "last-pass": 12}
    extra, last = (
        latents(dataclasses.replace(PAPER, clean_kv=rule), 5)
        for rule in ("extra-pass", "last-pass")
    )
    assert torch.equal(extra[:, :3], last[:, :3])
    assert not torch.allclose(extra[:, 3:], last[:, 3:], atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"audio_guidance": 2.0, "first_frame_rule": "prefix"},
        {"sink_frames": 4, "context_frames": 3, "attention_span_frames": 19},
        {"sink_frames": 0, "mci": False, "reset_threshold": 24, "reset_rule": "periodic"},
        {"position_policy": "absolute", "window_blocks": 2, "first_frame_rule": "replace"},
        {"position_policy": "absolute-update", "block_frames": 2, "psb": False},
        {"context_frames": 2},
    ],
)
def test_the_next_pass_gives_what_an_extra_pass_gives(changes):
    """But for the order of sums: the same queries and keys, of one pass or of two."""
    found, streams = {}, {}
    for rule in ("extra-pass", "next-pass"):
        settings = dataclasses.replace(PAPER, clean_kv=rule, **changes)
        reference = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(9))
        source = ToySource(9)
        streams[rule] = Stream.start(
            make_transformer(), settings, source=source, noise=SeededNoise(0, SHAPE),
            latent_shape=SHAPE, reference_latent=reference,
        )  # fmt: skip
        found[rule] = torch.cat([block.latents for block in streams[rule].blocks()], dim=1)
    assert torch.allclose(found["next-pass"], found["extra-pass"], atol=1e-5)
    assert settings.leads_next_pass == (settings.context_frames > 2)
    stored = settings.block_start(8 if settings.leads_next_pass else 9)
    assert streams["next-pass"].cache.context[-1] == stored - 1  # nobody sees the last block
    assert streams["extra-pass"].cache.context[-1] == settings.block_start(9) - 1


def test_the_next_pass_is_the_only_one_of_its_block():
    count = []
    model = make_transformer()
    model.register_forward_hook(lambda *_: count.append(1))
    list(stream(dataclasses.replace(PAPER, clean_kv="next-pass"), 5, transformer=model))
    assert len(count) == 12


def advanced(stream, num_iterations):
    list(itertools.islice(stream.iterate(), num_iterations))
    return stream


def snapshot(cache):
    kv = cache.read(num_sink=len(cache.sink), num_context=len(cache.context))
    return [x.clone() for pair in kv for x in pair]


@torch.inference_mode()
def test_joint_and_clean_passes_leave_the_cache_as_it_is():
    stream = advanced(toy_stream(PAPER, 9), 11)
    before = snapshot(stream.cache)
    result = stream.window_pass()
    stream.clean_pass(result.clean[:, :3], PAPER.block_start(stream.window[0].index))
    assert len(before) == 4
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(stream.cache), strict=True))


@torch.inference_mode()
def test_extra_pass_equals_one_pass_with_the_clean_block_in_front():
    stream = advanced(toy_stream(ROLLING, 8), 4)
    # Take the clean block out of the cache again and give it to the next pass as its own frames.
    clean, window = stream.clean_block, torch.cat([b.latents for b in stream.window], dim=1)
    expected = stream.window_pass()
    num_frames = 3 + window.shape[1]
    steps = [0.0] * 3 + [stream.levels[b.level].timestep for b in stream.window for _ in range(3)]
    own = torch.arange(num_frames * 2)
    mask = (own[:, None] >= 6) | (own[None, :] < 6)
    output = stream.transformer(
        torch.cat((clean, window), dim=1),
        torch.tensor([steps]),
        stream.source.frames(0, num_frames),
        positions=torch.arange(num_frames),
        mask=mask,
    )
    assert torch.allclose(output.prediction[:, 3:], expected.prediction, atol=1e-5)


class Nudged(SeededNoise):
    """Noise whose draw for one block is different."""

    def initial(self, block_index, num_frames):
        draw = super().initial(block_index, num_frames)
        return draw + 0.5 if block_index == 2 else draw


@torch.inference_mode()
def test_a_later_block_changes_the_one_before_but_no_stored_one():
    caches, blocks = [], []
    settings = dataclasses.replace(ROLLING, clean_kv="extra-pass")
    for noise in (SeededNoise(0, SHAPE), Nudged(0, SHAPE)):
        stream = toy_stream(settings, 6, noise=noise)
        run = stream.iterate()
        emitted = [next(run) for _ in range(4)]
        blocks.append(emitted[-1].latents)
        caches.append(snapshot(stream.cache))
        early = stream.window_pass()
        assert early.clean.shape[1] == 9
        before = snapshot(stream.cache)
        stream.finish_iteration(early)
        kept = [x[:, :6] for x in snapshot(stream.cache)]
        assert all(torch.equal(a[:, :6], b) for a, b in zip(before, kept, strict=True))
    # Block 2 entered before block 0 was clean, so it was seen by it.
    assert not torch.allclose(blocks[0], blocks[1], atol=1e-4)


def test_noise_of_a_block_cannot_reach_blocks_that_were_clean_before_it_entered():
    class Late(SeededNoise):
        def initial(self, block_index, num_frames):
            draw = super().initial(block_index, num_frames)
            return draw + 0.5 if block_index == 5 else draw

    plain, late = latents(PAPER, 8), latents(PAPER, 8, noise=Late(0, SHAPE))
    # Block 5 enters at iteration 10, after blocks 0 and 1 were clean.
    assert torch.equal(plain[:, :6], late[:, :6])
    assert not torch.allclose(plain[:, 6:9], late[:, 6:9], atol=1e-5)


def test_same_seed_same_latents_alone_or_in_a_batch():
    def run(streams):
        return latents(
            PAPER, 5, noise=SeededNoise(4, SHAPE, streams=streams),
            source=ToySource(5, streams=streams), batch_size=len(streams),
        )  # fmt: skip

    alone, both = run((2,)), run((1, 2))
    assert torch.equal(alone, run((2,)))
    assert torch.allclose(both[1:], alone, atol=1e-5)
    assert not torch.allclose(both[:1], alone, atol=1e-2)


def test_numbers_that_are_not_finite_name_their_block():
    calls = []

    def answer(timesteps):
        calls.append(timesteps)
        clean = torch.zeros_like(timesteps)
        if len(calls) == 4:
            clean[:, 4] = float("nan")
        return clean

    with pytest.raises(DeviceError, match="Block 1"):
        list(stream(PAPER, 3, transformer=FakeTransformer(answer)))


def test_latents_of_another_codec_are_refused():
    with pytest.raises(ConfigError, match="5 channels"):
        toy_stream(PAPER, 1, latent_shape=(5, 2, 4))


def test_a_stream_may_end_while_the_window_is_filling():
    source = ToySource(100)
    source.has_block = lambda block_index: block_index < 3
    assert [block.num_steps for block in stream(PAPER, 3, source=source)] == [8, 7, 6]


def test_bfloat16_weights_stream_with_a_bfloat16_cache():
    model = make_transformer().bfloat16()
    stream = toy_stream(PAPER, 4, transformer=model)
    blocks = [block.latents for block in stream.blocks()]
    assert stream.cache.read(num_sink=1, num_context=0)[0][0].dtype == torch.bfloat16
    assert blocks[-1].dtype == torch.float32
    exact = latents(PAPER, 4)
    assert (blocks[0] - exact[:, :3]).abs().max() < 0.2 * exact.abs().max()
