"""As many workers as the memory holds, each with a model of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from joyflash_cli.batch.renderer import RendererSettings
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    from joyflash_cli.render.preflight import MemoryNeed

WORKER_BYTES = 300 << 20
"""What a process takes before any weights: Python with PyTorch, measured 0.25 GB, and some room."""


def with_named_dtype(settings: RendererSettings, device: str) -> RendererSettings:
    """The settings with the number format that ``auto`` means on this machine.

    Results depend on it, so rows are known by it.

    Raises:
        DeviceError: When the device is absent or does not compute in it.
        UsageError: For an unknown name, or options that exclude each other.
    """
    from joyflash_cli.render.placement import choose_placement

    placement = choose_placement(device, settings.dtype, settings.execution)
    return replace(settings, dtype=str(placement.dtype).removeprefix("torch."))


def fit_workers(
    devices: Sequence[str], settings: RendererSettings, files: CheckpointFiles, *, prompt: str = ""
) -> tuple[tuple[str, ...], str]:
    """The devices of the workers that fit together, and a line where they are fewer than asked.

    Args:
        devices: One for each worker that is wanted.
        settings: How each loads its model.
        files: The checkpoint; only descriptions and headers are read.
        prompt: Of a row; a new one needs the text encoder.

    Raises:
        DeviceError: ``E-DEVICE-MEMORY`` when not even one fits.
        UsageError: When an option does not fit the checkpoint.
    """
    from joyflash_cli.media.inputs.sizing import largest_size
    from joyflash_cli.render.placement import check_checkpoint, choose_placement
    from joyflash_cli.render.preflight import PlannedRun, check_memory, memory_needs

    frame = settings.frame.resolved(files)
    side = frame.size_px or frame.max_size_px
    size_px = largest_size(files.description.framing) if side is None else (side, side)
    run = PlannedRun(files, size_px, prompt)
    needs: dict[str, list[MemoryNeed]] = {}
    taken: Counter[str] = Counter()
    kept: list[str] = []
    for device in devices:
        if device not in needs:
            placement = choose_placement(device, settings.dtype, settings.execution)
            check_checkpoint(files, placement)
            needs[device] = memory_needs(run, placement)
            if not kept:
                check_memory(run, placement)
        if kept and not all(_fits(need, taken) for need in needs[device]):
            continue
        kept.append(device)
        for need in needs[device]:
            taken[need.device] += _bytes(need)
    if len(kept) == len(devices):
        return tuple(kept), ""
    each = ", ".join(need.describe() for need in needs[devices[0]])
    return tuple(kept), f"{len(kept)} of {len(devices)} workers fit: each {each}"


def _fits(need: MemoryNeed, taken: Counter[str]) -> bool:
    return need.free is None or taken[need.device] + _bytes(need) <= need.free.free


def _bytes(need: MemoryNeed) -> int:
    return need.total + (WORKER_BYTES if need.device == "cpu" else 0)
