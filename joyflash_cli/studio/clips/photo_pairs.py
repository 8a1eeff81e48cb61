"""Pairs of photographs of one person, neutral and smiling, as clips of two frames.

They teach the decoder what it cannot know from a closed mouth: a person's own teeth. They hold
neither speech nor motion.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from joyflash_cli.media.inputs.picture import read_picture
from joyflash_cli.studio.clips.film_clips import mirrored, pointed_clip
from joyflash_cli.studio.clips.mesh_points import EYE_CORNERS, cut_turned, framing_of, into_frame
from joyflash_cli.studio.clips.photo_clips import PhotoRecord, read_photos
from joyflash_cli.studio.clips.shards import write_shard
from joyflash_cli.studio.heads.face_state import Split, is_held_out

LEAST_DIFFERENCE = 0.03
"""Lip openings, in outer eye distances, that make two photographs a pair."""


def find_pairs(photos: list[PhotoRecord]) -> list[tuple[PhotoRecord, PhotoRecord]]:
    """Photographs of one person with closed and with open lips, in this order."""
    ordered = sorted(photos, key=lambda photo: (photo.person, photo.gap))
    pairs = []
    for _, group in itertools.groupby(ordered, key=lambda photo: photo.person):
        first, *others = group
        pairs += [(first, other) for other in others if other.gap - first.gap >= LEAST_DIFFERENCE]
    return pairs


def cut_pair(pair: tuple[PhotoRecord, PhotoRecord], *, size_px: int, split: Split) -> dict:
    """Two photographs as a clip of two frames, eyes at the same place.

    Raises:
        ImageError: A picture is missing or cannot be read.
    """
    closed, opened = pair
    framing = framing_of(closed.points)
    eyes = into_frame(closed.points, framing)[list(EYE_CORNERS)]
    framings = (framing, _similarity(eyes, opened.points[list(EYE_CORNERS)]))
    frames = [
        cut_turned(read_picture(photo.path).pixels, cut, size_px)
        for photo, cut in zip(pair, framings, strict=True)
    ]
    framed = np.stack([into_frame(p.points, cut) for p, cut in zip(pair, framings, strict=True)])
    about = {
        "identity": closed.identity, "kind": "pair", "person": closed.person, "split": split,
        "voice": "", "text": "",
    }  # fmt: skip
    return pointed_clip(np.stack(frames), framed, about)


def _similarity(near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Turn, scale and shift ``(2, 3)`` that take ``near`` to ``far``, both ``(n, 2)``, best."""
    middle, aim = near.mean(0), far.mean(0)
    x, y = (near - middle).T
    u, v = (far - aim).T
    size = (x * x + y * y).sum()
    along, across = (x * u + y * v).sum() / size, (x * v - y * u).sum() / size
    turn = np.array([[along, -across], [across, along]])
    return np.column_stack([turn, aim - turn @ middle])


def build_pairs(
    photos_dir: Path,
    out_dir: Path,
    *,
    size_px: int,
    split: Split,
    on_shard: Callable[[int, int], None] | None = None,
) -> None:
    """Write all pairs of a folder of photographs, each once more mirrored, as one shard.

    Args:
        photos_dir: Folder of the photographs.
        out_dir: Folder of the shard; what is there stays.
        size_px: Side of the frames.
        split: Every tenth person is held out.
        on_shard: Told (shards done, shards in all).

    Raises:
        DataError: The folder is not one of photographs.
        ImageError: A picture cannot be read.
    """
    if (out_dir / "shard-0000.json").exists():
        return
    held_out = split == "held-out"
    photos = [p for p in read_photos(photos_dir) if is_held_out(p.identity) == held_out]
    clips = [cut_pair(pair, size_px=size_px, split=split) for pair in find_pairs(photos)]
    if not clips:
        return
    out_dir.mkdir(parents=True, exist_ok=True)
    write_shard(out_dir / "shard-0000", [*clips, *map(mirrored, clips)])
    if on_shard is not None:
        on_shard(1, 1)
