"""The DMD stage: who is updated when, what the scores see, and resuming bit for bit."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from presets import AVATARFORCING
from toy_distillation import CLEAN_CONFIG, CONFIG, SHAPE, toy_batch, toy_clips, toy_model

from joyflash_cli.errors import CheckpointError, ConfigError
from joyflash_cli.sampler.settings import TINY
from joyflash_cli.studio.training.batches import draw_rollout_batch
from joyflash_cli.studio.training.dmd import DmdConfig, DmdTraining, train_dmd
from joyflash_cli.studio.training.loop import resume, save
from joyflash_cli.studio.training.rollout import RolloutConfig
from joyflash_cli.studio.training.scores import Guidance, score_segment
from joyflash_cli.studio.training.session import Session
from joyflash_cli.studio.training.trainer import OptimiserConfig

RATES = OptimiserConfig(
    learning_rate=1e-3, warmup_steps=0, flat_share=1.0, betas=(0.9, 0.999), ema_decay=0.9
)
TOY = DmdConfig(
    steps=6, generator=RATES, fake_score=RATES, generator_every=2, batch=2, bf16=False,
    rollout=RolloutConfig(num_blocks=(2, 3)), score_frames=7, guidance=Guidance(2.0, 2.0),
    log_every=3,
)  # fmt: skip


def start(out_dir, config=TOY, *, form=CONFIG, **changes):
    return DmdTraining(
        config,
        generator=toy_model(form, 1),
        fake_score=toy_model(form, 2),
        real_score=changes.pop("real_score", toy_model(form, 3)),
        clips=toy_clips(num_frames=5),
        profile=TINY,
        out_dir=out_dir,
        **changes,
    )


def weights(training):
    runs = (training.generator, training.fake_score)
    return [p.detach().clone() for run in runs for p in (*run.module.parameters(),
            *run.average.parameters())]  # fmt: skip


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    whole = start(tmp_path / "whole")
    train_dmd(whole)
    killed = start(tmp_path / "killed")
    for _ in range(3):
        killed.take_step()
    save(killed)
    killed.take_step()  # lost with the process
    resumed = start(tmp_path / "killed", session=Session(resumes=True))
    assert not equal(weights(resumed), weights(whole))
    train_dmd(resumed)
    assert resumed.step == whole.step == 6
    assert equal(weights(resumed), weights(whole))
    for name in ("generator", "fake_score"):
        ours, theirs = (getattr(t, name).optimiser.state_dict() for t in (resumed, whole))
        for index, moments in theirs["state"].items():
            assert equal(list(moments.values()), list(ours["state"][index].values()))


def test_resuming_against_another_teacher_is_refused(tmp_path):
    training = start(tmp_path)
    save(training)
    with pytest.raises(CheckpointError, match="another real score"):
        resume(start(tmp_path, real_score=toy_model(CONFIG, 4)))
    assert not resume(start(tmp_path / "elsewhere"))


def test_each_network_is_updated_in_its_turn_and_the_teacher_never(tmp_path):
    training = start(tmp_path, dataclasses.replace(TOY, generator_every=3, critic_every=2))
    real = [p.clone() for p in training.real_score.parameters()]
    moved = []
    for _ in range(6):
        before = [[p.clone() for p in run.module.parameters()]
                  for run in (training.generator, training.fake_score)]  # fmt: skip
        training.take_step()
        after = [list(run.module.parameters()) for run in (training.generator, training.fake_score)]
        moved.append(tuple(not equal(*pair) for pair in zip(before, after, strict=True)))
    assert moved == [
        (True, True), (False, False), (False, True), (True, False), (False, True), (False, False),
    ]  # fmt: skip
    assert equal(real, list(training.real_score.parameters()))


@pytest.mark.parametrize("form", [CONFIG, CLEAN_CONFIG])
def test_the_generator_loss_reaches_the_generator_alone(form, tmp_path):
    training = start(tmp_path, form=form)
    loss, strength = training.generator_loss([0, 1])
    loss.backward()
    assert strength > 0
    assert all(p.grad is not None and p.grad.any() for p in training.generator.module.parameters())
    others = (training.fake_score.module, training.real_score)
    assert all(p.grad is None for network in others for p in network.parameters())
    training.generator.optimiser.zero_grad()
    training.critic_loss([0, 1]).backward()
    assert all(p.grad is None for p in training.generator.module.parameters())
    assert all(p.grad.any() for p in training.fake_score.module.parameters())


def test_the_mean_over_split_streams_is_the_whole(tmp_path):
    """What data-parallel processes need: a stream's part does not depend on who computes it."""

    def gradients(streams):
        training = start(tmp_path)
        (training.generator_loss(streams)[0] + training.critic_loss(streams)).backward()
        modules = (training.generator.module, training.fake_score.module)
        return [p.grad for module in modules for p in module.parameters()]

    whole, first, second = gradients([0, 1]), gradients([0]), gradients([1])
    assert not equal(first, second)
    for total, a, b in zip(whole, first, second, strict=True):
        torch.testing.assert_close((a + b) / 2, total, atol=1e-4, rtol=1e-3)


def test_bfloat16_runs_and_logs(tmp_path):
    lines = []
    config = dataclasses.replace(TOY, bf16=True, steps=3)
    session = Session(on_log=lines.append)
    training = start(tmp_path, config, form=CLEAN_CONFIG, session=session)
    train_dmd(training)
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert written == lines
    assert {"step", "generator_loss", "generator_gradient", "fake_score_loss"} <= set(lines[0])
    assert all(value == value for value in lines[0].values())


def test_the_scores_see_the_end_of_a_long_rollout():
    batch, latents = toy_batch(4), torch.randn(1, 12, *SHAPE)
    segment, counts = score_segment(latents, batch, TINY, max_frames=12)
    assert segment.given.tolist() == [True] + 11 * [False]
    assert not counts[:, 0].any()
    assert counts[:, 1:].all()
    segment, counts = score_segment(latents, batch, TINY, max_frames=7)
    assert segment.positions.tolist() == list(range(5, 12))
    assert torch.equal(segment.latents, latents[:, 5:])
    assert torch.equal(segment.conditioning.audio, batch.conditioning.audio[:, 5:12])
    assert not segment.given.any()
    assert counts.all()


class PictureCodec:
    """A latent is its picture, four times; decoding needs no reference."""

    latent_channels, spatial_stride = SHAPE[0], 1

    def start_decoding(self, reference, *, seed=None):
        assert reference.shape == (1, 3, *SHAPE[1:])
        assert not reference.any()

    def decode(self, latents, state):
        return latents[:, :, :3].repeat_interleave(4, dim=1)[:, 3:], state

    def encode(self, frames, reference):
        return torch.cat([frames, frames[:, :, :1]], dim=2)

    def reference_latents(self, reference):
        return self.encode(reference[:, None], reference)[:, 0] + 1


def test_the_picture_before_a_slice_is_its_last_one():
    batch = toy_batch(4)
    latents = torch.rand(1, 12, *SHAPE, generator=torch.Generator().manual_seed(0))
    segment, counts = score_segment(latents, batch, TINY, max_frames=7, codec=PictureCodec())
    assert torch.equal(segment.latents[:, 0, :3], latents[:, 5, :3])
    assert torch.equal(segment.latents[:, 1:], latents[:, 6:])
    image = segment.conditioning.image
    assert torch.equal(image[:, 3, :3], latents[:, 5, :3] + 1)
    assert image[:, :, -1].flatten(2).amax(2).tolist() == [[0.0] + 6 * [1.0]]
    assert not counts[:, :3].any()
    assert counts[:, 3:].all()


def test_a_prefix_frame_is_given():
    batch = toy_batch(4)
    segment, counts = score_segment(torch.randn(1, 8, *SHAPE), batch, AVATARFORCING, max_frames=21)
    assert segment.latents.shape[1] == 9
    assert torch.equal(segment.latents[:, 0], batch.reference_latent)
    assert counts.any(dim=(0, 2, 3, 4)).tolist() == [False] + 8 * [True]


def test_a_voice_goes_on_where_a_clip_is_too_short():
    clips = toy_clips(num_frames=5)
    batch = draw_rollout_batch(
        clips, np.random.default_rng(0), size=2, num_blocks=4, profile=TINY, streams=range(2)
    )
    audio = batch.conditioning.audio
    assert audio.shape[1] == 12
    assert len(batch) == 2
    for stream in range(2):
        assert any(torch.equal(audio[stream, :5], clips.audio[clip]) for clip in (0, 2))
        assert any(torch.equal(audio[stream, 5:9], clips.audio[other][1:]) for other in (0, 2))
        mask = batch.conditioning.image[stream, :, -1]
        assert (mask[0] == 0).all()
        assert (mask[1:] == 1).all()


def test_intervals_must_come():
    with pytest.raises(ConfigError, match="critic_every"):
        DmdConfig(critic_every=0)
