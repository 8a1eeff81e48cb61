import dataclasses

import numpy as np
import pytest
import torch
from toy_distillation import CLEAN_CONFIG, CONFIG, SHAPE, toy_clips, toy_model

from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.settings import TINY
from joyflash_cli.studio.training.generator import fresh_transformer
from joyflash_cli.studio.training.loop import train_network
from joyflash_cli.studio.training.session import Session
from joyflash_cli.studio.training.teacher import (
    ConditionDropout,
    TeacherConfig,
    TeacherLoss,
    draw_clip_segment,
    drop_conditioning,
)
from joyflash_cli.studio.training.trainer import OptimiserConfig, TrainingRun
from joyflash_cli.types import Conditioning

TOY = TeacherConfig(
    optimiser=OptimiserConfig(steps=6, learning_rate=1e-3, warmup_steps=1), batch=4, num_frames=5,
    bf16=False, log_every=2,
)  # fmt: skip


def test_each_kind_is_dropped_by_itself_and_as_often_as_asked():
    ones = Conditioning(
        image=torch.ones(4000, 1, 5, 1, 1), text=torch.ones(4000, 2, 3),
        audio=torch.ones(4000, 1, 2, 3), face=torch.ones(4000, 8),
    )  # fmt: skip
    dropout = ConditionDropout(text=0.1, audio=0.2, face=0.3, reference=0.4)
    sizes = {"latent_channels": 4, "batch": 4000, "streams": range(4000)}
    dropped = drop_conditioning(ones, dropout, np.random.default_rng(0), **sizes)
    gone = {}
    for kind in ("text", "audio", "face"):
        value = getattr(dropped, kind).flatten(1)
        assert ((value == 0).all(1) | (value == 1).all(1)).all()
        gone[kind] = value[:, 0] == 0
        assert float(gone[kind].float().mean()) == pytest.approx(getattr(dropout, kind), abs=0.03)
    assert float((gone["text"] & gone["audio"]).float().mean()) == pytest.approx(0.02, abs=0.01)
    assert (dropped.image[:, :, 4] == 1).all()
    assert float((dropped.image[:, :, :4] == 0).float().mean()) == pytest.approx(0.4, abs=0.03)
    absent = Conditioning(audio=ones.audio)
    absent = drop_conditioning(absent, dropout, np.random.default_rng(0), **sizes)
    assert absent.text is absent.image is absent.face is None


def test_clips_come_from_their_reference_or_from_the_middle():
    clips = toy_clips(6, num_frames=9)
    starts = set()
    for seed in range(30):
        segment = draw_clip_segment(clips, TOY, TINY, np.random.default_rng(seed), range(4))
        start = int(segment.positions[0])
        starts.add(start)
        assert segment.given.tolist() == [start == 0] + 4 * [False]
        assert bool((segment.conditioning.image[:, 0, -1] == 0).all()) == (start == 0)
        assert (segment.conditioning.image[:, 1:, -1] == 1).all()
        for i in range(4):
            where = [
                c
                for c in range(6)
                if torch.equal(clips.latents[c, start : start + 5], segment.latents[i])
            ]
            assert len(where) == 1
            assert torch.equal(
                segment.conditioning.audio[i], clips.audio[where[0], start : start + 5]
            )
            assert start > 0 or where[0] % 2 == 0
    assert starts == {0, 1, 2, 3, 4}
    long = dataclasses.replace(TOY, num_frames=10)
    with pytest.raises(ConfigError, match="9 latent frames"):
        draw_clip_segment(clips, long, TINY, np.random.default_rng(0), range(4))


@pytest.mark.parametrize("form", [CONFIG, CLEAN_CONFIG])
def test_the_teacher_learns_and_resumes_bit_for_bit(form, tmp_path):
    clips, losses = toy_clips(2, num_frames=5), []

    def train(name, steps, resumes=False):
        optimiser = dataclasses.replace(TOY.optimiser, steps=steps, flat_share=1.0)
        config = dataclasses.replace(TOY, optimiser=optimiser)
        session = Session(on_log=lambda x: losses.append(x["loss"]), resumes=resumes)
        run = TrainingRun(tmp_path / name, toy_model(form), optimiser, seed=0, session=session)
        return train_network(run, TeacherLoss(config, clips, TINY), config)

    whole = train("whole", 6)
    assert len(losses) == 3
    train("killed", 3)
    resumed = train("killed", 6, resumes=True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_fresh_clean_teacher_has_the_energy_of_the_latents():
    clips = toy_clips()
    clips = dataclasses.replace(clips, latents=3 * clips.latents)
    teacher = fresh_transformer(CLEAN_CONFIG, clips, seed=0)
    assert float(teacher.output_scale.mean()) == pytest.approx(3, abs=0.4)
    assert teacher.output_scale.numel() == SHAPE[0] * 4
    assert not hasattr(fresh_transformer(CONFIG, clips, seed=0), "output_scale")


def test_a_teacher_of_other_latents_is_refused():
    clips = toy_clips()
    sizes = dataclasses.replace(CLEAN_CONFIG, out_channels=CLEAN_CONFIG.out_channels - 1)
    with pytest.raises(ConfigError, match="the encoded clips have") as caught:
        fresh_transformer(sizes, clips, seed=0)
    assert f"out_channels = {CLEAN_CONFIG.out_channels}" in caught.value.hint
