"""Workers of this machine: their devices, and as many as the memory holds models."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.batch.renderer import RendererSettings
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    from joyflash_cli.render.memory import MemoryNeed

# Present where a kernel driver for CUDA (also under Windows' Linux) or ROCm is loaded.
_ACCELERATOR_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")

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


def worker_devices(device: str, num_workers: int | None, each: int = 1) -> tuple[str, ...]:
    """The device of each worker of this machine, or the first of its devices.

    Args:
        device: As the user gave it; ``auto`` and ``cuda`` take every GPU in turn.
        num_workers: As the user gave it; by default as many as there are GPUs, or CPU cores, for.
        each: GPUs of a worker, or processes on the CPU.
    """
    from joyflash_cli.render.device import usable_cores

    groups = _num_gpus() // each if device in ("auto", "cuda") else 0
    if groups:
        return tuple(f"cuda:{index % groups * each}" for index in range(num_workers or groups))
    cores = max(usable_cores() // each, 1)
    return (device,) * (num_workers or (cores if device in ("auto", "cpu") else 1))


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
    from joyflash_cli.media.inputs.framing import largest_size
    from joyflash_cli.render.memory import PlannedRun, check_memory, memory_needs
    from joyflash_cli.render.placement import place

    frame = settings.frame.resolved(files.description.framing, files.name)
    side = frame.size_px or frame.max_size_px
    size_px = largest_size(files.description.framing) if side is None else (side, side)
    run = PlannedRun(files, size_px, prompt)
    needs: dict[str, list[MemoryNeed]] = {}
    taken: Counter[str] = Counter()
    kept: list[str] = []
    for device in devices:
        if device not in needs:
            placement = place(files, device, settings.dtype, settings.execution)
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


def _num_gpus() -> int:
    """GPUs that PyTorch can use; it is asked only where there may be one, since asking is slow."""
    if sys.platform == "linux" and not any(Path(file).exists() for file in _ACCELERATOR_FILES):
        return 0
    import torch

    return torch.cuda.device_count()
