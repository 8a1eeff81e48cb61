"""What this machine offers to a render: PyTorch, its devices, and what they have free."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.render.device import (
    FreeMemory,
    choose_device,
    choose_dtype,
    free_memory,
    has_bfloat16,
    unusable_gpu,
)

if TYPE_CHECKING:
    import torch

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class DeviceState:
    """One device that PyTorch can compute on.

    Attributes:
        name: ``cuda:0``, ``mps`` or ``cpu``.
        model: As its maker calls it.
        has_bfloat16: Whether it has instructions for bfloat16.
        memory: Free and total; ``None`` where the system does not say.
        attention: Attention kernels that run on it in its own fast number format.
    """

    name: str
    model: str
    has_bfloat16: bool
    memory: FreeMemory | None
    attention: tuple[str, ...]


@dataclass(frozen=True)
class TorchState:
    """PyTorch as it is installed.

    Attributes:
        version: With its build, such as ``2.13.0+cu126``.
        built_for: ``CUDA 12.6``, ``ROCm 6.4`` or ``CPU``.
        num_threads: Threads that one operation uses.
        chosen: Device and number format that a render takes without being told.
        problem: Why a GPU of the machine is not used; ``None`` when nothing is wrong.
    """

    version: str
    built_for: str
    num_threads: int
    chosen: str
    problem: str | None


def torch_state() -> TorchState:
    """How PyTorch fits this machine."""
    import torch

    built_for = "CPU"
    if torch.version.cuda:
        built_for = f"CUDA {torch.version.cuda}"
    elif torch.version.hip:
        built_for = f"ROCm {torch.version.hip}"
    device = choose_device("auto")
    dtype = str(choose_dtype("auto", device)).removeprefix("torch.")
    return TorchState(
        version=torch.__version__,
        built_for=built_for,
        num_threads=torch.get_num_threads(),
        chosen=f"{device} {dtype}",
        problem=unusable_gpu(),
    )


def device_states() -> list[DeviceState]:
    """Every device that PyTorch can compute on, the CPU last."""
    import torch

    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [_device_state(torch.device(name)) for name in (*names, "cpu")]


def _device_state(device: "torch.device") -> DeviceState:
    import torch

    from joyflash_cli.model.kernels import usable_backends

    if device.type == "cuda":
        model = torch.cuda.get_device_name(device)
    else:
        model = cpu_model() if device.type == "cpu" else platform.processor() or "Apple GPU"
    dtype = choose_dtype("auto", device)
    kernels = usable_backends(device=device, dtype=dtype, head_dim=128)
    return DeviceState(str(device), model, has_bfloat16(device), free_memory(device), kernels)


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
