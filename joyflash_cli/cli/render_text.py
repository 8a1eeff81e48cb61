"""What ``joyflash render`` says: the plan of a dry run, and what came of a render."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyflash_cli import __version__

if TYPE_CHECKING:
    from joyflash_cli.render import RenderPlan, RenderRequest, RunRecord
    from joyflash_cli.render.memory import MemoryNeed
    from joyflash_cli.render.placement import Placement
    from joyflash_cli.weights.store import CheckpointFiles

WORTH_TELLING_BYTES = 1_000_000_000
"""A run that takes less memory is not worth a line."""

_TOLD = (
    "video_frames", "fps", "width", "height", "audio_s", "truncated",
    "wall_s", "realtime_factor", "first_frame_s", "load_s",
)  # fmt: skip
"""Figures of a render in ``--json``."""


def plan_summary(
    output: Path, files: "CheckpointFiles", request: "RenderRequest", plan: "RenderPlan | None"
) -> dict[str, Any]:
    """A dry run for a program that reads it; lengths are null for live sound."""
    width, height = request.size_px
    return {
        "dry_run": True,
        "output": str(output),
        "video_frames": None if plan is None else plan.num_frames,
        "blocks": None if plan is None else plan.num_blocks,
        "fps": request.output_fps or files.description.sampler.fps,
        "width": width,
        "height": height,
        "audio_s": None if plan is None else round(plan.audio_s, 6),
        "truncated": None if plan is None else bool(request.hearing and request.hearing.truncated),
        "seed": request.seed,
        "profile": files.name,
        "checkpoint": str(files.directory),
        "version": __version__,
    }


def plan_line(
    output: Path, files: "CheckpointFiles", request: "RenderRequest", plan: "RenderPlan | None"
) -> str:
    """A dry run in one line."""
    width, height = request.size_px
    length = "as long as the sound"
    times = ""
    if plan is not None:
        length = f"{plan.num_frames} frames in {plan.num_blocks} blocks"
        times = f"{plan.video_s:.2f} s video / {plan.audio_s:.2f} s audio, "
    fps = request.output_fps or files.description.sampler.fps
    return (
        f"would write {output}: {length}, {width} x {height} px at {fps:g} fps, {times}"
        f"profile {files.name} from {files.directory}"
    )


def result_line(result: "RunRecord") -> str:
    """What was saved, in one line."""
    if not result.complete:
        return f"saved {result.video_s:.1f} s of {result.audio_s:.1f} s in {result.output}"
    where = "standard output" if str(result.output) == "-" else str(result.output)
    return (
        f"saved {where}: {result.video_s:.2f} s video / {result.audio_s:.2f} s audio, "
        f"{result.realtime_factor:.2f}x realtime, seed {result.seed}"
        f"{f', signed by {result.signed_by}' if result.signed_by else ''}"
    )


def result_summary(result: "RunRecord") -> dict[str, Any]:
    """A render for a program that reads it."""
    figures = result.figures()
    return {
        "output": str(result.output),
        "complete": result.complete,
        **{name: figures[name] for name in _TOLD},
        "seed": result.seed,
        "profile": result.profile,
        "version": __version__,
        **({"signed_by": result.signed_by} if result.signed_by else {}),
        "sidecar": None if result.sidecar is None else str(result.sidecar),
    }


def memory_line(placement: "Placement", needs: "list[MemoryNeed]") -> str:
    """``device cuda:0 bfloat16, needs 9.1 of 23.4 GB free on cuda:0``."""
    return f"device {placement.describe()}; {', '.join(need.describe() for need in needs)}"


def is_worth_telling(needs: "list[MemoryNeed]") -> bool:
    """Whether a run is large enough for a line about its memory."""
    return any(need.total >= WORTH_TELLING_BYTES for need in needs)


def memory_summary(placement: "Placement", needs: "list[MemoryNeed]") -> dict[str, Any]:
    """The same for a program that reads it."""
    return {
        "device": str(placement.device),
        "dtype": placement.dtype_name,
        "memory": [
            {
                "device": need.device,
                "needed_bytes": need.total,
                "free_bytes": None if need.free is None else need.free.free,
                "parts_bytes": need.parts,
            }
            for need in needs
        ],
    }
