"""The stages of ``joyflash train``, each from one configuration file to files on disk.

Every stage reads what the ones before it wrote below the work directory and goes on where it was
stopped when run again with ``resume``.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from joyflash_cli.errors import UsageError
from joyflash_cli.studio.training.data_stages import DATA_STAGES, shards_told
from joyflash_cli.studio.training.disk import surroundings_told
from joyflash_cli.studio.training.run_config import RunConfig, load_run_config
from joyflash_cli.studio.training.session import Session

if TYPE_CHECKING:
    from torch import Tensor, nn

Report = Callable[[dict], None]


def _unpack(run: RunConfig, resume: bool, session: Session) -> None:
    import torch

    from joyflash_cli.encoders.front_end import FrontEnd, save_front_end
    from joyflash_cli.render.load import load_parts
    from joyflash_cli.studio.training.clip_encoders import resolve_encoders

    if not run.start:
        return
    files = resolve_encoders(run.start)
    parts = load_parts(files, torch.device("cpu"), torch.float32)
    start = run.path("start")
    start.mkdir(parents=True, exist_ok=True)
    save_front_end(cast("FrontEnd", parts.front_end), start / "front_end.safetensors")
    _save(cast("nn.Module", parts.codec), start / "codec.safetensors")
    _save(parts.transformer, start / "transformer.safetensors")
    session.on_log({"start": files.name, "folder": str(start)})


def _front_end(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.encoders.front_end import load_front_end, save_front_end
    from joyflash_cli.studio.clips.clips import ClipStore
    from joyflash_cli.studio.speech.speech import load_speech
    from joyflash_cli.studio.training.front_end import film_voices, train_front_end

    speech = load_speech(run.path("speech/speech.npz"))
    films = film_voices(ClipStore(run.path("clips/train"))) if run.front_end.film_batch else ()
    start = run.path("start/front_end.safetensors")
    front_end = train_front_end(
        run.front_end,
        speech=[u for u in speech if u.split == "train"],
        held_out=[u for u in speech if u.split == "held-out"],
        films=films,
        start_from=load_front_end(start) if start.exists() else None,
        out_dir=run.path("front-end"),
        resume=resume,
        session=session,
    )
    save_front_end(front_end, run.path("front_end.safetensors"))


def _codec(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.studio.training.codec import fit_codec
    from joyflash_cli.studio.training.decoder import train_decoder
    from joyflash_cli.studio.training.parts_on_disk import codec_of

    start = run.path("start/codec.safetensors")
    if start.exists():  # a trained one: its encoder stays
        _save(codec_of(run, "start/codec.safetensors"), run.path("codec/codec.safetensors"))
        return
    fitted = run.path("codec/fitted.safetensors")
    if not (resume and fitted.exists()):
        _save(fit_codec(run.codec, clips_dir=run.path("clips/train")), fitted)
    codec = train_decoder(
        codec_of(run, "codec/fitted.safetensors"),
        run.latents,
        clips_dir=run.path("clips/train"),
        held_out_dir=run.path("clips/held_out"),
        out_dir=run.path("codec"),
        resume=resume,
        session=session,
    )
    _save(codec, run.path("codec/codec.safetensors"))


def _save(module: "nn.Module", path: Path) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)


def clip_folders(run: RunConfig) -> list[str]:
    """Folders of clips below ``clips``, as ``train/films``."""
    top = run.path("clips")
    return sorted({str(path.parent.relative_to(top)) for path in top.rglob("shard-*.json")})


def _latents(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.studio.training.latents import build_latents
    from joyflash_cli.studio.training.parts_on_disk import codec_of, front_end_of

    for name in clip_folders(run):
        build_latents(
            clips_dir=run.path(f"clips/{name}"),
            out_dir=run.path(f"latents/{name}"),
            codec=codec_of(run),
            front_end=front_end_of(run),
            on_shard=shards_told(session, name),
        )


def _lip_reader(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.studio.training.latent_reader import train_latent_reader
    from joyflash_cli.studio.training.latents import load_latents

    reader = train_latent_reader(
        run.lip_reader,
        clips=load_latents(run.path("latents/train")),
        held_out=load_latents(run.path("latents/held_out")),
        patch=run.generator.transformer.patch_size[1:],
        out_dir=run.path("lip-reader"),
        session=session,
        resume=resume,
    )
    _save(reader, run.path("lip-reader/reader.safetensors"))


def _start_of(run: RunConfig) -> "dict[str, Tensor] | None":
    from safetensors.torch import load_file

    return load_file(run.path(run.weights.generator_start)) if run.weights.generator_start else None


def _generator(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.studio.training.generator import train_generator
    from joyflash_cli.studio.training.latents import load_latents
    from joyflash_cli.studio.training.parts_on_disk import lip_reader_of

    model = train_generator(
        run.generator,
        clips=load_latents(run.path("latents/train")),
        held_out=load_latents(run.path("latents/held_out")),
        out_dir=run.path("generator"),
        reader=lip_reader_of(run) if run.generator.lip_weight else None,
        start_from=_start_of(run),
        resume=resume,
        session=session,
    )
    _save(model, run.path("generator/generator.safetensors"))


def _predictions(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.studio.training.distillation_stages import exported_sampler
    from joyflash_cli.studio.training.parts_on_disk import codec_of, front_end_of, transformer_of
    from joyflash_cli.studio.training.predictions import build_predictions

    build_predictions(
        run.predictions,
        clips_dir=run.path("clips/train"),
        out_dir=run.path("predictions"),
        codec=codec_of(run),
        front_end=front_end_of(run),
        transformer=transformer_of(run, run.weights.exported),
        profile=exported_sampler(run),
        on_shard=shards_told(session, "predictions"),
    )


def _decoder(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.studio.training.decoder import train_decoder
    from joyflash_cli.studio.training.decoder_batches import read_decoder_batch
    from joyflash_cli.studio.training.pairs import PairReader
    from joyflash_cli.studio.training.parts_on_disk import codec_of
    from joyflash_cli.studio.training.predictions import PredictionReader

    read_batch: Callable = read_decoder_batch
    if run.decoder.predicted_share:
        read_batch = PredictionReader(run.path("predictions"))
    if run.decoder.pair_share:
        read_batch = PairReader(run.path("pairs/train"), read_batch)
    codec = train_decoder(
        codec_of(run),
        run.decoder,
        clips_dir=run.path("clips/train"),
        held_out_dir=run.path("clips/held_out"),
        out_dir=run.path("decoder"),
        read_batch=read_batch,
        resume=resume,
        session=session,
    )
    _save(codec, run.path("decoder/codec.safetensors"))


def _export(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.media.inputs.framing import measure_framing
    from joyflash_cli.studio.clips.clips import ClipStore
    from joyflash_cli.studio.training.distillation_stages import exported_sampler
    from joyflash_cli.studio.training.export import export_checkpoint, export_like
    from joyflash_cli.studio.training.parts_on_disk import (
        front_end_of,
        shipped_codec_of,
        transformer_of,
    )

    if run.dataset.path:
        export_like(run, run.path("checkpoint"))
        session.on_log({"checkpoint": str(run.path("checkpoint"))})
        return
    codec = shipped_codec_of(run)
    store = ClipStore(run.path("clips/train"))
    # Films come first: pictures are to be framed as people who speak were.
    framing = measure_framing([store.frames(i)[0] for i in range(min(len(store), 240))])
    framing = replace(framing, size_px=framing.size_px * codec.config.detail_scale)
    export_checkpoint(
        run.path("checkpoint"),
        transformer=transformer_of(run, run.weights.exported),
        codec=codec,
        front_end=front_end_of(run),
        sampler=exported_sampler(run),
        framing=framing,
        version=run.version,
    )
    session.on_log({"checkpoint": str(run.path("checkpoint"))})


STAGES: dict[str, Callable[[RunConfig, bool, Session], None]] = {
    **DATA_STAGES,
    "unpack": _unpack,
    "front-end": _front_end,
    "codec": _codec,
    "latents": _latents,
    "lip-reader": _lip_reader,
    "generator": _generator,
    "predictions": _predictions,
    "decoder": _decoder,
    "export": _export,
}


AFTER_DISTILLATION = ("predictions", "decoder", "export")
"""The decoder learns to draw what the distilled generator says."""


def stage_names() -> tuple[str, ...]:
    """All stages in the order of the pipeline."""
    from joyflash_cli.studio.training.distillation_stages import DISTILLATION_STAGES

    first = (name for name in STAGES if name not in AFTER_DISTILLATION)
    return (*first, *DISTILLATION_STAGES, *AFTER_DISTILLATION)


def run_stage(
    stage: str,
    config_path: Path,
    *,
    assets_dir: Path | None = None,
    resume: bool = False,
    report: Report = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: bool = False,
) -> None:
    """Run one stage.

    Args:
        stage: One of ``stage_names``.
        config_path: TOML file of a ``RunConfig``.
        assets_dir: Folder of the source packs, instead of the file's.
        resume: Go on from the stage's saved state.
        report: Called with a small dictionary of figures now and then.
        should_stop: Asked after every step of a training; true saves its state and ends.
        progress: Whether trainings draw a bar on stderr.

    Raises:
        UsageError: If there is no such stage.
        OutputError: ``E-OUTPUT-FULL`` when the disk is full; what was saved before stays.
        DataError: If an earlier stage has not run.
        TrainingStopped: When ``should_stop`` said so; the state is saved.
    """
    from joyflash_cli.studio.training.distillation_stages import DISTILLATION_STAGES

    if stage not in stage_names():
        raise UsageError(
            f"There is no training stage {stage!r}.", hint=f"stages: {', '.join(stage_names())}"
        )
    import torch

    from joyflash_cli.studio.training.processes import join_processes

    run = load_run_config(config_path)
    if assets_dir is not None:
        run = replace(run, assets_dir=str(assets_dir))
    torch.set_num_threads(run.threads)
    session = Session(
        should_stop=should_stop,
        on_log=report,
        save_every_s=run.save_every_s,
        save_every_steps=run.save_every_steps,
        tensorboard=run.tensorboard,
        progress=progress,
    )
    with surroundings_told(run.path("")):
        if stage in STAGES:
            STAGES[stage](run, resume, session)
            return
        with join_processes(run.device) as processes:
            DISTILLATION_STAGES[stage](run, resume, replace(session, processes=processes))
