"""What a batch would do: every open row's inputs read as rendering would, nothing written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from joyflash_cli.batch.jobs import Failure
from joyflash_cli.batch.plan import BatchPlan
from joyflash_cli.checkpoints.store import CheckpointFiles
from joyflash_cli.errors import JoyFlashError


@dataclass(frozen=True)
class Rehearsal:
    """What would come of the open rows of this run's shard.

    Attributes:
        num_renders: Rows whose inputs are good.
        num_blocks: Blocks they take together.
        video_s: Seconds of video they come to.
        failures: ``row``, ``id``, ``code`` and ``error`` of each of the others.
    """

    num_renders: int
    num_blocks: int
    video_s: float
    failures: tuple[dict[str, object], ...]


def rehearse(plan: BatchPlan, files: CheckpointFiles) -> Rehearsal:
    """Reads the inputs of every open row; no weights are loaded."""
    from joyflash_cli.pipeline import plan_render, read_request, read_sampler_profile

    sampler = read_sampler_profile(files)
    num_renders, num_blocks, video_s = 0, 0, 0.0
    failures: list[dict[str, object]] = []
    for found in plan.table.rows("open", mine=True):
        row = found.row
        try:
            request = read_request(
                files, Path(row.image), Path(row.audio), seed=row.seed, prompt=row.prompt
            )
        except JoyFlashError as error:
            failure = Failure.of(error)
            failures.append(
                {"row": row.number, "id": row.id, "code": failure.code, "error": failure.text}
            )
            continue
        render = plan_render(request, sampler)
        num_renders += 1
        num_blocks += render.num_blocks
        video_s += render.video_s
    return Rehearsal(num_renders, num_blocks, video_s, tuple(failures))
