"""Workers that fit into the memory, and the number format that rows are known by."""

import pytest
import torch

from joyflash_cli.batch.fitting import WORKER_BYTES, fit_workers, with_named_dtype
from joyflash_cli.batch.renderer import RendererSettings
from joyflash_cli.errors import DeviceError
from joyflash_cli.media.scene import MAX_SIZE_PX
from joyflash_cli.render import device as device_module
from joyflash_cli.render import memory
from joyflash_cli.render.device import FreeMemory
from joyflash_cli.render.memory import PlannedRun, memory_needs
from joyflash_cli.render.placement import choose_placement
from joyflash_cli.weights.store import resolve_checkpoint

SETTINGS = RendererSettings(dtype="float32")


@pytest.fixture
def files(toy_checkpoint):
    return resolve_checkpoint("tiny", toy_checkpoint)


@pytest.fixture
def one_worker(files):
    """Bytes of one worker on the CPU."""
    run = PlannedRun(files, (MAX_SIZE_PX, MAX_SIZE_PX))
    (need,) = memory_needs(run, choose_placement("cpu", "float32"))
    return need.total + WORKER_BYTES


def with_memory(monkeypatch, free):
    monkeypatch.setattr(memory, "free_memory", lambda device: FreeMemory(free, 2 * free))


@pytest.mark.parametrize(("room", "expected"), [(1.0, 1), (2.5, 2), (3.0, 3), (16.0, 4)])
def test_as_many_workers_as_the_memory_holds(monkeypatch, files, one_worker, room, expected):
    with_memory(monkeypatch, int(room * one_worker))
    kept, told = fit_workers(("cpu",) * 4, SETTINGS, files)
    assert kept == ("cpu",) * expected
    assert bool(told) == (expected < 4)
    if told:
        assert told.startswith(f"{expected} of 4 workers fit: each needs 0.")
        assert "free on cpu" in told


def test_less_than_one_worker_is_refused_with_a_way_out(monkeypatch, files):
    with_memory(monkeypatch, 1 << 20)
    with pytest.raises(DeviceError, match="needs .* of 0.0 GB free on cpu") as caught:
        fit_workers(("cpu",) * 4, SETTINGS, files)
    assert caught.value.code == "E-DEVICE-MEMORY"


def test_a_machine_that_does_not_say_gets_what_was_asked(monkeypatch, files):
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    assert fit_workers(("cpu",) * 9, SETTINGS, files) == (("cpu",) * 9, "")


def test_rows_are_known_by_the_number_format_that_is_used(monkeypatch):
    auto = RendererSettings(dtype="auto")
    keys = []
    for has_bfloat16 in (False, True):
        monkeypatch.setattr(device_module, "has_bfloat16", lambda _device, has=has_bfloat16: has)
        keys.append(with_named_dtype(auto, "cpu").parameters)
    assert [key["dtype"] for key in keys] == ["float32", "bfloat16"]
    assert with_named_dtype(RendererSettings(dtype="fp32"), "cpu").parameters == keys[0]
    assert choose_placement("cpu", "bf16").dtype == torch.bfloat16
