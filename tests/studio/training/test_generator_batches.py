"""Training layouts are the sampler's own windows."""

import collections
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from presets import AVATARFORCING, LIVETALK
from toy_distillation import toy_stream

from joyflash_cli.sampler.psb import noise_levels, scheduled_iterations
from joyflash_cli.sampler.settings import PAPER, TINY
from joyflash_cli.studio.training.generator_batches import clip_layout, rolling_layout

BLOCK = TINY.block_frames


def _layouts(count=400):
    rng = np.random.default_rng(0)
    return [rolling_layout(rng, TINY, num_blocks=7, mci_noise=0.7) for _ in range(count)]


def _window(layout):
    """Block index and sigma of each learnt block, from its last frame."""
    learnt = layout.frames[layout.learns].tolist()
    blocks = sorted({frame // BLOCK for frame in learnt})
    sigma = {int(f) // BLOCK: float(s) for f, s in zip(layout.frames, layout.sigmas, strict=True)}
    return tuple((block, round(sigma[block], 6)) for block in blocks)


def test_every_layout_is_a_window_of_the_schedule():
    levels = noise_levels(TINY)
    allowed = set()
    for num_blocks in range(1, 8):
        for iteration in scheduled_iterations(num_blocks, TINY):
            before = [(block, level) for block, (level, _) in iteration.levels.items()]
            allowed.add(tuple((b, round(levels[g].sigma, 6)) for b, g in before))
    # A later window is the same with its blocks counted on; the clip ends before the stream does.
    steady = [(0.625, 0.833333, 0.9375, 1.0)[:n] for n in range(1, 5)]
    found = {_window(layout) for layout in _layouts()}
    for window in found:
        sigmas = tuple(sigma for _, sigma in window)
        assert window in allowed or any(
            np.allclose(sigmas, expected, atol=1e-5)
            for expected in steady
            if len(expected) == len(sigmas)
        )
    assert len({len(window) for window in found}) == 4


def _sampled(profile, num_blocks):
    """What each iteration of a real stream attends: latent frames and where they are seen."""
    found = set()
    # A clean block that is computed along is seen like a cached one; the layout has it in front.
    profile = dataclasses.replace(profile, clean_kv="extra-pass")
    with torch.inference_mode():
        stream = toy_stream(profile, 13)
        stream.source = dataclasses.replace(stream.source, num_blocks=num_blocks)
        while True:
            stream.admit_block()
            if not stream.window:
                return found
            result = stream.window_pass()
            places = result.positions
            num_context = len(places.context) - len(stream.cache.sink)
            first = profile.block_start(stream.window[0].index)
            stop = profile.block_start(stream.window[-1].index + 1)
            seen = [
                *stream.cache.sink,
                *stream.cache.context[len(stream.cache.context) - num_context :],
                *range(first - (len(places.own) - (stop - first)), stop),
            ]
            levels = [b.level for b in stream.window for _ in range(profile.block_frames)]
            sigmas = [round(stream.levels[level].sigma, 6) for level in levels]
            found.add((tuple(seen), (*places.context, *places.own), tuple(sigmas)))
            stream.finish_iteration(result)


@pytest.mark.parametrize(
    "profile",
    [
        TINY,
        PAPER,
        LIVETALK,
        AVATARFORCING,
        dataclasses.replace(PAPER, window_blocks=2),
        dataclasses.replace(PAPER, position_policy="absolute"),
        dataclasses.replace(PAPER, sink_frames=6, context_frames=4, attention_span_frames=22),
        dataclasses.replace(PAPER, sink_frames=0, mci=False),
    ],
    ids=["tiny", "paper", "livetalk", "avatarforcing", "narrow", "absolute", "odd", "no-sink"],
)
def test_a_layout_sees_what_the_sampler_sees_where_the_sampler_sees_it(profile):
    num_blocks = 9
    expected = _sampled(profile, num_blocks)
    rng, drawn = np.random.default_rng(1), set()
    for _ in range(600):
        layout = rolling_layout(rng, profile, num_blocks=num_blocks, mci_noise=0.7)
        window = [
            i for i, t in enumerate(layout.timesteps.tolist())
            if layout.learns[i] or (layout.frames[i] == 0 and t > 0)
        ]  # fmt: skip
        sigmas = [round(float(layout.timesteps[i]) / 1000, 6) for i in window]
        drawn.add((tuple(layout.frames.tolist()), tuple(layout.positions.tolist()), tuple(sigmas)))
    known = collections.defaultdict(list)
    for *places, sigmas in expected:
        known[tuple(places)].append(sigmas)
    assert {places[:2] for places in drawn} == set(known)
    for *places, sigmas in drawn:
        assert np.isclose(sigmas, known[tuple(places)], atol=5e-3).all(-1).any()


def test_context_is_clean_and_sees_only_what_was_before_it():
    for layout in _layouts(100):
        if layout.mask is None:
            continue
        window = layout.learns
        first_learnt = int(torch.nonzero(window)[0])
        context = torch.arange(len(window)) < first_learnt - 1  # the condition frame is between
        assert (layout.timesteps[context] == 0).all()
        assert not layout.mask[context][:, window].any()
        assert layout.mask[window].all()
        blocks = layout.frames // BLOCK
        later = blocks[None, :] > blocks[:, None]
        assert not (layout.mask & later & context[:, None]).any()


def test_the_condition_frame_stands_before_the_window_at_the_level_of_its_first_block():
    noised = 0
    with_condition = 0
    for layout in _layouts():
        first = int(layout.frames[layout.learns].min())
        if first == 1:  # the stream's first window has no clean block behind it
            assert not layout.learns[0]
            assert layout.sigmas[0] == 0
            assert layout.timesteps[0] == layout.timesteps[1]
            continue
        place = int(torch.nonzero(layout.learns)[0]) - 1
        assert layout.frames[place] == first - 1
        with_condition += 1
        if layout.sigmas[place] > 0:
            noised += 1
            assert layout.sigmas[place] == layout.sigmas[place + 1]
    assert noised / with_condition == pytest.approx(0.7, abs=0.08)


@given(st.integers(0, 10), st.integers(1, 6))
def test_a_clip_layout_has_one_level_and_never_learns_the_reference(start, count):
    layout = clip_layout(start, count)
    assert layout.mask is None
    assert (layout.learns == (layout.frames > 0)).all()
    assert torch.equal(layout.sigmas, layout.learns.float())
    assert (layout.timesteps == 1000).all()
