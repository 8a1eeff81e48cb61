"""What full-size runs need, when they are refused, and what is proposed instead."""

import dataclasses
import json
import math
import os

import pytest
import torch
from presets import AVATAR_1_3B

from joyflash_cli.config import to_dict
from joyflash_cli.description import parse_description
from joyflash_cli.errors import CheckpointError, DeviceError
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.render import memory
from joyflash_cli.render.device import FreeMemory
from joyflash_cli.render.job import is_out_of_memory
from joyflash_cli.render.memory import (
    PlannedRun,
    check_memory,
    memory_needs,
    memory_ran_out,
)
from joyflash_cli.render.placement import ExecutionOptions, Placement
from joyflash_cli.sampler.settings import PAPER
from joyflash_cli.weights.store import CheckpointFiles, resolve_checkpoint

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
GB = 1e9
SIZE = (512, 512)


def write_header(path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of a model of any size: a header, and a hole of the size of the rest."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    data = json.dumps(header).encode()
    path.write_bytes(len(data).to_bytes(8, "little") + data)
    os.truncate(path, 8 + len(data) + end)


@pytest.fixture(scope="module")
def shapes():
    with torch.device("meta"):
        transformer = CausalTransformer(AVATAR_1_3B)
    return {name: tuple(value.shape) for name, value in transformer.state_dict().items()}


@pytest.fixture
def files(tmp_path, shapes) -> CheckpointFiles:
    """LiveTalk's sizes: transformer, Wan VAE and wav2vec2; nothing else."""
    write_header(tmp_path / "transformer.safetensors", shapes)
    write_header(tmp_path / "codec.safetensors", {"all": (126_892_531,)})
    write_header(tmp_path / "front_end.safetensors", {"all": (94_371_712,)})
    sections = {
        "transformer": to_dict(AVATAR_1_3B),
        "codec": {"kind": "wan"},
        "front_end": {"kind": "wav2vec2", "options": {"rate_hz": 16.0}},
        "sampler": to_dict(PAPER),
        "framing": {"area_px": 1 << 20},
        "conditioning": {"default_prompt": "a person talks"},
    }
    return CheckpointFiles(tmp_path, parse_description(sections, name="big"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No prompt of this machine is known already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def free(monkeypatch):
    """Sets what the GPU and the machine have free."""

    def set_free(gpu_gb: float, host_gb: float = 64.0) -> None:
        def answer(device: torch.device) -> FreeMemory:
            gigabytes = host_gb if device.type == "cpu" else gpu_gb
            return FreeMemory(int(gigabytes * GB), int(80 * GB))

        monkeypatch.setattr(memory, "free_memory", answer)
        monkeypatch.setattr(memory, "has_bfloat16", lambda device: True)

    set_free(80.0)
    return set_free


def on_gpu(**options) -> Placement:
    dtype = options.pop("dtype", torch.bfloat16)
    return Placement(CUDA, dtype, CUDA, ExecutionOptions(**options))


def test_what_a_full_size_run_needs(files, free):
    needs = memory_needs(PlannedRun(files, SIZE), on_gpu())
    assert [need.device for need in needs] == ["cuda:0", "cpu"]
    parts = needs[0].parts
    assert parts["transformer"] == 2 * 1_421_187_232
    assert parts["cache (0.2 GB per latent frame)"] == 9 * 2 * 30 * 1024 * 1536 * 2
    assert parts["audio encoder"] == 4 * 94_371_712
    assert parts["codec"] == pytest.approx(7.7 * GB, rel=0.02)
    assert needs[0].total == sum(parts.values())
    assert needs[0].describe().startswith("needs ")
    assert "of 80.0 GB free on cuda:0" in needs[0].describe()


def test_each_option_saves_what_it_should(files, free):
    write_header(files.directory / "fast_codec.safetensors", {"all": (9_844_611,)})

    def total(**options) -> float:
        return memory_needs(PlannedRun(files, SIZE), on_gpu(**options))[0].total / GB

    plain = total()
    linear = 30 * (8 * 1536**2 + 2 * 1536 * 8960)
    assert plain - total(quantize="int8") == pytest.approx(linear * 1.05 / GB, rel=0.02)
    assert plain - total(offload="all") == pytest.approx(2 * linear * 1.05 / GB, rel=0.02)
    assert plain - total(fast_decode=True) > 6
    assert total(dtype=torch.float32) - plain > 2.8
    assert total(offload="text") == plain  # there is no text encoder


def test_pictures_on_another_device_are_counted_there(files, free):
    other = torch.device("cuda:1")
    placement = dataclasses.replace(on_gpu(), codec_device=other)
    needs = {need.device: need for need in memory_needs(PlannedRun(files, SIZE), placement)}
    assert set(needs) == {"cuda:0", "cuda:1", "cpu"}
    assert "codec" not in needs["cuda:0"].parts
    assert needs["cuda:1"].parts["codec"] > 7 * GB


def test_enough_memory_is_no_error(files, free):
    assert check_memory(PlannedRun(files, SIZE), on_gpu())[0].fits


@pytest.mark.parametrize(
    ("gpu_gb", "options", "hint"),
    [
        (15.5, {"dtype": torch.float32}, "--dtype bf16 needs "),
        (14.0, {}, "--quantize int8 needs "),
        (7.3, {}, "--vae-device cpu needs "),
        (5.8, {}, "--quantize int8 --vae-device cpu needs "),
    ],
)
def test_too_little_names_the_next_smaller_setting(files, free, gpu_gb, options, hint):
    free(gpu_gb)
    with pytest.raises(DeviceError, match="big at 512 x 512 px needs ") as caught:
        check_memory(PlannedRun(files, SIZE), on_gpu(**options))
    error = caught.value
    assert (error.code, error.exit_code) == ("E-DEVICE-MEMORY", 5)
    assert f"of {gpu_gb:.1f} GB free on cuda:0" in error.message
    assert "codec" in error.message
    assert error.hint.startswith(hint)
    promised = float(error.hint.removeprefix(hint).split()[0])
    assert promised <= gpu_gb


def test_a_fast_decoder_is_proposed_only_where_there_is_one(files, free):
    free(8.5)
    write_header(files.directory / "fast_codec.safetensors", {"all": (9_844_611,)})
    with pytest.raises(DeviceError) as caught:
        check_memory(PlannedRun(files, SIZE), on_gpu())
    assert caught.value.hint.startswith("--fast-decode needs ")


def test_nothing_fits(files, free):
    free(0.5)
    with pytest.raises(DeviceError) as caught:
        check_memory(PlannedRun(files, SIZE), on_gpu())
    assert caught.value.hint.startswith("the least possible here is ")
    assert "--profile tiny" in caught.value.hint


def test_the_machine_itself_may_be_too_small(files, free):
    free(80.0, host_gb=1.0)
    with pytest.raises(DeviceError, match="free on cpu"):
        check_memory(PlannedRun(files, SIZE), on_gpu())


def test_a_text_encoder_counts_before_the_stream_and_can_stay_outside(files, free):
    write_header(files.directory / "text_encoder.safetensors", {"all": (5_680_000_000,)})
    run = PlannedRun(files, SIZE)
    need = memory_needs(run, on_gpu())[0]
    assert "activations" not in need.parts
    assert need.parts["text or picture encoder"] == 2 * 5_680_000_000
    free(15.5)
    with pytest.raises(DeviceError) as caught:
        check_memory(run, on_gpu())
    assert caught.value.hint.startswith("--offload text needs ")
    outside = memory_needs(run, on_gpu(offload="text"))
    assert "activations" in outside[0].parts
    assert outside[-1].parts["text encoder"] == 2 * 5_680_000_000


def test_a_prompt_whose_states_are_kept_needs_no_text_encoder(files, free):
    from joyflash_cli.weights.prompt_cache import PromptEmbedding, write_prompt

    def needed(prompt: str) -> int:
        return memory_needs(PlannedRun(files, SIZE, prompt), on_gpu())[0].total

    without = needed("")
    write_header(files.directory / "text_encoder.safetensors", {"all": (5_680_000_000,)})
    assert needed("") > without
    encoder = files.description.conditioning.text_encoder
    default = files.description.conditioning.default_prompt
    write_prompt(PromptEmbedding(torch.zeros(1, 2, 4), default, encoder))
    assert needed("") == needed(default) == without
    assert needed("another") > without


def test_the_embedded_kind_fits_a_cpu(toy_checkpoint):
    run = PlannedRun(resolve_checkpoint("tiny", toy_checkpoint), (64, 64))
    (need,) = check_memory(run, Placement(CPU, torch.float32, CPU))
    assert need.device == "cpu"
    assert need.fits
    assert need.total < 1 * GB


def test_on_a_cpu_nothing_is_proposed_that_only_helps_a_gpu(files, free):
    free(80.0, host_gb=1.0)
    with pytest.raises(DeviceError) as caught:
        check_memory(PlannedRun(files, SIZE), Placement(CPU, torch.float32, CPU))
    assert "offload" not in caught.value.hint
    assert "vae-device" not in caught.value.hint


def test_errors_that_mean_memory_ran_out():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 46, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_when_memory_ran_out_all_the_same(files, free):
    free(2.0)
    error = memory_ran_out(PlannedRun(files, SIZE), on_gpu())
    assert error.message.startswith("cuda:0 is out of memory: by estimate the run needs ")
    assert "of 2.0 GB free" in error.message
    assert error.hint


def test_a_damaged_header_is_told(files, free):
    (files.directory / "transformer.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json at all!")
    with pytest.raises(CheckpointError, match=r"transformer\.safetensors"):
        memory_needs(PlannedRun(files, SIZE), on_gpu())
