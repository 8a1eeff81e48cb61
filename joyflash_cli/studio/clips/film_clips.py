"""Films of real people as training clips, in the format of ``studio.clips.clips``.

A folder of films comes with ``clips.json`` (file, person, sentence) and, beside each film, a
``.npz`` with the points of every frame. The camera of a clip stands still, as it does for a
rendered one, so a film is cut by the median place of its eyes and mouth. What the lips do is
measured from the points; there are no viseme weights, and the track holds no numbers (NaN), so that
nothing learns from them unawares.
"""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.media.inputs.talking_video import read_talking_video
from joyflash_cli.studio.clips.clips import MARGIN_FRAMES
from joyflash_cli.studio.clips.mesh_points import (
    EYE_POINTS,
    LIP_POINTS,
    NUM_POINTS,
    cut_turned,
    face_points,
    framing_of,
    into_frame,
)
from joyflash_cli.studio.clips.shards import Building, build_shards
from joyflash_cli.studio.heads.face_points import box_around, measures
from joyflash_cli.studio.heads.face_state import VISEMES, Split
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

SOUND_SUFFIXES = (".wav", ".flac")
"""Of a sound beside a film, which is taken instead of the film's own."""
BLINK_BELOW, SHUT_AT = 0.85, 0.4
"""Lid opening against the usual one from which lids count as closing, and as shut."""


@dataclass(frozen=True)
class FilmClipsConfig:
    """Which films become clips; what is not named here is as for ``ClipsConfig``.

    Attributes:
        folder: Below the assets folder, with ``clips.json``; empty leaves films out.
        num_frames: Video frames per clip; 73 are 19 latents. Longer films give several clips.
        fps: Frames per second of films and clips.
        mirrored: Whether every clip comes a second time, mirrored.
        smoothing_frames: Standard deviation of the Gaussian that calms the recorded points.
        held_out: People (as ``clips.json`` calls them) who are kept from training.
    """

    folder: str = ""
    num_frames: int = 73
    size_px: int = 128
    fps: int = 25
    mirrored: bool = True
    smoothing_frames: float = 0.6
    held_out: tuple[str, ...] = ()
    clips_per_shard: int = 20


@dataclass(frozen=True)
class FilmRecord:
    """One film of a folder.

    Attributes:
        path: The film with its sound.
        person: Who speaks.
        identity: Index of the person in the folder.
        text: What is said; may be empty.
    """

    path: Path
    person: str
    identity: int
    text: str

    def read_points(self) -> np.ndarray:
        """Points of every frame ``(F, 478, 2)`` in pixels of the film.

        Raises:
            DataError: They are missing or of another form.
        """
        path = self.path.with_suffix(".npz")
        try:
            points = np.load(path)["points"].astype(np.float32)
        except (OSError, ValueError, KeyError) as error:
            message = f"The points {path} cannot be read: {error}"
            raise DataError(message, hint="take the film out of clips.json") from error
        if points.ndim != 3 or points.shape[1:] != (NUM_POINTS, 2):
            raise DataError(f"{path} holds {points.shape} points, not (frames, {NUM_POINTS}, 2)")
        return points


def read_films(folder: Path) -> list[FilmRecord]:
    """All films of a folder.

    Raises:
        DataError: ``clips.json`` is missing or of another form.
    """
    try:
        entries = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
        persons = sorted({entry["person"] for entry in entries})
        return [
            FilmRecord(folder / entry["file"], person := entry["person"], persons.index(person),
                       entry.get("text", ""))
            for entry in entries
        ]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{folder} is not a folder of films: {error}"
        raise DataError(message, hint="it needs clips.json; see docs/training.md") from error


def cut_film(record: FilmRecord, config: FilmClipsConfig, *, split: Split) -> Iterator[dict]:
    """The clips of one film, in the format of ``studio.clips.clips``.

    Raises:
        DataError: The film or its points cannot be read, or do not fit each other.
    """
    points = record.read_points()
    framing = framing_of(np.median(points, 0))
    beside = (record.path.with_suffix(suffix) for suffix in SOUND_SUFFIXES)
    video = read_talking_video(
        record.path,
        fps=config.fps,
        fit=lambda frame: cut_turned(frame, framing, config.size_px),
        sound=next((path for path in beside if path.is_file()), None),
    )
    frames = np.stack(list(video.frames))
    if len(frames) != len(points):
        raise DataError(
            f"{record.path} has {len(frames)} frames at {config.fps} a second, "
            f"but points of {len(points)}",
            hint="record the points anew",
        )
    framed = smoothed(into_frame(points, framing), config.smoothing_frames)
    about = {
        "identity": record.identity, "kind": "film", "person": record.person, "split": split,
        "voice": record.person, "text": record.text,
    }  # fmt: skip
    margin = MARGIN_FRAMES * MODEL_SAMPLE_RATE_HZ // config.fps
    step = MODEL_SAMPLE_RATE_HZ // config.fps
    sound = np.pad(video.waveform, (margin, margin + len(frames) * step))
    for start in range(0, len(frames) - config.num_frames + 1, config.num_frames):
        rows = slice(start, start + config.num_frames)
        length = config.num_frames * step + 2 * margin
        clip = pointed_clip(frames[rows], framed[rows], about)
        clip["blink"] = blinks_of(clip["lips"][:, 2])
        clip["waveform"] = sound[start * step : start * step + length].astype(np.float32)
        yield clip
        if config.mirrored:
            yield mirrored(clip)


def pointed_clip(frames: np.ndarray, framed: np.ndarray, about: dict) -> dict:
    """What points say of frames ``(F, S, S, 3)``; without sound and blinks.

    Args:
        frames: Of one face.
        framed: Its points ``(F, 478, 2)`` in fractions of the side.
        about: Who and what, beside what is the same of all films and photographs.
    """
    size_px = frames.shape[1]
    who = {name: about[name] for name in ("identity", "kind")} | {"photo": True}
    boxes = {
        name: box_around(framed[:, points].reshape(-1, 2), size_px)
        for name, points in (("mouth", LIP_POINTS), ("eyes", EYE_POINTS))
    }
    return {
        "frames": frames,
        "visemes": np.full((len(frames), len(VISEMES)), np.nan, np.float32),
        "blink": np.zeros(len(frames), np.float32),
        "lips": measures(face_points(framed)),
        "waveform": np.zeros(0, np.float32),
        **{f"{name}_box": np.array(box, np.int32) for name, box in boxes.items()},
        "about": who | about | {"mirrored": False},
    }


def smoothed(points: np.ndarray, frames: float) -> np.ndarray:
    """Points ``(F, ...)`` calmed along time by a Gaussian of so many frames."""
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(points, frames, axis=0, mode="nearest") if frames else points


def blinks_of(lids: np.ndarray) -> np.ndarray:
    """How far lids are closed ``(F,)``, 0..1, from their opening ``(F,)``."""
    usual = max(float(np.percentile(lids, 75)), 1e-6)
    return np.clip((BLINK_BELOW - lids / usual) / (BLINK_BELOW - SHUT_AT), 0, 1).astype(np.float32)


def mirrored(clip: dict) -> dict:
    """A clip seen in a mirror; what is measured of lips and lids stays."""
    size_px = clip["frames"].shape[2]
    turned = dict(clip, frames=np.ascontiguousarray(clip["frames"][:, :, ::-1]))
    for name in ("mouth_box", "eyes_box"):
        x0, y0, x1, y1 = clip[name]
        turned[name] = np.array([size_px - x1, y0, size_px - x0, y1], np.int32)
    return turned | {"about": clip["about"] | {"mirrored": True}}


def _cut(
    places: range, *, config: FilmClipsConfig, films: list[FilmRecord], split: Split
) -> list[dict]:
    chosen = [films[place] for place in places]
    clips = [clip for film in chosen for clip in cut_film(film, config, split=split)]
    if not clips:
        raise DataError(
            f"No film from {chosen[0].path} to {chosen[-1].path} has {config.num_frames} frames.",
            hint="lower num_frames",
        )
    return clips


def build_film_clips(
    config: FilmClipsConfig, *, films_dir: Path, split: Split, **build: Unpack[Building]
) -> None:
    """Cut every missing shard.

    Args:
        config: Which films, and how they are cut.
        films_dir: Folder of the films.
        split: ``held-out`` takes the people that the configuration names, ``train`` the others.
        build: See ``Building``.

    Raises:
        DataError: The folder, a film or its points cannot be used.
    """
    held_out = split == "held-out"
    films = [film for film in read_films(films_dir) if (film.person in config.held_out) == held_out]
    cut = functools.partial(_cut, config=config, films=films, split=split)
    build_shards(cut, len(films), per_shard=config.clips_per_shard, **build)
