"""Shards of clips: written by worker processes, and after a kill only those that miss.

A shard is three files: ``shard-0000.frames.npy`` (uint8 ``(n, F, S, S, 3)``),
``shard-0000.safetensors`` (tracks, lip measures, boxes, sound) and ``shard-0000.json`` (who and
what), which comes last and marks it complete.
"""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from joyflash_cli.studio.spreading import spread

MakeClips = Callable[[range], list[dict]]
"""Makes the clips of some places; it must be picklable."""


def build_shards(
    make: MakeClips,
    num_places: int,
    *,
    per_shard: int,
    out_dir: Path,
    processes: int = 2,
    on_shard: Callable[[int, int], None] | None = None,
) -> None:
    """Write every missing shard; run again after a kill to go on.

    Args:
        make: Gives the clips of a shard's places.
        num_places: Places in all: clips, films.
        per_shard: Places of one shard.
        out_dir: Folder of the shards.
        processes: Worker processes.
        on_shard: Told (shards done, shards in all).
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    num_shards = -(-num_places // per_shard)
    missing = [i for i in range(num_shards) if not (out_dir / f"shard-{i:04d}.json").exists()]
    build = functools.partial(
        _build_shard, make=make, num_places=num_places, per_shard=per_shard, out_dir=out_dir
    )
    for done, _ in enumerate(spread(build, missing, processes=processes), 1):
        if on_shard is not None:
            on_shard(num_shards - len(missing) + done, num_shards)


def _build_shard(
    index: int, *, make: MakeClips, num_places: int, per_shard: int, out_dir: Path
) -> int:
    first = index * per_shard
    places = range(first, min(first + per_shard, num_places))
    write_shard(out_dir / f"shard-{index:04d}", make(places))
    return index


def write_shard(stem: Path, clips: list[dict]) -> None:
    """Write a shard of clips as ``render_clip`` gives them."""
    from safetensors.numpy import save_file

    np.save(f"{stem}.frames.npy", np.stack([clip["frames"] for clip in clips]))
    names = ("visemes", "blink", "lips", "waveform", "mouth_box", "eyes_box")
    tensors = {name: np.stack([clip[name] for clip in clips]) for name in names}
    save_file(tensors, f"{stem}.safetensors")
    partial = Path(f"{stem}.json.part")
    partial.write_text(json.dumps([clip["about"] for clip in clips]))
    os.replace(partial, f"{stem}.json")
