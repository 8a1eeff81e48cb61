"""Which devices a batch's workers use, one each."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Present where a kernel driver for CUDA (also under Windows' Linux) or ROCm is loaded.
_ACCELERATOR_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def worker_devices(device: str, num_workers: int | None) -> tuple[str, ...]:
    """The device of each worker of this machine.

    Args:
        device: As the user gave it; ``auto`` and ``cuda`` take every GPU in turn.
        num_workers: As the user gave it; by default one per GPU, or one per CPU core.
    """
    gpus = _num_gpus() if device in ("auto", "cuda") else 0
    if gpus:
        return tuple(f"cuda:{index % gpus}" for index in range(num_workers or gpus))
    return (device,) * (num_workers or (usable_cores() if device in ("auto", "cpu") else 1))


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _num_gpus() -> int:
    """GPUs that PyTorch can use; it is asked only where there may be one, since asking is slow."""
    if sys.platform == "linux" and not any(Path(file).exists() for file in _ACCELERATOR_FILES):
        return 0
    import torch

    return torch.cuda.device_count()
