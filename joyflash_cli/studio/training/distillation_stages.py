"""The stages of the paper's pipeline: data set, teacher, ODE pairs, ODE initialisation, DMD.

They run in one process or in as many as ``torchrun`` starts, from the same configuration.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.studio.training.dataset_latents import (
    build_dataset,
    load_encoders,
    resolve_encoders,
)
from joyflash_cli.studio.training.dmd import DmdTraining, student_profile, train_dmd
from joyflash_cli.studio.training.generator import fresh_transformer
from joyflash_cli.studio.training.latents import LatentClips, load_latents
from joyflash_cli.studio.training.loop import StepLoss, train_network
from joyflash_cli.studio.training.ode import OdeLoss, build_ode_pairs, load_ode_pairs
from joyflash_cli.studio.training.run_config import (
    DMD_RESULT,
    ODE_RESULT,
    TEACHER_RESULT,
    RunConfig,
)
from joyflash_cli.studio.training.run_parts import (
    codec_of,
    front_end_of,
    lip_reader_of,
    read_geometry,
    weight_files,
)
from joyflash_cli.studio.training.session import Processes, Session
from joyflash_cli.studio.training.sharding import load_frozen, load_weights, recompute_layers
from joyflash_cli.studio.training.teacher import TeacherLoss
from joyflash_cli.studio.training.tensors import write_tensors
from joyflash_cli.studio.training.trainer import NetworkStage, TrainingRun
from joyflash_cli.studio.training.validation import (
    Sampler,
    Validation,
    cached_clips,
    rendered_clips,
    stream_sampler,
    teacher_sampler,
)


def _trained(
    run: RunConfig, name: str, sizes: TransformerConfig, processes: Processes
) -> CausalTransformer:
    """A network that will be trained, with its first weights, whole, on its device."""
    model = CausalTransformer(sizes)
    load_weights(model, weight_files(run, name))
    return _placed(run, model, processes)


def _placed(run: RunConfig, model: CausalTransformer, processes: Processes) -> CausalTransformer:
    if run.recompute_layers:
        recompute_layers(model)
    return model.to(processes.device)


def _frozen(
    run: RunConfig, name: str, sizes: TransformerConfig, processes: Processes, *, bf16: bool
) -> CausalTransformer:
    """The teacher where it is only read. A sharded one is kept in the precision it runs in."""
    is_large = processes.mesh is not None and bf16
    dtype = torch.bfloat16 if is_large else torch.float32
    return load_frozen(sizes, weight_files(run, name), processes, dtype=dtype)


def _save_weights(state: dict[str, Tensor], path: Path, processes: Processes) -> None:
    """Write whole weights once."""
    if processes.is_first:
        write_tensors(path, state)
    processes.wait()


def training_clips(run: RunConfig) -> LatentClips:
    """The encoded clips of a run, and the negative prompt of the checkpoint that encoded them.

    Raises:
        DataError: If there are none.
        CheckpointError: If the negative prompt has no states and cannot be encoded.
    """
    clips = replace(load_latents(run.path(f"{run.latents_dir}/train")), place=run.reference)
    files = resolve_encoders(run.dataset.checkpoint)
    prompt = files.description.conditioning.negative_prompt
    if clips.text is None or not prompt:
        return clips
    from joyflash_cli.render.prompts import text_states

    states = text_states(files, prompt, torch.device("cpu"))
    states = functional.pad(states, (0, 0, 0, clips.text.shape[1] - states.shape[1]))
    return replace(clips, negative_text=states.to(clips.text.dtype).expand_as(clips.text))


def with_validation(run: RunConfig, session: Session, sample: Sampler) -> Session:
    """The session with picture sheets, where the run wants them."""
    config = run.validation
    if not config.every:
        return session
    if run.dataset.path:
        codec = load_encoders(run.dataset.checkpoint, torch.device("cpu")).codec
        folder = run.path(f"{run.latents_dir}/held_out")
        pictures, clips = cached_clips(folder, num_clips=config.num_clips)
    else:
        codec, store = codec_of(run), ClipStore(run.path("clips/held_out"))
        pictures, clips = rendered_clips(
            store, codec, front_end_of(run), num_clips=config.num_clips
        )
    validation = Validation(
        replace(clips, place=run.reference), pictures, codec, sample,
        columns=config.columns, is_first=session.processes.is_first,
    )  # fmt: skip
    return replace(session, validation=validation, validate_every=config.every)


def dataset(run: RunConfig, session: Session) -> None:
    """Encode the user's videos.

    Raises:
        ConfigError: If the configuration names none.
    """
    if not run.dataset.path:
        raise ConfigError("[dataset] path is not set", hint="name a folder of videos or tar shards")
    processes = session.processes
    encoders = load_encoders(run.dataset.checkpoint, processes.device)
    build_dataset(
        run.dataset,
        encoders,
        out_dir=run.path(run.latents_dir),
        processes=processes,
        report=session.on_log,
    )


def teacher(run: RunConfig, session: Session) -> None:
    """Train the bidirectional teacher."""
    geometry, clips = read_geometry(run), training_clips(run)
    if run.weights.teacher_start:
        network = _trained(run, run.weights.teacher_start, geometry.teacher, session.processes)
    else:
        fresh = fresh_transformer(geometry.teacher, clips, seed=run.teacher.seed)
        network = _placed(run, fresh, session.processes)
    sample = teacher_sampler(geometry.sampler, run.validation)
    loss = TeacherLoss(run.teacher, clips, geometry.sampler)
    session = with_validation(run, session, sample)
    _train(network, loss, run.teacher, run.path(TEACHER_RESULT), session)


def ode_pairs(run: RunConfig, session: Session) -> None:
    """Walk the teacher's ODE."""
    geometry = read_geometry(run)
    build_ode_pairs(
        run.ode_pairs,
        teacher=_frozen(
            run, run.weights.teacher, geometry.teacher, session.processes, bf16=run.ode_pairs.bf16
        ),
        clips=training_clips(run),
        profile=geometry.sampler,
        out_dir=run.path("ode-pairs"),
        on_shard=session.shards("shard"),
        processes=session.processes,
    )


def ode(run: RunConfig, session: Session) -> None:
    """Initialise the causal student."""
    geometry = read_geometry(run)
    network = _trained(run, run.weights.ode_start, geometry.student, session.processes)
    sample = stream_sampler(student_profile(geometry.sampler), run.validation)
    loss = OdeLoss(run.ode, *load_ode_pairs(run.path("ode-pairs")), geometry.sampler)
    session = with_validation(run, session, sample)
    _train(network, loss, run.ode, run.path(ODE_RESULT), session)


def _train(
    network: CausalTransformer,
    loss: StepLoss[CausalTransformer],
    config: NetworkStage,
    result: Path,
    session: Session,
) -> None:
    """Train a network to the end, in the folder of its result."""
    training = TrainingRun(
        result.parent, network, config.optimiser, seed=config.seed, session=session
    )
    train_network(training, loss, config)
    _save_weights(training.averaged_weights(), result, session.processes)


def dmd(run: RunConfig, session: Session) -> None:
    """Distil the generator."""
    distil(run, session, run.path(DMD_RESULT))


def distil(run: RunConfig, session: Session, result: Path) -> None:
    """Train the distillation of a run to the end, in the folder of its result."""
    geometry, processes = read_geometry(run), session.processes
    profile = run.dmd.ablation.profile(student_profile(geometry.sampler))
    sample = stream_sampler(profile, run.validation)
    codec = None
    if run.dmd.reencode_first:
        codec = load_encoders(run.dataset.checkpoint, processes.device).codec
    training = DmdTraining(
        run.dmd,
        generator=_trained(run, run.weights.dmd_start, geometry.student, processes),
        fake_score=_trained(run, run.weights.fake_score, geometry.student, processes),
        real_score=_frozen(
            run, run.weights.teacher, geometry.teacher, processes, bf16=run.dmd.bf16
        ),
        clips=training_clips(run),
        profile=geometry.sampler,
        out_dir=result.parent,
        session=with_validation(run, session, sample),
        codec=codec,
        reader=lip_reader_of(run) if run.dmd.lip_share else None,
    )
    train_dmd(training)
    _save_weights(training.generator.averaged_weights(), result, processes)
