"""Shards of clips: written by worker processes, and after a kill only those that miss.

A shard is three files: ``shard-0000.frames.npy`` (uint8 ``(n, F, S, S, 3)``),
``shard-0000.safetensors`` (tracks, lip measures, boxes, sound) and ``shard-0000.json`` (who and
what), which comes last and marks it complete.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Required, TypedDict

import numpy as np

from joyflash_cli.files import write_whole
from joyflash_cli.studio.spreading import spread


class Building(TypedDict, total=False):
    """How shards are built.

    Attributes:
        out_dir: Folder of the shards; what is there stays.
        processes: Worker processes.
        on_shard: Told (shards done, shards in all).
    """

    out_dir: Required[Path]
    processes: int
    on_shard: Callable[[int, int], None]


def build_shards(
    make: Callable[[range], list[dict]],
    num_places: int,
    *,
    per_shard: int,
    out_dir: Path,
    processes: int = 2,
    on_shard: Callable[[int, int], None] | None = None,
) -> None:
    """Write every missing shard; run again after a kill to go on. See ``Building``.

    Args:
        make: Gives the clips of a shard's places; it can be pickled.
        num_places: Places in all: clips, films.
        per_shard: Places of one shard.
        out_dir: Folder of the shards.
        processes: Worker processes.
        on_shard: Told how far it is.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    starts = range(0, num_places, per_shard)
    shards = [
        (out_dir / f"shard-{index:04d}", range(start, min(start + per_shard, num_places)))
        for index, start in enumerate(starts)
    ]
    missing = [(stem, places) for stem, places in shards if not Path(f"{stem}.json").exists()]
    build = functools.partial(_build_shard, make=make)
    for done, _ in enumerate(spread(build, missing, processes=processes), 1):
        if on_shard is not None:
            on_shard(len(shards) - len(missing) + done, len(shards))


def _build_shard(shard: tuple[Path, range], *, make: Callable[[range], list[dict]]) -> None:
    stem, places = shard
    write_shard(stem, make(places))


def rendered(
    places: range, *, render: Callable[..., dict | None], load: Callable[..., dict], given: tuple
) -> list[dict]:
    """The clips of some places but those that ``render`` cannot make, for ``build_shards``.

    Args:
        places: Their indices.
        render: Makes the clip of an index, the first of ``given`` and what was loaded.
        load: Loads what it needs from ``given``, once a process.
        given: Configuration and folders.
    """
    loaded = _loaded(load, *given)
    clips = (render(place, given[0], **loaded) for place in places)
    return [clip for clip in clips if clip is not None]


@functools.cache
def _loaded(load: Callable[..., dict], *given: Any) -> dict:
    return load(*given)


def write_shard(stem: Path, clips: list[dict]) -> None:
    """Write a shard of clips as ``render_clip`` gives them."""
    from safetensors.numpy import save_file

    np.save(f"{stem}.frames.npy", np.stack([clip["frames"] for clip in clips]))
    names = ("visemes", "blink", "lips", "waveform", "mouth_box", "eyes_box")
    tensors = {name: np.stack([clip[name] for clip in clips]) for name in names}
    save_file(tensors, f"{stem}.safetensors")
    write_whole(Path(f"{stem}.json"), json.dumps([clip["about"] for clip in clips]))
