"""ODE pairs and the ODE initialisation."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy_distillation import CLEAN_CONFIG, CONFIG, SHAPE, toy_batch, toy_clips, toy_model

from joyflash_cli.errors import ConfigError, DataError
from joyflash_cli.model.transformer import TransformerOutput
from joyflash_cli.sampler.psb import noise_levels
from joyflash_cli.sampler.settings import PAPER, TINY
from joyflash_cli.sampler.solver import flow_match_table
from joyflash_cli.studio.training.loop import train_network
from joyflash_cli.studio.training.ode import (
    OdeConfig,
    OdeLoss,
    OdePairsConfig,
    build_ode_pairs,
    causal_clean,
    draw_levels,
    load_ode_pairs,
    state_indices,
    states_at,
    teacher_states,
)
from joyflash_cli.studio.training.scores import Guidance, Segment
from joyflash_cli.studio.training.session import Session
from joyflash_cli.studio.training.trainer import OptimiserConfig, TrainingRun
from joyflash_cli.types import Conditioning

PAIRS = OdePairsConfig(
    num_pairs=5, num_steps=8, batch=2, pairs_per_shard=2, num_blocks=2, bf16=False,
    guidance=Guidance(1.0, 2.0),
)  # fmt: skip


def test_states_are_kept_exactly_at_the_samplers_levels():
    assert state_indices(PAPER, 48) == (0, 6, 12, 18, 24, 30, 36, 42)
    walked = flow_match_table(PAPER.shift, num_steps=48).sigmas
    levels = noise_levels(PAPER)
    for level, index in enumerate(state_indices(PAPER, 48)):
        assert float(walked[index]) == pytest.approx(levels[level].sigma, abs=1e-6)
    with pytest.raises(ConfigError, match="50 Euler steps"):
        state_indices(PAPER, 50)


class Oracle(nn.Module):
    """A teacher that knows the clip."""

    config = CLEAN_CONFIG

    def __init__(self, clip):
        super().__init__()
        self.clip = clip

    def forward(self, latents, timesteps, conditioning, *, positions):
        return TransformerOutput(self.clip, ())


def test_the_walk_to_a_known_clip_is_a_straight_line():
    generator = torch.Generator().manual_seed(0)
    clip, noise = (torch.randn(1, 6, *SHAPE, generator=generator) for _ in range(2))
    given = torch.arange(6) == 0
    segment = Segment(clip, toy_batch(2).frames(0, 6), torch.arange(6), given)
    states = teacher_states(
        Oracle(clip), segment, noise, profile=TINY, num_steps=48, guidance=Guidance(1, 1)
    )
    assert states.shape == (1, 9, 6, *SHAPE)
    levels = noise_levels(TINY)
    for index, level in enumerate(sorted(levels)):
        sigma = levels[level].sigma
        line = (1 - sigma) * clip + sigma * noise
        torch.testing.assert_close(states[:, index, 1:], line[:, 1:], atol=1e-4, rtol=1e-4)
        assert (states[:, index, 0] == clip[:, 0]).all()


def build(out_dir, config=PAIRS):
    done = []
    build_ode_pairs(
        config, teacher=toy_model(), clips=toy_clips(), profile=TINY, out_dir=out_dir,
        on_shard=lambda index, total: done.append((index, total)),
    )  # fmt: skip
    return done


def test_pairs_are_resumable_and_do_not_depend_on_interruptions(tmp_path):
    assert build(tmp_path) == [(1, 3), (2, 3), (3, 3)]
    shards = sorted(tmp_path.glob("pairs-*.safetensors"))
    before = [path.read_bytes() for path in shards]
    untouched = shards[0].stat().st_mtime_ns
    shards[1].unlink()
    (tmp_path / "pairs-00001.part").write_bytes(b"half a file")
    build(tmp_path)
    assert [path.read_bytes() for path in shards] == before
    assert shards[0].stat().st_mtime_ns == untouched
    states, conditioning = load_ode_pairs(tmp_path)
    assert states.shape == (5, 9, 6, *SHAPE)
    assert conditioning.image.shape[:2] == conditioning.audio.shape[:2] == (5, 6)
    # Two clips start at their reference: both come before either comes again.
    clips = torch.cat([load_file(path)["clip"] for path in shards]).tolist()
    assert sorted(clips[:2]) == sorted(clips[2:4]) == [0, 2]
    assert (states[0] != states[2]).any()


def test_pairs_of_another_configuration_are_not_mixed(tmp_path):
    build(tmp_path)
    with pytest.raises(ConfigError, match="another configuration"):
        build(tmp_path, dataclasses.replace(PAIRS, seed=1))
    with pytest.raises(ConfigError, match="21 latent frames"):
        build(tmp_path, dataclasses.replace(PAIRS, num_blocks=8))
    with pytest.raises(DataError, match="ode-pairs"):
        load_ode_pairs(tmp_path / "nothing")


def test_a_block_has_one_level_and_all_levels_come():
    states = torch.arange(9.0)[None, :, None, None, None, None].expand(2, 9, 12, *SHAPE)
    seen = set()
    for seed in range(12):
        chosen = draw_levels(9, 12, 2, TINY, np.random.default_rng(seed))
        assert (states_at(states, chosen) == chosen[..., None, None, None]).all()
        blocks = chosen.view(2, 4, 3)
        assert (blocks == blocks[..., :1]).all()
        seen |= set(chosen.flatten().tolist())
    assert seen == set(range(9))


def random_pairs(num: int, num_frames: int = 12) -> tuple[torch.Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num, 9, num_frames, *SHAPE, generator=generator), Conditioning(
        image=torch.randn(num, num_frames, 5, *SHAPE[1:], generator=generator),
        audio=torch.randn(num, num_frames, 2, 3, generator=generator),
    )


def test_the_loss_is_over_noisy_learnt_frames_only(monkeypatch):
    from joyflash_cli.studio.training import ode

    timesteps_seen, pairs = [], random_pairs(1)

    def zero(model, noisy, timesteps, conditioning, profile):
        timesteps_seen.append(timesteps)
        return torch.zeros_like(noisy)

    monkeypatch.setattr(ode, "causal_clean", zero)
    loss = OdeLoss(OdeConfig(batch=2, seed=1), *pairs, TINY)
    value = loss(toy_model(), 0, [0, 1])
    learnt = timesteps_seen[0] != 0
    assert not learnt.all()
    learnt[:, 0] = False
    clean = pairs[0][:, -1].expand(2, -1, -1, -1, -1)
    torch.testing.assert_close(value, clean.square()[learnt].mean())


@torch.no_grad()
def test_parts_of_a_batch_average_to_the_whole():
    """They learn at different numbers of frames; the mean must weigh them alike."""
    model, loss = toy_model(), OdeLoss(OdeConfig(batch=4, seed=5), *random_pairs(4), TINY)
    whole, parts = loss(model, 3, range(4)), [loss(model, 3, [i]) for i in range(4)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
    assert len({round(float(part), 4) for part in parts}) == 4


@pytest.mark.parametrize("config", [CONFIG, CLEAN_CONFIG])
@torch.no_grad()
def test_a_block_never_sees_the_next_one(config):
    model = toy_model(config)
    noisy = torch.randn(1, 9, *SHAPE, generator=torch.Generator().manual_seed(0))
    conditioning, timesteps = toy_batch(3).frames(0, 9), torch.full((1, 9), 625.0)
    before = causal_clean(model, noisy, timesteps, conditioning, TINY)
    noisy[:, 6:] += 1
    after = causal_clean(model, noisy, timesteps, conditioning, TINY)
    torch.testing.assert_close(after[:, :6], before[:, :6])
    assert (after[:, 6:] - before[:, 6:]).abs().max() > 1e-2
    noisy[:, 5] += 1
    assert (causal_clean(model, noisy, timesteps, conditioning, TINY)[:, 3] != after[:, 3]).any()


def test_the_student_learns_the_pairs(tmp_path):
    build(tmp_path / "pairs", dataclasses.replace(PAIRS, num_pairs=2))
    pairs = load_ode_pairs(tmp_path / "pairs")
    config = OdeConfig(
        optimiser=OptimiserConfig(steps=60, learning_rate=5e-3, warmup_steps=1), batch=2,
        bf16=False, log_every=10,
    )  # fmt: skip
    losses = []
    session = Session(on_log=lambda line: losses.append(line["loss"]))
    run = TrainingRun(tmp_path / "ode", toy_model(), config.optimiser, seed=0, session=session)
    train_network(run, OdeLoss(config, *pairs, TINY), config)
    assert losses[-1] < 0.6 * losses[0]
