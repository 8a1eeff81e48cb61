"""The stages that make the embedded model: from sources and clips to the checkpoint."""

from dataclasses import replace
from typing import cast

import torch
from safetensors.torch import load_file
from torch import nn

from joyflash_cli.encoders.front_end import FrontEnd
from joyflash_cli.media.inputs.face_networks import save_face_networks
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.render.load import load_parts
from joyflash_cli.render.placement import Placement
from joyflash_cli.studio.clips import sources
from joyflash_cli.studio.clips.clip_framing import measure_framing
from joyflash_cli.studio.clips.clips import ClipStore, build_clips
from joyflash_cli.studio.clips.film_clips import build_film_clips
from joyflash_cli.studio.clips.photo_clips import build_photo_clips
from joyflash_cli.studio.clips.photo_pairs import build_pairs
from joyflash_cli.studio.heads.face_state import Split
from joyflash_cli.studio.speech.speech import load_speech
from joyflash_cli.studio.speech.speech_build import build_speech
from joyflash_cli.studio.training.codec import fit_codec
from joyflash_cli.studio.training.dataset_latents import resolve_encoders
from joyflash_cli.studio.training.decoder import train_decoder
from joyflash_cli.studio.training.decoder_batches import (
    BatchReader,
    PairReader,
    PredictionReader,
    read_decoder_batch,
)
from joyflash_cli.studio.training.export import export_around, export_checkpoint, exported_sampler
from joyflash_cli.studio.training.front_end import (
    film_voices,
    load_front_end,
    save_front_end,
    train_front_end,
)
from joyflash_cli.studio.training.generator import train_generator
from joyflash_cli.studio.training.guidance import train_guidance
from joyflash_cli.studio.training.latent_reader import train_latent_reader
from joyflash_cli.studio.training.latents import build_latents, load_latents
from joyflash_cli.studio.training.points import train_face_networks
from joyflash_cli.studio.training.predictions import build_predictions
from joyflash_cli.studio.training.run_config import GENERATOR_RESULT, GUIDANCE_RESULT, RunConfig
from joyflash_cli.studio.training.run_parts import (
    codec_of,
    exported_transformer,
    front_end_of,
    lip_reader_of,
)
from joyflash_cli.studio.training.session import Session
from joyflash_cli.studio.training.tensors import write_module

SPLITS: tuple[tuple[Split, str], ...] = (("held-out", "held_out"), ("train", "train"))
"""The splits and what their folders are called."""


def check_sources(run: RunConfig, session: Session) -> None:
    """Compare the source packs with their manifest."""
    packs = sources.read_sources()
    sources.check_sources(run.assets("."), packs)
    session.on_log({"packs": len(packs), "assets": "as in the manifest"})


def points(run: RunConfig, session: Session) -> None:
    """Train the face networks."""
    folder, heads = run.path("points"), run.assets("heads")
    networks = train_face_networks(run.points, assets_dir=heads, out_dir=folder, session=session)
    save_face_networks(networks, folder / "points.safetensors")


def speech(run: RunConfig, session: Session) -> None:
    """Build the speech file."""
    build_speech(
        run.assets("speech"),
        run.path("speech/speech.npz"),
        num_utterances=run.speech.num_utterances,
        seed=run.speech.seed,
        processes=run.processes,
    )


def clips(run: RunConfig, session: Session) -> None:
    """Render clips."""
    for config, name in ((run.held_out_clips, "held_out"), (run.clips, "train")):
        build_clips(
            config,
            assets_dir=run.assets("heads"),
            speech_path=run.path("speech/speech.npz"),
            out_dir=run.path(f"clips/{name}/rendered"),
            processes=run.processes,
            on_shard=session.shards(name),
        )


def photo_clips(run: RunConfig, session: Session) -> None:
    """Let photographs speak."""
    configs = ((run.held_out_photo_clips, "held_out/photos"), (run.photo_clips, "train/photos"))
    for config, name in configs:
        if config.num_clips:
            build_photo_clips(
                config,
                assets_dir=run.assets("heads"),
                photos_dir=run.assets(config.folder),
                speech_path=run.path("speech/speech.npz"),
                out_dir=run.path(f"clips/{name}"),
                processes=run.processes,
                on_shard=session.shards(name),
            )


def film_clips(run: RunConfig, session: Session) -> None:
    """Cut films, and pairs of photographs."""
    config, photos = run.film_clips, run.photo_clips
    for split, name in SPLITS if config.folder else ():
        build_film_clips(
            config,
            films_dir=run.assets(config.folder),
            out_dir=run.path(f"clips/{name}/films"),
            split=split,
            processes=run.processes,
            on_shard=session.shards(f"{name}/films"),
        )
    for split, name in SPLITS if photos.num_clips else ():
        build_pairs(
            run.assets(photos.folder),
            run.path(f"pairs/{name}"),
            size_px=photos.size_px,
            split=split,
            on_shard=session.shards(f"{name}/pairs"),
        )


def unpack(run: RunConfig, session: Session) -> None:
    """Lay down the parts of the checkpoint that the run goes on from."""
    if not run.start:
        return
    files, cpu = resolve_encoders(run.start), torch.device("cpu")
    parts = load_parts(files, Placement(cpu, torch.float32, cpu))
    start = run.path("start")
    write_module(start / "codec.safetensors", cast(nn.Module, parts.codec))
    write_module(start / "transformer.safetensors", parts.transformer)
    save_front_end(cast(FrontEnd, parts.front_end), start / "front_end.safetensors")
    session.on_log({"start": files.name, "folder": str(start)})


def front_end(run: RunConfig, session: Session) -> None:
    """Train the audio front end."""
    speech = load_speech(run.path("speech/speech.npz"))
    start = run.path("start/front_end.safetensors")
    trained = train_front_end(
        run.front_end,
        speech=[u for u in speech if u.split == "train"],
        held_out=[u for u in speech if u.split == "held-out"],
        films=film_voices(ClipStore(run.path("clips/train"))) if run.front_end.film_batch else None,
        start_from=load_front_end(start) if start.exists() else None,
        out_dir=run.path("front-end"),
        session=session,
    )
    save_front_end(trained, run.path("front_end.safetensors"))


def codec(run: RunConfig, session: Session) -> None:
    """Fit and train encoder and decoder together, or take those of the start."""
    result = run.path("codec/codec.safetensors")
    if run.path("start/codec.safetensors").exists():  # a trained one: its encoder stays
        write_module(result, codec_of(run, "start/codec.safetensors"))
        return
    fitted = run.path("codec/fitted.safetensors")
    if not (session.resumes and fitted.exists()):
        write_module(fitted, fit_codec(run.codec, clips_dir=run.path("clips/train")))
    trained = train_decoder(
        codec_of(run, "codec/fitted.safetensors"),
        run.latents,
        clips_dir=run.path("clips/train"),
        held_out_dir=run.path("clips/held_out"),
        out_dir=run.path("codec"),
        session=session,
    )
    write_module(result, trained)


def latents(run: RunConfig, session: Session) -> None:
    """Encode every folder of clips below ``clips``."""
    top = run.path("clips")
    for name in sorted({str(path.parent.relative_to(top)) for path in top.rglob("shard-*.json")}):
        build_latents(
            clips_dir=top / name,
            out_dir=run.path(f"latents/{name}"),
            codec=codec_of(run),
            front_end=front_end_of(run),
            on_shard=session.shards(name),
        )


def lip_reader(run: RunConfig, session: Session) -> None:
    """Train the reader of mouths in latents."""
    reader = train_latent_reader(
        run.lip_reader,
        clips=load_latents(run.path("latents/train")),
        held_out=load_latents(run.path("latents/held_out")),
        patch=run.generator.transformer.patch_size[1:],
        out_dir=run.path("lip-reader"),
        session=session,
    )
    write_module(run.path("lip-reader/reader.safetensors"), reader)


def generator(run: RunConfig, session: Session) -> None:
    """Train the generator by denoising."""
    start = run.weights.generator_start
    model = train_generator(
        run.generator,
        clips=load_latents(run.path("latents/train")),
        held_out=load_latents(run.path("latents/held_out")),
        out_dir=run.path("generator"),
        reader=lip_reader_of(run) if run.generator.lip_weight else None,
        start_from=load_file(run.path(start)) if start else None,
        session=session,
    )
    write_module(run.path(GENERATOR_RESULT), model)


def guidance(run: RunConfig, session: Session) -> None:
    """Distil the generator's guidance into a student of one pass."""
    weights = load_file(run.path(GENERATOR_RESULT))
    student, teacher = (CausalTransformer(run.generator.transformer) for _ in range(2))
    for network in (student, teacher):
        network.load_state_dict(weights)
    trained = train_guidance(
        run.guidance,
        run.generator,
        student=student,
        teacher=teacher.eval().requires_grad_(False),
        clips=load_latents(run.path("latents/train")),
        held_out=load_latents(run.path("latents/held_out")),
        out_dir=run.path("guidance"),
        reader=lip_reader_of(run) if run.generator.lip_weight else None,
        session=session,
    )
    write_module(run.path(GUIDANCE_RESULT), trained)


def predictions(run: RunConfig, session: Session) -> None:
    """Let the generator that is exported finish noised clips."""
    build_predictions(
        run.predictions,
        clips_dir=run.path("clips/train"),
        out_dir=run.path("predictions"),
        codec=codec_of(run),
        front_end=front_end_of(run),
        transformer=exported_transformer(run),
        profile=exported_sampler(run),
        on_shard=session.shards("predictions"),
    )


def decoder(run: RunConfig, session: Session) -> None:
    """Train the decoder alone, on clips, pairs and predictions."""
    read_batch: BatchReader = read_decoder_batch
    if run.decoder.predicted_share:
        read_batch = PredictionReader(run.path("predictions"))
    if run.decoder.pair_share:
        read_batch = PairReader(run.path("pairs/train"), read_batch)
    trained = train_decoder(
        codec_of(run),
        run.decoder,
        clips_dir=run.path("clips/train"),
        held_out_dir=run.path("clips/held_out"),
        out_dir=run.path("decoder"),
        read_batch=read_batch,
        session=session,
    )
    write_module(run.path("decoder/codec.safetensors"), trained)


def export(run: RunConfig, session: Session) -> None:
    """Pack the checkpoint."""
    folder = run.path("checkpoint")
    if run.dataset.path:
        export_around(run, run.path(run.weights.exported), exported_sampler(run), folder)
    else:
        store = ClipStore(run.path("clips/train"))
        # Films come first: pictures are to be framed as people who speak were.
        framing = measure_framing([store.frames(i)[0] for i in range(min(len(store), 240))])
        scale = run.codec.codec.detail_scale
        export_checkpoint(
            folder,
            transformer=exported_transformer(run),
            codec=codec_of(run, "decoder/codec.safetensors", scale=scale),
            front_end=front_end_of(run),
            sampler=exported_sampler(run),
            framing=replace(framing, size_px=framing.size_px * scale),
            version=run.version,
        )
    session.on_log({"checkpoint": str(folder)})
