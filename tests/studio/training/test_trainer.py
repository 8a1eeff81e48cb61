"""One trainer: schedules, averages, parts of a batch, metrics, TensorBoard, sheets in the log."""

import dataclasses
import json

import pytest
import torch
from toy_distillation import toy_clips, toy_model

from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.settings import TINY
from joyflash_cli.studio.training.loop import train_network
from joyflash_cli.studio.training.session import (
    ALONE,
    Processes,
    Session,
    TrainingStopped,
    split_streams,
)
from joyflash_cli.studio.training.teacher import TeacherConfig, TeacherLoss
from joyflash_cli.studio.training.trainer import OptimiserConfig, TrainingRun, learning_rate_scale

RATES = OptimiserConfig(steps=6, learning_rate=1e-3, warmup_steps=0)
TOY = TeacherConfig(optimiser=RATES, batch=4, num_frames=5, bf16=False, log_every=2)


def train(folder, config=TOY, session=ALONE):
    loss = TeacherLoss(config, toy_clips(num_frames=5), TINY)
    run = TrainingRun(folder, toy_model(), config.optimiser, seed=0, session=session)
    train_network(run, loss, config)
    return run


def test_schedules_hold_and_fall():
    steps = range(0, 101, 25)

    def scales(schedule, **changes):
        config = OptimiserConfig(steps=100, warmup_steps=0, schedule=schedule, **changes)
        return [learning_rate_scale(step, config) for step in steps]

    assert scales("constant", flat_share=0.1) == [1.0] * 5
    assert scales("linear", flat_share=0.0) == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    half = 0.5**0.5
    assert scales("cosine", flat_share=0.0) == pytest.approx(
        [1, 0.5 + half / 2, 0.5, 0.5 - half / 2, 0]
    )
    assert scales("cosine", flat_share=0.5) == pytest.approx([1, 1, 1, 0.5, 0])
    warm = OptimiserConfig(steps=100, warmup_steps=10, schedule="constant")
    assert learning_rate_scale(4, warm) == 0.5


def test_accumulated_parts_are_one_batch(tmp_path):
    whole = train(tmp_path / "whole")
    parts = train(tmp_path / "parts", dataclasses.replace(TOY, accumulate=4))
    for a, b in zip(whole.module.parameters(), parts.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)
    lines = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").open()]
        for name in ("whole", "parts")
    ]
    assert lines[0] == pytest.approx(lines[1], rel=1e-4)
    with pytest.raises(ConfigError, match="4 samples a process"):
        split_streams(range(4), 3)


def test_the_average_may_begin_late(tmp_path):
    config = dataclasses.replace(TOY, optimiser=dataclasses.replace(RATES, ema_from_step=6))
    run = train(tmp_path, config)
    for a, b in zip(run.module.parameters(), run.averaged.parameters(), strict=True):
        assert torch.equal(a, b)
    run = train(tmp_path / "early")
    pairs = zip(run.module.parameters(), run.averaged.parameters(), strict=True)
    assert any((a != b).any() for a, b in pairs)


def test_the_gradient_is_clipped(tmp_path):
    layer = torch.nn.Linear(2, 1, bias=False)
    config = dataclasses.replace(RATES, clip_norm=0.5)
    run = TrainingRun(tmp_path, layer, config, seed=0)
    run.backward(100 * layer(torch.ones(1, 2)).sum())
    clipped = []
    run.optimiser.register_step_pre_hook(lambda *_: clipped.append(layer.weight.grad.norm()))
    run.apply()
    assert float(clipped[0]) == pytest.approx(0.5, rel=1e-4)
    assert run.take_means()["norm"] == pytest.approx(100 * 2**0.5)


def test_a_step_without_finite_gradients_changes_nothing(tmp_path):
    layer = torch.nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    run = TrainingRun(tmp_path, layer, RATES, seed=0)
    run.backward(layer(torch.full((1, 2), float("inf"))).sum())
    run.apply()
    assert run.step == 1
    assert torch.equal(layer.weight, before)


def test_lines_of_lost_steps_are_forgotten(tmp_path):
    stop = Session(should_stop=lambda: True)
    with pytest.raises(TrainingStopped, match="step 1"):
        train(tmp_path, session=stop)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "loss": 9.0}\n{"step": 4, "loss": 9.0}\n{"step": 6, "lo')
    train(tmp_path, session=Session(resumes=True))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == [1, 2, 4, 6]
    assert lines[2]["loss"] != 9.0
    assert {"learning_rate", "norm", "elapsed_s"} <= set(lines[3])


def test_validation_comes_in_time_and_enters_the_log(tmp_path):
    seen, lines = [], []

    def validation(network, directory, step):
        seen.append((step, directory == tmp_path, not network.training or True))
        return {"validation_psnr_db": 10.0 + step}

    session = Session(validation=validation, validate_every=4, on_log=lines.append)
    train(tmp_path, session=session)
    assert [step for step, *_ in seen] == [4, 6]
    assert all(right for _, right, _ in seen)
    assert [line.get("validation_psnr_db") for line in lines] == [None, 14.0, 16.0]


def test_states_are_saved_by_steps_and_old_ones_removed(tmp_path):
    train(tmp_path, session=Session(save_every_steps=2))
    states = [path.name for path in tmp_path.glob("state-*")]
    assert states == ["state-00000006"]
    assert json.loads((tmp_path / "state.json").read_text())["processes"] == 1
    assert not list(tmp_path.rglob("*.pt")) + list(tmp_path.rglob("*.part"))


def test_tensorboard_is_written_where_it_is_wanted(tmp_path):
    pytest.importorskip("tensorboard")
    train(tmp_path / "with", session=Session(tensorboard=True))
    train(tmp_path / "without")
    assert list((tmp_path / "with" / "tensorboard").glob("events*"))
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_a_bar_is_drawn_where_it_is_wanted(tmp_path, capsys):
    train(tmp_path, session=Session(progress=True))
    assert "6/6" in capsys.readouterr().err


def test_a_batch_must_be_shared_out_evenly():
    assert Processes(1, 2).own(6) == (3, 4, 5)
    with pytest.raises(ConfigError, match="A batch of 5"):
        Processes(0, 2).own(5)


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"learning_rate": 0.0}, {"flat_share": 1.5}, {"clip_norm": -1.0}]
)
def test_impossible_rates_are_named(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        OptimiserConfig(**change)
