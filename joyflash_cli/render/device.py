"""What this machine offers: devices, number formats, cores, and what memory they have free."""

import contextlib
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyflash_cli.errors import DeviceError, UsageError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")

SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""The usual short names."""

BFLOAT16_CAPABILITY = 8
"""CUDA devices of this generation (Ampere) and later compute in bfloat16; older ones emulate it."""

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
AMD_DRIVER = Path("/dev/kfd")

CPU_INFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")

_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""

KEPT_BYTES = 256 * 2**20
LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""glibc refuses more."""


def use_threads(threads: int | None) -> None:
    """Lets a stage have so many CPU threads.

    Args:
        threads: Half the cores if ``None``: sampling and decoding run at the same time.
    """
    import torch

    torch.set_num_threads(max(1, usable_cores() // 2) if threads is None else threads)


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> bool:
    """Let the C library keep up to ``KEPT_BYTES`` that were freed; false where it cannot.

    PyTorch frees and asks for the same tensors in every pass. By default glibc returns each to the
    kernel, which clears every page anew: a third of the time of a small model on a CPU.
    """
    import ctypes

    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = mallopt(_MALLOC_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    return bool(kept and mallopt(_MALLOC_TRIM_THRESHOLD, KEPT_BYTES))


@dataclass(frozen=True)
class FreeMemory:
    """Memory of a device at one moment, in bytes."""

    free: int
    total: int


def choose_device(name: str) -> "torch.device":
    """The device called ``name``; ``auto`` takes CUDA, then the CPU.

    Apple's MPS is never taken unasked: nobody has rendered on it yet, and the embedded model is
    faster than real time on the CPU.

    Raises:
        DeviceError: When it does not exist here; a GPU that this PyTorch cannot use is named.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise DeviceError(
            f"device {name!r} is not known", hint="give auto, cpu, cuda, cuda:N or mps"
        )
    try:
        device = torch.device(name)
        if device.type == "cuda" and (problem := _cuda_problem(device.index or 0)):
            raise RuntimeError(problem)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}",
            hint="install a PyTorch built for this GPU, or give --device cpu"
            if "built" in str(error) or "driver" in str(error)
            else "leave --device out, or give cpu",
        ) from error
    return device


def _cuda_problem(index: int) -> str | None:
    """Why a CUDA device cannot be used, in one line."""
    import torch

    if not torch.cuda.is_available():
        return unusable_gpu() or "no CUDA device was found"
    if index >= torch.cuda.device_count():
        return f"the machine has {torch.cuda.device_count()} CUDA device(s), counted from 0"
    return None


def unusable_gpu() -> str | None:
    """One line on a GPU of this machine that this PyTorch cannot use; ``None`` without one."""
    import torch

    built_for = torch.version.cuda or torch.version.hip
    if torch.cuda.is_available():
        return None
    if NVIDIA_DRIVER.is_file():
        words = NVIDIA_DRIVER.read_text(errors="replace").split()
        versions = [word for word in words if word[:1].isdigit() and "." in word]
        gpu = f"an NVIDIA GPU (driver {versions[0]})" if versions else "an NVIDIA GPU"
    elif shutil.which("nvidia-smi"):
        gpu = "an NVIDIA driver"
    elif AMD_DRIVER.exists():
        gpu = "an AMD GPU"
    else:
        return None
    if built_for is None:
        return f"the machine has {gpu}, but this PyTorch ({torch.__version__}) is built for CPUs"
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return f"the machine has {gpu}, but CUDA_VISIBLE_DEVICES is empty"
    return f"the machine has {gpu}, but its driver gives nothing to PyTorch built for {built_for}"


def choose_dtype(name: str, device: "torch.device") -> "torch.dtype":
    """The number format called ``name``; ``auto`` takes the fast one of the device.

    Raises:
        UsageError: For an unknown name.
        DeviceError: When the device does not compute in it.
    """
    import torch

    if name == "auto":
        if has_bfloat16(device):
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else torch.float32
    full_name = SHORT_DTYPES.get(name, name)
    if full_name not in DTYPES:
        known = ", ".join((*SHORT_DTYPES, *DTYPES))
        raise UsageError(f"dtype {name!r} does not exist", hint=f"one of auto, {known}")
    dtype = getattr(torch, full_name)
    if device.type == "cuda" and dtype == torch.bfloat16 and not has_bfloat16(device):
        raise DeviceError(
            f"{torch.cuda.get_device_name(device)} does not compute in bfloat16",
            hint="give --dtype fp16 or fp32",
        )
    if device.type == "cpu" and dtype == torch.float16:
        raise DeviceError("the CPU does not compute in float16", hint="give --dtype bf16 or fp32")
    return dtype


def has_bfloat16(device: "torch.device") -> bool:
    """Whether the device has instructions for bfloat16, emulation not counted."""
    import torch

    if device.type == "cuda":
        # torch.cuda.is_bf16_supported() also counts emulation, which is many times slower.
        is_amd = torch.version.hip is not None
        return is_amd or torch.cuda.get_device_capability(device)[0] >= BFLOAT16_CAPABILITY
    if device.type == "cpu":
        abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
    return False


def free_memory(device: "torch.device") -> FreeMemory | None:
    """What a device has and has left; ``None`` where the system does not say."""
    import torch

    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return FreeMemory(free, total)
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return FreeMemory(total - torch.mps.driver_allocated_memory(), total)
    return host_memory()


def host_memory() -> FreeMemory | None:
    """Memory of the machine, or of the container that the program runs in, whichever is less."""
    machine = _machine_memory()
    container = _container_memory()
    if machine is None or container is None:
        return machine or container
    return FreeMemory(min(machine.free, container.free), min(machine.total, container.total))


def _machine_memory() -> FreeMemory | None:
    try:
        fields = dict(
            line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line
        )
        kilobytes = [int(fields[name].split()[0]) for name in ("MemAvailable", "MemTotal")]
        return FreeMemory(kilobytes[0] << 10, kilobytes[1] << 10)
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        # Elsewhere the system tells what there is, but not what is left: half of it is a guess
        # on the safe side.
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return FreeMemory(total // 2, total)


def _container_memory() -> FreeMemory | None:
    """The limit of the control group, version 2 or 1; ``None`` without a limit."""
    files = (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    )
    for limit_name, used_name, stat_name in files:
        try:
            limit = int((CGROUP / limit_name).read_text())
            used = int((CGROUP / used_name).read_text())
        except (OSError, ValueError):
            continue
        with contextlib.suppress(OSError, ValueError):
            lines = (CGROUP / stat_name).read_text().splitlines()
            # Cached files, which the system gives back when memory is needed.
            used -= int(dict(line.split() for line in lines).get("inactive_file", 0))
        if limit < 1 << 60:  # version 1 says "no limit" with a huge number
            return FreeMemory(max(limit - used, 0), limit)
    return None


def torch_state() -> dict[str, Any]:
    """How PyTorch fits this machine, for a report.

    Returns:
        ``version`` with its build, what it is ``built_for``, ``num_threads`` of one operation, the
        device and number format that a render has ``chosen`` without being told, and the
        ``problem`` why a GPU of the machine is not used, ``None`` when nothing is wrong.
    """
    import torch

    device = choose_device("auto")
    dtype = str(choose_dtype("auto", device)).removeprefix("torch.")
    toolkits = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    built_for = next((f"{name} {version}" for name, version in toolkits.items() if version), "CPU")
    return {
        "version": torch.__version__,
        "built_for": built_for,
        "num_threads": torch.get_num_threads(),
        "chosen": f"{device} {dtype}",
        "problem": unusable_gpu(),
    }


def device_states() -> list[dict[str, Any]]:
    """Every device that PyTorch can compute on, the CPU last, for a report.

    Returns:
        For each its ``name``, the ``model`` as its maker calls it, whether it ``has_bfloat16``
        instructions, its ``memory`` in bytes, ``None`` where the system does not say, and the
        ``attention`` kernels that run on it in its own fast number format.
    """
    import torch

    from joyflash_cli.model.kernels import usable_backends

    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    states = []
    for device in map(torch.device, (*names, "cpu")):
        dtype, memory = choose_dtype("auto", device), free_memory(device)
        states.append(
            {
                "name": str(device),
                "model": device_model(device),
                "has_bfloat16": has_bfloat16(device),
                "memory": None if memory is None else asdict(memory),
                "attention": usable_backends(device=device, dtype=dtype, head_dim=128),
            }
        )
    return states


def device_model(device: "torch.device") -> str:
    """The device as its maker calls it, as far as the system tells."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return platform.processor() or "Apple GPU"
    try:
        lines = CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()
