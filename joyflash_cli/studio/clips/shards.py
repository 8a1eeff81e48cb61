"""Shards of clips are built by worker processes, and after a kill only those that miss."""

from collections.abc import Callable
from pathlib import Path

from joyflash_cli.studio.spreading import spread


def build_shards(
    build: Callable[[int], int],
    num_shards: int,
    *,
    out_dir: Path,
    processes: int,
    on_shard: Callable[[int, int], None] | None,
) -> None:
    """Build every missing shard in worker processes.

    Args:
        build: Writes the shard of an index and returns the index; it must be picklable.
        num_shards: Shards in all.
        out_dir: Folder of the shards.
        processes: Worker processes.
        on_shard: Told (shards done, shards in all).
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(num_shards) if not (out_dir / f"shard-{i:04d}.json").exists()]
    for done, _ in enumerate(spread(build, missing, processes=processes), 1):
        if on_shard is not None:
            on_shard(num_shards - len(missing) + done, num_shards)
