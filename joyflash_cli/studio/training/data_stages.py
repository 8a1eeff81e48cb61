"""The first stages of ``joyflash train``: sources, face networks, speech and every kind of clip."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from joyflash_cli.studio.training.run_config import RunConfig
from joyflash_cli.studio.training.session import Session

if TYPE_CHECKING:
    from joyflash_cli.studio.heads.face_state import Split


def shards_told(session: Session, name: str) -> Callable[[int, int], None]:
    """Reports how many shards of a name are done."""
    return lambda done, total: session.on_log({name: done, "of": total})


def _sources(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.studio.clips.sources import check_sources, read_sources

    packs = read_sources()
    check_sources(run.assets("."), packs)
    session.on_log({"packs": len(packs), "assets": "as in the manifest"})


def _points(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.media.inputs.face_networks import FaceNetworks, save_face_networks
    from joyflash_cli.studio.training.points import (
        build_collection,
        train_finder,
        train_points_network,
    )

    collection = build_collection(
        run.points, assets_dir=run.assets("heads"), directory=run.path("points/pictures")
    )
    finder = train_finder(
        run.points.finder, collection, out_dir=run.path("points/finder"),
        resume=resume, session=session,
    )  # fmt: skip
    network = train_points_network(
        run.points.network, collection, out_dir=run.path("points/points"),
        resume=resume, session=session,
    )  # fmt: skip
    save_face_networks(FaceNetworks(finder, network), run.path("points/points.safetensors"))


def _speech(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.studio.speech.speech_build import build_speech

    build_speech(
        run.assets("speech"),
        run.path("speech/speech.npz"),
        num_utterances=run.speech.num_utterances,
        seed=run.speech.seed,
        processes=run.processes,
    )


def _clips(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.studio.clips.clips import build_clips

    for config, name in ((run.held_out_clips, "held_out"), (run.clips, "train")):
        build_clips(
            config,
            assets_dir=run.assets("heads"),
            speech_path=run.path("speech/speech.npz"),
            out_dir=run.path(f"clips/{name}/rendered"),
            processes=run.processes,
            on_shard=shards_told(session, name),
        )


def _photo_clips(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.studio.clips.photo_clips import build_photo_clips

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
                on_shard=shards_told(session, name),
            )


def _film_clips(run: RunConfig, resume: bool, session: Session) -> None:
    from joyflash_cli.studio.clips.film_clips import build_film_clips
    from joyflash_cli.studio.clips.photo_pairs import build_pairs

    config = run.film_clips
    splits: tuple[tuple[Split, str], ...] = (("held-out", "held_out"), ("train", "train"))
    for split, name in splits if config.folder else ():
        build_film_clips(
            config,
            films_dir=run.assets(config.folder),
            out_dir=run.path(f"clips/{name}/films"),
            split=split,
            processes=run.processes,
            on_shard=shards_told(session, f"{name}/films"),
        )
    for split, name in splits if run.photo_clips.num_clips else ():
        build_pairs(
            run.assets(run.photo_clips.folder),
            run.path(f"pairs/{name}"),
            size_px=run.photo_clips.size_px,
            split=split,
            on_shard=shards_told(session, f"{name}/pairs"),
        )


DATA_STAGES: dict[str, Callable[[RunConfig, bool, Session], None]] = {
    "sources": _sources,
    "points": _points,
    "speech": _speech,
    "clips": _clips,
    "photo-clips": _photo_clips,
    "film-clips": _film_clips,
}
