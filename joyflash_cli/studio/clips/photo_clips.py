"""Talking clips of photographed people, in the format of ``studio.clips.clips``.

A folder of photographs comes with ``photos.json`` (file, person, set, yaw and lip opening of each)
and ``photos.npz`` (their points). What moves is the photograph itself, see ``heads.photo_head``.
"""

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.media.inputs.picture import read_picture
from joyflash_cli.studio.clips.clips import speaking_clip
from joyflash_cli.studio.clips.mesh_points import (
    MIRRORED_68,
    NUM_POINTS,
    USUAL_68,
    cut_turned,
    framing_of,
    into_frame,
)
from joyflash_cli.studio.clips.motion import MotionConfig
from joyflash_cli.studio.clips.shards import Building, build_shards, rendered
from joyflash_cli.studio.heads.face_state import Split, is_held_out

if TYPE_CHECKING:
    from joyflash_cli.studio.heads.ict_pack import IctAssets
    from joyflash_cli.studio.heads.photo_fit import Photo

OVERSAMPLING = 2
"""Photographs are this much finer than the pictures made of them, so that moving costs nothing."""
POSE_SHARE = 0.8
"""Of the sway of rendered heads: what the photograph does not show cannot turn into view."""


@dataclass(frozen=True)
class PhotoClipsConfig:
    """Which photographs speak, and how often; what is not named here is as for ``ClipsConfig``.

    Attributes:
        num_clips: Clips in all; photographs take turns. 0 leaves photographs out.
        folder: Of the photographs, below the assets folder.
        max_gap: Lips further apart than this (in outer eye distances) are not closed: left out.
        max_yaw: Faces turned further away than this are left out; 0 is frontal, 0.5 a half profile.
        max_error: Heads that fit their points worse than this (in sides) are left out.
        mirrored_share: Share of clips whose photograph is mirrored.
        scale_spread: How far the size of the face varies around the nominal one.
        shift_spread: The same of its place, in sides.
        split: ``held-out`` uses every tenth person and held-out voices.
        seed: Of speech, motion and framing.
        motion: Amplitudes of sway and blinks; a photograph keeps its own pose.
    """

    num_clips: int = 0
    folder: str = "real"
    num_frames: int = 81
    size_px: int = 128
    fps: int = 25
    max_gap: float = 0.06
    max_yaw: float = 0.22
    max_error: float = 0.026
    mirrored_share: float = 0.5
    scale_spread: float = 0.03
    shift_spread: float = 0.015
    split: Split = "train"
    seed: int = 3000
    clips_per_shard: int = 20
    motion: MotionConfig = field(default_factory=MotionConfig)


@dataclass(frozen=True)
class PhotoRecord:
    """One photograph of a folder.

    Attributes:
        path: The picture.
        person: Who is on it.
        identity: Index of the person in the folder; every tenth is held out.
        gap: Inner lip opening over the distance of the outer eye corners.
        yaw: Turn of the head, 0 frontal.
        points: ``(478, 2)`` in its pixels.
    """

    path: Path
    person: str
    identity: int
    gap: float
    yaw: float
    points: np.ndarray


def read_photos(folder: Path) -> list[PhotoRecord]:
    """All photographs of a folder.

    Raises:
        DataError: ``photos.json`` or ``photos.npz`` is missing or they do not fit each other.
    """
    hint = "it needs photos.json and photos.npz; see docs/training.md"
    try:
        entries = json.loads((folder / "photos.json").read_text(encoding="utf-8"))
        points = np.load(folder / "photos.npz")["points"].astype(np.float32)
        persons = sorted({entry["person"] for entry in entries})
        records = [
            PhotoRecord(
                folder / entry["file"],
                person := entry["person"],
                persons.index(person),
                float(entry["gap"]),
                float(entry["yaw"]),
                points[index],
            )
            for index, entry in enumerate(entries)
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{folder} is not a folder of photographs: {error}", hint=hint) from error
    if points.shape != (len(records), NUM_POINTS, 2):
        raise DataError(
            f"{folder} has {len(records)} photographs and points of shape {points.shape}", hint=hint
        )
    return records


def speaking_photos(records: list[PhotoRecord], config: PhotoClipsConfig) -> list[PhotoRecord]:
    """Those of the split whose lips are closed and whose face is not turned away, shuffled.

    Raises:
        DataError: None is left.
    """
    held_out = config.split == "held-out"
    chosen = [
        record
        for record in records
        if is_held_out(record.identity) == held_out
        and record.gap <= config.max_gap
        and abs(record.yaw) <= config.max_yaw
    ]
    if not chosen:
        raise DataError(
            f"None of {len(records)} photographs can speak in split {config.split}.",
            hint="raise max_gap or max_yaw",
        )
    order = np.random.default_rng(config.seed).permutation(len(chosen))
    return [chosen[index] for index in order]


def frame_photo(
    record: PhotoRecord,
    *,
    size_px: int,
    mirrored: bool = False,
    scale: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> "Photo":
    """A photograph cut out by eyes and mouth, upright.

    Raises:
        ImageError: The picture is missing or cannot be read.
    """
    from joyflash_cli.studio.heads.photo_fit import Photo

    framing = framing_of(record.points, scale=scale, shift=shift)
    pixels = cut_turned(read_picture(record.path).pixels, framing, size_px)
    points = into_frame(record.points, framing)[list(USUAL_68)]
    if not mirrored:
        return Photo(pixels, points)
    points = points[list(MIRRORED_68)] * [-1, 1] + [1, 0]
    return Photo(np.ascontiguousarray(pixels[:, ::-1]), points)


def render_photo_clip(
    clip_index: int,
    config: PhotoClipsConfig,
    *,
    ict: "IctAssets",
    photos: list[PhotoRecord],
    speech: list,
) -> dict | None:
    """One clip as ``studio.clips.clips`` writes it, or ``None`` where the head does not fit."""
    from joyflash_cli.studio.heads.photo_head import PhotoHead

    rng = np.random.default_rng([config.seed, clip_index])
    record = photos[clip_index % len(photos)]
    photo = frame_photo(
        record,
        size_px=config.size_px * OVERSAMPLING,
        mirrored=bool(rng.random() < config.mirrored_share),
        scale=1 + config.scale_spread * rng.uniform(-1, 1),
        shift=tuple(config.shift_spread * rng.uniform(-1, 1, 2)),
    )
    head = PhotoHead(ict, photo, size_px=config.size_px)
    if head.fit_error > config.max_error:
        return None
    clip = speaking_clip(
        head,
        rng,
        speech=speech,
        num_frames=config.num_frames,
        fps=config.fps,
        amplitudes=config.motion,
        sway=_around_own_pose,
    )
    who = {"identity": record.identity, "kind": "photo-person", "photo": True}
    who |= {"person": record.person, "split": config.split}
    return clip | {"about": who | clip["about"]}


def _around_own_pose(motion: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sways around the photograph's pose and expression instead of a drawn one."""
    poses = {name: motion[name] for name in ("yaw", "pitch", "roll", "shift_x", "shift_y")}
    turned = {name: POSE_SHARE * (track - track.mean()) for name, track in poses.items()}
    smile, brow = (motion[name] - motion[name].min() for name in ("smile", "brow"))
    return motion | turned | {"smile": 0.5 * smile, "brow": brow}


def _load(config: PhotoClipsConfig, assets_dir: Path, photos_dir: Path, speech_path: Path) -> dict:
    from joyflash_cli.studio.heads.ict_pack import load_ict
    from joyflash_cli.studio.heads.rig import units_in_use
    from joyflash_cli.studio.speech.speech import load_speech

    photos = speaking_photos(read_photos(photos_dir), config)
    speech = load_speech(speech_path, split=config.split)
    return {"ict": load_ict(assets_dir, units=units_in_use()), "photos": photos, "speech": speech}


def build_photo_clips(
    config: PhotoClipsConfig,
    *,
    assets_dir: Path,
    photos_dir: Path,
    speech_path: Path,
    **build: Unpack[Building],
) -> None:
    """Render every missing shard.

    Args:
        config: Which photographs, and how much.
        assets_dir: Folder of the head packs.
        photos_dir: Folder of the photographs.
        speech_path: File written by ``build_speech``.
        build: See ``Building``.
    """
    given = (config, assets_dir, photos_dir, speech_path)
    make = functools.partial(rendered, render=render_photo_clip, load=_load, given=given)
    build_shards(make, config.num_clips, per_shard=config.clips_per_shard, **build)
