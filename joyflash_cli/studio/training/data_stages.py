"""The first stages of ``joyflash train``: sources, face networks, speech and every kind of clip."""

from joyflash_cli.media.inputs.face_networks import save_face_networks
from joyflash_cli.studio.clips import sources
from joyflash_cli.studio.clips.clips import build_clips
from joyflash_cli.studio.clips.film_clips import build_film_clips
from joyflash_cli.studio.clips.photo_clips import build_photo_clips
from joyflash_cli.studio.clips.photo_pairs import build_pairs
from joyflash_cli.studio.heads.face_state import Split
from joyflash_cli.studio.speech.speech_build import build_speech
from joyflash_cli.studio.training.points import train_face_networks
from joyflash_cli.studio.training.run_config import RunConfig
from joyflash_cli.studio.training.session import Session

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
