"""Two gloo processes with half of the batch each train what one process trains.

Parameters agree to 2e-5 after two steps of learning rate 1e-3: sums over the batch are made in
another order, and AdamW's first steps are as large as the learning rate whatever the gradient.
"""

import dataclasses
import functools
import multiprocessing
import traceback

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from toy_distillation import CONFIG, SHAPE, toy_clips, toy_model

from joyflash_cli.model.config import FaceAttentionConfig
from joyflash_cli.sampler.settings import TINY
from joyflash_cli.studio.training.dmd import DmdConfig, DmdTraining, train_dmd
from joyflash_cli.studio.training.loop import resume, train_network
from joyflash_cli.studio.training.ode import OdeConfig, OdeLoss
from joyflash_cli.studio.training.rollout import RolloutConfig
from joyflash_cli.studio.training.scores import Guidance
from joyflash_cli.studio.training.session import Processes, Session, TrainingStopped
from joyflash_cli.studio.training.sharding import load_frozen, recompute_layers
from joyflash_cli.studio.training.state import load_state
from joyflash_cli.studio.training.teacher import TeacherConfig, TeacherLoss
from joyflash_cli.studio.training.trainer import OptimiserConfig, TrainingRun
from joyflash_cli.types import Conditioning

TOLERANCE = 2e-5
SIZES = dataclasses.replace(
    CONFIG, text_dim=6, text_len=4, face_attention=FaceAttentionConfig(face_dim=5, num_tokens=2)
)
RATES = OptimiserConfig(
    steps=2, learning_rate=1e-3, warmup_steps=0, schedule="constant", betas=(0.9, 0.999)
)
DMD = DmdConfig(
    steps=2, generator=RATES, fake_score=RATES, generator_every=1, batch=2, bf16=False,
    rollout=RolloutConfig(num_blocks=(2, 2)), score_frames=7, guidance=Guidance(3.0, 2.0),
)  # fmt: skip


def clips():
    generator = torch.Generator().manual_seed(7)
    return dataclasses.replace(
        toy_clips(num_frames=7),
        text=torch.randn(4, 3, 6, generator=generator),
        face=torch.randn(4, 5, generator=generator),
    )


def pairs():
    generator = torch.Generator().manual_seed(6)
    return torch.randn(4, 9, 6, *SHAPE, generator=generator), Conditioning(
        image=torch.randn(4, 6, 5, *SHAPE[1:], generator=generator),
        audio=torch.randn(4, 6, 2, 3, generator=generator),
        text=torch.randn(4, 3, 6, generator=generator),
        face=torch.randn(4, 5, generator=generator),
    )


def teacher(session, folder):
    config = TeacherConfig(optimiser=RATES, batch=4, accumulate=2, num_frames=5, bf16=False)
    loss = TeacherLoss(config, clips(), TINY)
    run = TrainingRun(folder, toy_model(SIZES), RATES, seed=0, session=session)
    train_network(run, loss, config)
    return run.averaged_weights()


def ode(session, folder):
    config = OdeConfig(optimiser=RATES, batch=4, bf16=False)
    student = toy_model(SIZES)
    recompute_layers(student)
    loss = OdeLoss(config, *pairs(), TINY)
    run = TrainingRun(folder, student, RATES, seed=0, session=session)
    train_network(run, loss, config)
    return run.averaged_weights()


def dmd_training(session, folder):
    teacher_path = folder.parent / "real.safetensors"
    generator = toy_model(SIZES, 1)
    recompute_layers(generator)
    return DmdTraining(
        DMD, generator=generator, fake_score=toy_model(SIZES, 2),
        real_score=load_frozen(SIZES, teacher_path, session.processes, dtype=torch.float32),
        clips=clips(), profile=TINY, out_dir=folder, session=session,
    )  # fmt: skip


def dmd(session, folder):
    training = train_dmd(dmd_training(session, folder))
    fake = training.fake_score.averaged_weights()
    return training.generator.averaged_weights() | {f"fake.{k}": v for k, v in fake.items()}


def interrupted_dmd(session, folder):
    """Stops after the first step in one of the processes, and goes on from the saved state."""
    stops = session.processes.rank == session.processes.world_size - 1
    training = dmd_training(
        dataclasses.replace(session, should_stop=lambda: stops and training.step == 1), folder
    )
    with pytest.raises(TrainingStopped):
        train_dmd(training)
    again = train_dmd(dmd_training(dataclasses.replace(session, resumes=True), folder))
    fake = again.fake_score.averaged_weights()
    return again.generator.averaged_weights() | {f"fake.{k}": v for k, v in fake.items()}


def other_number_of_processes(session, folder):
    """Goes on from a state that one process saved."""
    training = dmd_training(session, folder.parent / "one")
    assert resume(training)
    assert training.step == 2
    fake = training.fake_score.averaged_weights()
    return training.generator.averaged_weights() | {f"fake.{k}": v for k, v in fake.items()}


JOBS = (teacher, ode, dmd, interrupted_dmd, other_number_of_processes)


def in_process(rank, folder, errors):
    from torch.distributed.device_mesh import init_device_mesh

    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
        )
        mesh = init_device_mesh("cpu", (2,))
        session = Session(processes=Processes(rank, 2, torch.device("cpu"), mesh))
        for job in JOBS:
            weights = job(session, folder / f"two-{job.__name__}")
            if rank == 0:
                save_file(weights, folder / f"{job.__name__}.safetensors")
        dist.destroy_process_group()
    except BaseException:
        errors.put(traceback.format_exc())
        raise


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything that two processes train, in one start of the processes."""
    folder = tmp_path_factory.mktemp("two")
    save_file(toy_model(SIZES, 3).state_dict(), folder / "real.safetensors")
    whole = train_dmd(dmd_training(Session(), folder / "one"))
    fake = whole.fake_score.averaged_weights()
    alone = whole.generator.averaged_weights() | {f"fake.{k}": v for k, v in fake.items()}
    save_file(alone, folder / "alone.safetensors")
    context = multiprocessing.get_context("spawn")
    errors = context.Queue()
    workers = [context.Process(target=in_process, args=(r, folder, errors)) for r in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
    told = "" if errors.empty() else errors.get()
    assert [worker.exitcode for worker in workers] == [0, 0], told
    return folder


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("job", [teacher, ode])
def test_a_stage_of_one_network(job, folder):
    alone = job(Session(), folder / f"one-{job.__name__}")
    start = toy_model(SIZES).state_dict()
    assert largest_difference(alone, start) > 50 * TOLERANCE
    assert largest_difference(alone, load_file(folder / f"{job.__name__}.safetensors")) < TOLERANCE


@pytest.mark.parametrize("job", [dmd, interrupted_dmd, other_number_of_processes])
def test_the_distillation(job, folder):
    alone = load_file(folder / "alone.safetensors")
    assert largest_difference(alone, load_file(folder / f"{job.__name__}.safetensors")) < TOLERANCE


def test_an_interrupted_distillation_is_the_uninterrupted_one_to_the_last_bit(folder):
    whole, parts = (load_file(folder / f"{n}.safetensors") for n in ("dmd", "interrupted_dmd"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_one_process_goes_on_from_the_state_of_two(folder):
    state = load_state(folder / "two-dmd", Processes())
    whole = dmd_training(Session(), folder / "two-dmd")
    assert resume(whole)
    assert state["step"] == whole.step == 2
    weights = load_file(folder / "dmd.safetensors")
    ours = whole.generator.averaged_weights()
    assert all(torch.equal(ours[name], weights[name]) for name in ours)


def test_half_of_the_batch_alone_would_not_do(folder):
    """The equality is not trivial: a process's own samples give other weights."""
    loss = TeacherLoss(
        TeacherConfig(optimiser=RATES, batch=4, num_frames=5, bf16=False), clips(), TINY
    )
    config = dataclasses.replace(loss.config, batch=2)
    run = TrainingRun(folder / "half", toy_model(SIZES), RATES, seed=0)
    train_network(run, functools.partial(_first_half, loss), config)
    together = load_file(folder / "teacher.safetensors")
    assert largest_difference(run.averaged_weights(), together) > 50 * TOLERANCE


def _first_half(loss, network, step, streams):
    return loss(network, step, [0, 1])
