"""Rendered talking clips: made in resumable shards, read by memory map."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.studio.clips.motion import MotionConfig, sample_motion
from joyflash_cli.studio.clips.shards import Building, build_shards, rendered
from joyflash_cli.studio.heads.face_points import measures
from joyflash_cli.studio.heads.face_state import HELD_OUT_EVERY, FaceState, Head, Split
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from joyflash_cli.studio.heads.ict import IctWardrobe
    from joyflash_cli.studio.heads.makehuman_pack import MakeHumanAssets
    from joyflash_cli.studio.heads.photo_head import PhotoHead
    from joyflash_cli.studio.heads.surroundings import Surroundings
    from joyflash_cli.studio.speech.speech import Utterance

MARGIN_FRAMES = 20
"""Video frames of sound kept before and after a clip, so that audio features need no edge."""

EYES_OPEN = 0.05
"""Eyes are open where the lids are closed less than this."""

PHOTO_FRAMING_SPREAD = 2.0
"""A detector frames photos less evenly than the renderer frames its own heads."""


@dataclass(frozen=True)
class ClipsConfig:
    """What to render.

    Attributes:
        num_clips: Identities, one clip each.
        num_frames: Video frames per clip; 81 are 21 latents, seven blocks.
        size_px: Width and height.
        fps: Video frames per second.
        drawn_share: Share of drawn heads.
        ict_share: Share of ICT heads; what drawn and ICT heads leave are MakeHuman people.
        photo_share: Share of clips that look like photos: MakeHuman and ICT people before another
            kind of background and taken by a camera (``photo_look``).
        split: Identities, assets and voices of this split only.
        seed: First identity seed.
        clips_per_shard: A killed run loses at most one shard.
        motion: Amplitudes of sway and blinks.
    """

    num_clips: int = 1500
    num_frames: int = 81
    size_px: int = 128
    fps: int = 25
    drawn_share: float = 0.25
    ict_share: float = 0.0
    photo_share: float = 0.0
    split: Split = "train"
    seed: int = 1000
    clips_per_shard: int = 20
    motion: MotionConfig = field(default_factory=MotionConfig)


def identity_index(clip_index: int, *, split: Split) -> int:
    """The clip's identity: every tenth index belongs to the held-out split, the others to train."""
    if split == "held-out":
        return clip_index * HELD_OUT_EVERY + HELD_OUT_EVERY - 1
    return clip_index + clip_index // (HELD_OUT_EVERY - 1)


@dataclass(frozen=True)
class HeadAssets:
    """The head packs that a mix needs.

    Attributes:
        makehuman: MakeHuman people, and the skins and hair of ICT heads.
        ict: ICT heads, or ``None`` if the mix has none.
    """

    makehuman: "MakeHumanAssets"
    ict: "IctWardrobe | None" = None


def load_heads(config: ClipsConfig, assets_dir: Path) -> HeadAssets:
    """Loads what a mix needs.

    Raises:
        DataError: A pack is missing or damaged.
    """
    from joyflash_cli.studio.heads.makehuman_pack import load_makehuman

    makehuman = load_makehuman(assets_dir)
    if config.ict_share <= 0:
        return HeadAssets(makehuman)
    from joyflash_cli.studio.heads.ict import load_wardrobe

    return HeadAssets(makehuman, load_wardrobe(assets_dir, makehuman))


def sample_head(
    config: ClipsConfig, rng: np.random.Generator, *, assets: HeadAssets, photo: bool = False
) -> tuple[str, Head]:
    """A random identity of the configured mix and its kind: ``makehuman``, ``ict``, ``drawn``.

    Args:
        config: Shares, size and split.
        rng: One seed gives one identity.
        assets: From ``load_heads``.
        photo: Never a drawn head, and a background like a snapshot's.
    """
    place = rng.random()
    if photo:
        place = config.drawn_share + place * (1 - config.drawn_share)
    if place < config.drawn_share:
        from joyflash_cli.studio.heads.drawn import sample_drawn

        return "drawn", sample_drawn(rng, size_px=config.size_px, split=config.split)
    options: dict = {"size_px": config.size_px, "split": config.split}
    if photo:
        options["surroundings"] = _photo_surroundings(rng, config.size_px)
    if place < config.drawn_share + config.ict_share and assets.ict is not None:
        from joyflash_cli.studio.heads.ict import sample_ict

        return "ict", sample_ict(assets.ict, rng, **options)
    from joyflash_cli.studio.heads.makehuman import sample_makehuman

    return "makehuman", sample_makehuman(assets.makehuman, rng, **options)


def _photo_surroundings(rng: np.random.Generator, size_px: int) -> "Surroundings":
    from joyflash_cli.studio.clips.photo_background import sample_photo_background
    from joyflash_cli.studio.heads.surroundings import Surroundings, sample_lighting

    background = sample_photo_background(rng, size_px)
    return Surroundings(sample_lighting(rng), background, framing_spread=PHOTO_FRAMING_SPREAD)


def cut_speech(
    utterance: "Utterance", rng: np.random.Generator, *, num_frames: int, fps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Visemes ``(F, 6)`` and sound with margins of a random stretch of an utterance.

    The stretch may run past the utterance's end: then it is silent and the mouth rests.
    """
    step = MODEL_SAMPLE_RATE_HZ // fps
    total = len(utterance.visemes)
    start = int(rng.integers(0, max(1, total - num_frames + 10)))
    visemes = utterance.visemes[np.arange(start, start + num_frames).clip(max=total - 1)]
    margin = MARGIN_FRAMES * step
    length = num_frames * step + 2 * margin
    padded = np.concatenate(
        [np.zeros(margin, np.float32), utterance.waveform, np.zeros(length, np.float32)]
    )
    return visemes, padded[start * step : start * step + length].astype(np.float32)


def speaking_clip(
    head: "Head | PhotoHead",
    rng: np.random.Generator,
    *,
    speech: "Sequence[Utterance]",
    num_frames: int,
    fps: int,
    amplitudes: MotionConfig,
    sway: Callable[[dict], dict] | None = None,
) -> dict:
    """A head that says a random stretch of speech: frames, tracks, sound, and whose voice it is.

    Args:
        head: Whose clip it is.
        rng: Chooses utterance, stretch, reach of the jaw and motion.
        speech: Utterances to choose from.
        num_frames: Video frames of the clip.
        fps: Video frames per second.
        amplitudes: Of sway and blinks.
        sway: Changes the motion to one that the head can show.
    """
    utterance = speech[int(rng.integers(len(speech)))]
    visemes, waveform = cut_speech(utterance, rng, num_frames=num_frames, fps=fps)
    visemes = visemes.astype(np.float32)
    visemes[:, 0] *= rng.uniform(0.85, 1.15)
    motion = sample_motion(num_frames, rng, config=amplitudes, fps=fps)
    motion = motion if sway is None else sway(motion)
    states = [
        FaceState(visemes=row, **{name: float(track[i]) for name, track in motion.items()})
        for i, row in enumerate(visemes)
    ]
    return {
        "frames": np.stack([head.render(state) for state in states]),
        "visemes": visemes,
        "blink": motion["blink"].astype(np.float32),
        "lips": measures(np.stack([head.points(state) for state in states])),
        "waveform": waveform,
        "mouth_box": np.array(head.mouth_box, np.int32),
        "eyes_box": np.array(head.eyes_box, np.int32),
        "about": {"voice": utterance.voice, "text": utterance.text},
    }


def render_clip(
    clip_index: int, config: ClipsConfig, *, assets: HeadAssets, speech: "Sequence[Utterance]"
) -> dict:
    """One clip: frames, tracks, sound and description. Depends on its index and seed alone."""
    identity = identity_index(clip_index, split=config.split)
    rng = np.random.default_rng([config.seed, identity])
    # A stream of its own, so that the other clips are the same whatever the share.
    photo_rng = np.random.default_rng([config.seed, identity, 1])
    photo = photo_rng.random() < config.photo_share
    kind, head = sample_head(config, rng, assets=assets, photo=photo)
    clip = speaking_clip(
        head,
        rng,
        speech=speech,
        num_frames=config.num_frames,
        fps=config.fps,
        amplitudes=config.motion,
    )
    if photo:
        from joyflash_cli.studio.clips.photo_look import apply_photo_look, sample_photo_look

        look = sample_photo_look(photo_rng)
        clip["frames"] = apply_photo_look(clip["frames"], look, photo_rng)
    who = {"identity": identity, "kind": kind, "photo": photo, "split": config.split}
    return clip | {"about": who | clip["about"]}


def _load(config: ClipsConfig, assets_dir: Path, speech_path: Path) -> dict:
    from joyflash_cli.studio.speech.speech import load_speech

    heads = load_heads(config, assets_dir)
    return {"assets": heads, "speech": load_speech(speech_path, split=config.split)}


def build_clips(
    config: ClipsConfig, *, assets_dir: Path, speech_path: Path, **build: Unpack[Building]
) -> None:
    """Render every missing shard.

    Args:
        config: What to render.
        assets_dir: Folder of the head packs.
        speech_path: File written by ``build_speech``.
        build: See ``Building``.
    """
    given = (config, assets_dir, speech_path)
    make = functools.partial(rendered, render=render_clip, load=_load, given=given)
    build_shards(make, config.num_clips, per_shard=config.clips_per_shard, **build)


class ClipStore:
    """Complete shards of a folder, as one sequence of clips.

    Args:
        directory: Folder written by ``build_clips``, or one that holds several of them.

    Raises:
        DataError: If it holds no complete shard.
    """

    def __init__(self, directory: Path) -> None:
        from safetensors.numpy import load_file

        self.directory = Path(directory)
        self._shards: list[tuple[np.ndarray, dict[str, np.ndarray], list[dict]]] = []
        self._index: list[tuple[int, int]] = []
        for about_path in sorted(self.directory.rglob("shard-*.json")):
            stem = str(about_path)[: -len(".json")]
            about = json.loads(about_path.read_text())
            frames = np.load(f"{stem}.frames.npy", mmap_mode="r")
            self._index += [(len(self._shards), i) for i in range(len(about))]
            self._shards.append((frames, load_file(f"{stem}.safetensors"), about))
        if not self._index:
            raise DataError(
                f"{self.directory} holds no complete shard of clips.",
                hint="render them with 'joyflash train clips --config runs/tiny.toml'",
            )

    def __len__(self) -> int:
        return len(self._index)

    def frames(self, index: int) -> np.ndarray:
        """``(F, S, S, 3)`` uint8, a read-only view of the file."""
        shard, i = self._index[index]
        return self._shards[shard][0][i]

    def open_eyed(self, index: int, rows: np.ndarray | None = None) -> np.ndarray:
        """Frames whose eyes are those of the nearest moment without a blink.

        For what is to know nothing of lids: the embedded codec's latents.

        Args:
            index: Of the clip.
            rows: Frames of it ``(n,)``; all if ``None``.

        Returns:
            ``(n, S, S, 3)`` uint8, a copy.
        """
        clip, lids = self.frames(index), self.track("blink", index)
        rows = np.arange(len(clip)) if rows is None else rows
        opened = np.flatnonzero(lids < EYES_OPEN)
        x0, y0, x1, y1 = self.eyes_box(index)
        frames = np.array(clip[rows])
        for frame, row in zip(frames, rows, strict=True):
            if lids[row] >= EYES_OPEN and len(opened):
                nearest = opened[np.abs(opened - row).argmin()]
                frame[y0:y1, x0:x1] = clip[nearest, y0:y1, x0:x1]
        return frames

    def track(self, name: str, index: int) -> np.ndarray:
        """``visemes``, ``blink``, ``lips``, ``waveform`` or a box of a clip."""
        shard, i = self._index[index]
        return self._shards[shard][1][name][i]

    def visemes(self, index: int) -> np.ndarray:
        """``(F, 6)`` float32 in the order of ``VISEMES``."""
        return self.track("visemes", index)

    def lips(self, index: int) -> np.ndarray:
        """``(F, 3)`` float32 in the order of ``LIP_MEASURES``, from the renderer's geometry."""
        return self.track("lips", index)

    def mouths(self, index: int) -> np.ndarray:
        """``(F, M)`` float32 in the order of ``MOUTH_TRACKS``, NaN where unknown."""
        return np.concatenate([self.visemes(index), self.lips(index)[:, :2]], 1)

    def waveform(self, index: int) -> np.ndarray:
        """16 kHz mono float32 with ``MARGIN_FRAMES`` video frames of sound on both sides."""
        return self.track("waveform", index)

    def mouth_box(self, index: int) -> np.ndarray:
        """``(x0, y0, x1, y1)`` in pixels."""
        return self.track("mouth_box", index)

    def eyes_box(self, index: int) -> np.ndarray:
        """``(x0, y0, x1, y1)`` in pixels."""
        return self.track("eyes_box", index)

    def about(self, index: int) -> dict:
        """Identity, kind, split, voice and text of a clip."""
        shard, i = self._index[index]
        return self._shards[shard][2][i]
