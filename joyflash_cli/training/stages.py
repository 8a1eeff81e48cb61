"""The stages of ``joyflash train``, each from one configuration file to files on disk.

Every stage reads what the ones before it wrote below the work directory and goes on where it was
stopped when run again with ``resume``.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from joyflash_cli.errors import CheckpointError, UsageError
from joyflash_cli.training.run_config import RunConfig, load_run_config

Report = Callable[[dict], None]


def _shards(report: Report, name: str) -> Callable[[int, int], None]:
    return lambda done, total: report({name: done, "of": total})


def _sources(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.data.sources import check_sources, read_sources

    packs = read_sources()
    check_sources(run.assets("."), packs)
    report({"packs": len(packs), "assets": "as in the manifest"})


def _speech(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.data.speech_build import build_speech

    build_speech(
        run.assets("speech"),
        run.path("speech/speech.npz"),
        num_utterances=run.speech.num_utterances,
        seed=run.speech.seed,
        processes=run.processes,
    )


def _clips(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.data.clips import build_clips

    for config, name in ((run.held_out_clips, "held_out"), (run.clips, "train")):
        build_clips(
            config,
            assets_dir=run.assets("heads"),
            speech_path=run.path("speech/speech.npz"),
            out_dir=run.path(f"clips/{name}"),
            processes=run.processes,
            on_shard=_shards(report, name),
        )


def _front_end(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.data.speech import load_speech
    from joyflash_cli.encoders.front_end import save_front_end
    from joyflash_cli.training.front_end import pretrain_front_end, viseme_correlations

    utterances = load_speech(run.path("speech/speech.npz"))
    front_end = pretrain_front_end(
        [u for u in utterances if u.split == "train"],
        run.front_end,
        report=lambda step, loss: report({"step": step, "loss": loss}),
    )
    save_front_end(front_end, run.path("front_end.safetensors"))
    held_out = [u for u in utterances if u.split == "held-out"]
    report({"held_out": viseme_correlations(front_end, held_out)})


def _codec(run: RunConfig, resume: bool, report: Report) -> None:
    from safetensors.torch import save_file

    from joyflash_cli.training.codec import train_codec

    codec = train_codec(
        run.codec,
        clips_dir=run.path("clips/train"),
        held_out_dir=run.path("clips/held_out"),
        out_dir=run.path("codec"),
        resume=resume,
        on_log=report,
    )
    run.path("codec").mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in codec.state_dict().items()},
        run.path("codec/codec.safetensors"),
    )


def _load_codec(run: RunConfig):
    from safetensors.torch import load_file

    from joyflash_cli.codec.tiny import TinyCodec

    codec = TinyCodec(run.codec.codec)
    codec.load_state_dict(load_file(run.path("codec/codec.safetensors")))
    return codec.eval()


def _load_front_end(run: RunConfig):
    from joyflash_cli.encoders.front_end import load_front_end

    return load_front_end(run.path("front_end.safetensors")).eval()


def _latents(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.training.latents import build_latents

    for name in ("held_out", "train"):
        build_latents(
            clips_dir=run.path(f"clips/{name}"),
            out_dir=run.path(f"latents/{name}"),
            codec=_load_codec(run),
            front_end=_load_front_end(run),
            on_shard=_shards(report, name),
        )


def _generator(run: RunConfig, resume: bool, report: Report) -> None:
    from safetensors.torch import save_file

    from joyflash_cli.training.generator import train_generator
    from joyflash_cli.training.latents import load_latents

    model = train_generator(
        run.generator,
        clips=load_latents(run.path("latents/train")),
        held_out=load_latents(run.path("latents/held_out")),
        out_dir=run.path("generator"),
        resume=resume,
        on_log=report,
    )
    save_file(model.state_dict(), run.path("generator/generator.safetensors"))


def _load_transformer(run: RunConfig, name: str, *, is_teacher: bool = False):
    """The transformer of a weights file below the work directory.

    Raises:
        CheckpointError: If the file is missing or its tensors do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from joyflash_cli.model.transformer import CausalTransformer

    config = run.generator.transformer
    if is_teacher and run.weights.teacher_transformer is not None:
        config = run.weights.teacher_transformer
    model = CausalTransformer(config)
    try:
        model.load_state_dict(load_file(run.path(name)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{run.path(name)} cannot start this stage: {error}",
            hint="run the stage before it, or name another file under [weights]",
        ) from error
    return model


def _save_transformer(run: RunConfig, name: str, model) -> None:
    from safetensors.torch import save_file

    state = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    save_file(state, run.path(name))


def _teacher(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.training.latents import load_latents
    from joyflash_cli.training.teacher import fresh_teacher, train_teacher

    clips = load_latents(run.path("latents/train"))
    if run.weights.teacher_start:
        teacher = _load_transformer(run, run.weights.teacher_start, is_teacher=True)
    else:
        sizes = run.weights.teacher_transformer or run.generator.transformer
        teacher = fresh_teacher(sizes, clips, seed=run.teacher.seed)
    teacher = train_teacher(
        run.teacher,
        teacher=teacher,
        clips=clips,
        profile=run.generator.sampler,
        out_dir=run.path("teacher"),
        resume=resume,
        on_log=report,
    )
    _save_transformer(run, "teacher/teacher.safetensors", teacher)


def _ode_pairs(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.training.latents import load_latents
    from joyflash_cli.training.ode_pairs import build_ode_pairs

    build_ode_pairs(
        run.ode_pairs,
        teacher=_load_transformer(run, run.weights.teacher, is_teacher=True).eval(),
        clips=load_latents(run.path("latents/train")),
        profile=run.generator.sampler,
        out_dir=run.path("ode-pairs"),
        on_shard=lambda done, total: report({"shard": done, "of": total}),
    )


def _ode(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.training.ode import train_ode
    from joyflash_cli.training.ode_pairs import load_ode_pairs

    student = train_ode(
        run.ode,
        student=_load_transformer(run, run.weights.ode_start),
        pairs=load_ode_pairs(run.path("ode-pairs")),
        profile=run.generator.sampler,
        out_dir=run.path("ode"),
        resume=resume,
        on_log=report,
    )
    _save_transformer(run, "ode/student.safetensors", student)


def _dmd(run: RunConfig, resume: bool, report: Report) -> None:
    from joyflash_cli.training.dmd import DmdTraining, train_dmd
    from joyflash_cli.training.latents import load_latents

    training = DmdTraining(
        run.dmd,
        generator=_load_transformer(run, run.weights.dmd_start),
        fake_score=_load_transformer(run, run.weights.fake_score),
        real_score=_load_transformer(run, run.weights.teacher, is_teacher=True),
        clips=load_latents(run.path("latents/train")),
        profile=run.generator.sampler,
        out_dir=run.path("dmd"),
    )
    generator = train_dmd(training, resume=resume, on_log=report)
    _save_transformer(run, "dmd/generator.safetensors", generator)


def _export(run: RunConfig, resume: bool, report: Report) -> None:
    from safetensors.torch import load_file

    from joyflash_cli.data.clips import ClipStore
    from joyflash_cli.media.framing import measure_framing
    from joyflash_cli.model.transformer import CausalTransformer
    from joyflash_cli.training.export import export_checkpoint

    model = CausalTransformer(run.generator.transformer)
    model.load_state_dict(load_file(run.path(run.weights.exported)))
    store = ClipStore(run.path("clips/train"))
    framing = measure_framing([store.frames(i)[0] for i in range(0, min(len(store), 240))])
    export_checkpoint(
        run.path("checkpoint"),
        transformer=model,
        codec=_load_codec(run),
        front_end=_load_front_end(run),
        sampler=run.generator.sampler,
        framing=framing,
        version=run.version,
    )
    report({"checkpoint": str(run.path("checkpoint"))})


STAGES: dict[str, Callable[[RunConfig, bool, Report], None]] = {
    "sources": _sources,
    "speech": _speech,
    "clips": _clips,
    "front-end": _front_end,
    "codec": _codec,
    "latents": _latents,
    "generator": _generator,
    "teacher": _teacher,
    "ode-pairs": _ode_pairs,
    "ode": _ode,
    "dmd": _dmd,
    "export": _export,
}


def run_stage(
    stage: str,
    config_path: Path,
    *,
    assets_dir: Path | None = None,
    resume: bool = False,
    report: Report = lambda line: None,
) -> None:
    """Run one stage.

    Args:
        stage: A key of ``STAGES``.
        config_path: TOML file of a ``RunConfig``.
        assets_dir: Folder of the source packs, instead of the file's.
        resume: Go on from the stage's saved state.
        report: Called with a small dictionary of figures now and then.

    Raises:
        UsageError: If there is no such stage.
    """
    if stage not in STAGES:
        raise UsageError(
            f"There is no training stage {stage!r}.", hint=f"stages: {', '.join(STAGES)}"
        )
    import torch

    run = load_run_config(config_path)
    if assets_dir is not None:
        run = replace(run, assets_dir=str(assets_dir))
    torch.set_num_threads(run.threads)
    STAGES[stage](run, resume, report)
