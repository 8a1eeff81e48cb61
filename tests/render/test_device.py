"""Devices, number formats and free memory, with the machine's answers replaced."""

import pytest
import torch

from joyflash_cli.errors import DeviceError, UsageError
from joyflash_cli.render import device as device_module
from joyflash_cli.render.device import (
    FreeMemory,
    choose_device,
    choose_dtype,
    free_memory,
    has_bfloat16,
    host_memory,
    unusable_gpu,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
NVIDIA = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\n"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine without GPU, driver or container limits; tests add what they need."""
    monkeypatch.setattr(device_module, "NVIDIA_DRIVER", tmp_path / "nvidia")
    monkeypatch.setattr(device_module, "AMD_DRIVER", tmp_path / "kfd")
    monkeypatch.setattr(device_module, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(device_module, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(device_module.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def with_cuda(monkeypatch, *, count=1, capability=(8, 0)):
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")


def test_a_machine_without_a_gpu_has_nothing_to_report(machine):
    assert unusable_gpu() is None
    assert choose_device("auto") == CPU


def test_a_device_nobody_has_rendered_on_is_not_taken_unasked(machine, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == CPU


def test_a_cpu_build_beside_a_gpu_is_named(machine):
    (machine / "nvidia").write_text(NVIDIA)
    said = unusable_gpu()
    assert said.startswith("the machine has an NVIDIA GPU (driver 550.54.14)")
    assert "built for CPUs" in said
    with pytest.raises(DeviceError, match="built for CPUs") as caught:
        choose_device("cuda")
    assert "PyTorch built for this GPU" in caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_driver_that_gives_nothing_is_named(machine, monkeypatch):
    (machine / "nvidia").write_text(NVIDIA)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    assert "gives nothing to PyTorch built for 12.6" in unusable_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES is empty" in unusable_gpu()


def test_an_amd_gpu_is_seen(machine):
    (machine / "kfd").touch()
    assert "an AMD GPU" in unusable_gpu()


def test_no_gpu_at_all_says_so(machine):
    with pytest.raises(DeviceError, match="no CUDA device was found") as caught:
        choose_device("cuda")
    assert caught.value.exit_code == 5


def test_a_device_number_beyond_the_last(machine, monkeypatch):
    with_cuda(monkeypatch, count=2)
    with pytest.raises(DeviceError, match=r"'cuda:2' cannot be used.* 2 CUDA device"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["nonsense", "cpu:x", ""])
def test_names_that_are_no_device(name):
    with pytest.raises(DeviceError) as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp32", torch.float32), ("float32", torch.float32), ("bf16", torch.bfloat16)],
)
def test_short_and_long_names(name, dtype):
    assert choose_dtype(name, CPU) == dtype


def test_formats_that_the_device_lacks_are_refused(machine, monkeypatch):
    with pytest.raises(DeviceError, match="the CPU does not compute in float16"):
        choose_dtype("fp16", CPU)
    with_cuda(monkeypatch, capability=(7, 0))
    with pytest.raises(DeviceError, match="Tesla V100 does not compute in bfloat16") as caught:
        choose_dtype("bf16", CUDA)
    assert caught.value.exit_code == 5
    assert "fp16" in caught.value.hint
    assert choose_dtype("fp16", CUDA) == torch.float16
    with pytest.raises(UsageError, match="'int8' does not exist"):
        choose_dtype("int8", CPU)


def test_the_fast_format_of_each_generation(machine, monkeypatch):
    with_cuda(monkeypatch, capability=(7, 5))
    assert choose_dtype("auto", CUDA) == torch.float16
    with_cuda(monkeypatch, capability=(9, 0))
    assert choose_dtype("auto", CUDA) == torch.bfloat16
    assert has_bfloat16(CUDA)


def test_free_memory_of_the_machine(machine):
    assert free_memory(torch.device("cpu")).total > 0  # from the system's own count of pages
    (machine / "meminfo").write_text("MemTotal: 2048 kB\nMemFree: 1 kB\nMemAvailable: 1024 kB\n")
    assert host_memory() == FreeMemory(1 << 20, 2 << 20)


@pytest.mark.parametrize(
    ("limit", "used", "reclaimable", "expected"),
    [
        ("1048576", "500000", "inactive_file 100000", FreeMemory(648_576, 1 << 20)),
        ("1048576", "2000000", "", FreeMemory(0, 1 << 20)),
        ("max", "1", "", FreeMemory(1 << 20, 2 << 20)),
        ("99999999999", "1", "", FreeMemory(1 << 20, 2 << 20)),
    ],
)
def test_a_container_may_have_less(machine, limit, used, reclaimable, expected):
    (machine / "meminfo").write_text("MemTotal: 2048 kB\nMemAvailable: 1024 kB\n")
    group = machine / "cgroup"
    group.mkdir()
    (group / "memory.max").write_text(limit)
    (group / "memory.current").write_text(used)
    (group / "memory.stat").write_text(reclaimable)
    assert host_memory() == expected


def test_the_older_kind_of_control_group(machine):
    (machine / "meminfo").write_text("MemTotal: 2048 kB\nMemAvailable: 1024 kB\n")
    group = machine / "cgroup" / "memory"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("9223372036854771712")
    (group / "memory.usage_in_bytes").write_text("1")
    assert host_memory() == FreeMemory(1 << 20, 2 << 20)
    (group / "memory.limit_in_bytes").write_text("4096")
    assert host_memory() == FreeMemory(4095, 4096)


def test_free_memory_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 7))
    assert free_memory(CUDA) == FreeMemory(3, 7)


def test_a_stage_takes_half_of_the_cores_it_may_use(monkeypatch):
    chosen = []
    for cores, threads in ((1, 1), (2, 1), (8, 4)):
        allowed = set(range(cores))
        monkeypatch.setattr(
            device_module.os, "sched_getaffinity", lambda _, a=allowed: a, raising=False
        )
        monkeypatch.setattr(torch, "set_num_threads", chosen.append)
        device_module.use_threads(None)
        assert chosen.pop() == threads


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch):
    import platform

    assert device_module.keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert device_module.keep_freed_memory() is False
