"""``joyflash render`` on devices that are absent, too small or told how to compute."""

import hashlib
import json
from pathlib import Path

import av
import pytest
import torch
from conftest import TOY_PICTURE_PX

from joyflash_cli.cli.app import run
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.render import device as device_module
from joyflash_cli.render import memory
from joyflash_cli.render.device import FreeMemory

NUM_FRAMES = 33  # ceil(1.3 s * 25)


@pytest.fixture(autouse=True)
def _inside_an_empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def base(toy_checkpoint, toy_picture, toy_voice) -> list[str]:
    options = {"--image": toy_picture, "--audio": toy_voice, "--checkpoint": toy_checkpoint}
    given = [str(part) for pair in options.items() for part in pair]
    return ["render", *given, "--output", "out.mp4", "--device", "cpu", "--dtype", "fp32"]


def frame_hashes(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [
            hashlib.sha256(frame.to_ndarray(format="rgb24").tobytes()).hexdigest()
            for frame in container.decode(video=0)
        ]


def test_the_same_seed_gives_the_same_frames(base):
    assert run([*base, "--seed", "3", "--quiet"]) == 0
    first = frame_hashes(Path("out.mp4"))
    assert len(first) == NUM_FRAMES
    assert run([*base, "--seed", "3", "--quiet", "--overwrite"]) == 0
    assert frame_hashes(Path("out.mp4")) == first
    assert run([*base, "--seed", "4", "--quiet", "--overwrite"]) == 0
    assert frame_hashes(Path("out.mp4")) != first


@pytest.mark.parametrize(
    "options",
    [
        ["--attention", "math", "--offload", "text"],
        ["--dtype", "bf16", "--vae-device", "cpu"],
        ["--attention", "flash", "--offload", "all"],
    ],
)
def test_choices_that_a_cpu_can_follow(base, options):
    assert run([*base, *options, "--quiet"]) == 0
    assert probe(Path("out.mp4")).num_frames == NUM_FRAMES


@pytest.mark.parametrize(
    ("options", "exit_code", "code", "words"),
    [
        (["--dtype", "fp16"], 5, "E-DEVICE", "the CPU does not compute in float16"),
        (["--dtype", "fp8"], 2, "E-USAGE", "bf16"),
        (["--attention", "cudnn"], 5, "E-DEVICE-ATTENTION", "here --attention can be auto, sdpa"),
        (["--attention", "xformers"], 2, "E-USAGE", "one of auto, sdpa, math, flash, cudnn"),
        (["--offload", "all", "--compile"], 2, "E-USAGE", "cannot be combined"),
        (["--fast-decode"], 2, "E-FAST-DECODE", "small decoder of its own"),
        (["--quantize", "int2"], 2, "E-USAGE", "one of none, int8, fp8"),
        (["--vae-device", "cuda:7"], 5, "E-DEVICE", "cuda:7"),
    ],
)
def test_choices_that_cannot_be_followed(base, options, exit_code, code, words, capsys):
    if "--vae-device" in options and torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    assert run([*base, *options, "--quiet"]) == exit_code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith(f"joyflash: error[{code}]")
    assert words in shown.err
    assert list(Path.cwd().iterdir()) == []


def test_too_little_memory_is_told_before_the_weights_are_read(base, monkeypatch, capsys):
    monkeypatch.setattr(memory, "free_memory", lambda device: FreeMemory(1000, 2000))
    monkeypatch.setattr(
        CausalTransformer, "__init__", lambda *a, **k: pytest.fail("weights were read")
    )
    for extra in ([], ["--dry-run"]):
        assert run([*base, *extra, "--quiet"]) == 5
        shown = capsys.readouterr()
        assert shown.err.count("\n") == 1
        assert shown.err.startswith("joyflash: error[E-DEVICE-MEMORY]: toy at 128 x 160 px needs ")
        assert "of 0.0 GB free on cpu" in shown.err
    assert list(Path.cwd().iterdir()) == []


def test_memory_that_runs_out_on_the_way_keeps_what_is_ready(base, monkeypatch, capsys):
    real, calls = CausalTransformer.forward, []

    def greedy(*arguments, **options):
        calls.append(1)
        if len(calls) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")
        return real(*arguments, **options)

    monkeypatch.setattr(CausalTransformer, "forward", greedy)
    assert run([*base, "--quiet"]) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("joyflash: error[E-DEVICE-MEMORY]: cpu is out of memory: by estimate")
    assert "GB free on cpu" in error
    assert "kept in" in error
    partial = Path("out.partial.mp4")
    assert 0 < probe(partial).num_frames < NUM_FRAMES
    assert not Path("out.mp4").exists()


def test_a_gpu_that_torch_cannot_use_is_named_in_one_line(base, monkeypatch, tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    driver = tmp_path / "driver"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  2025\n")
    monkeypatch.setattr(device_module, "NVIDIA_DRIVER", driver)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert run([*base, "--device", "cuda", "--quiet"]) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "driver 570.86.15" in error
    assert "built for CPUs" in error
    assert run([*base, "--device", "auto", "--dry-run"]) == 0
    assert "warning: the machine has an NVIDIA GPU" in capsys.readouterr().err


def test_a_dry_run_tells_the_memory(base, capsys):
    assert run([*base, "--dry-run"]) == 0
    assert "device cpu float32; needs 0." in capsys.readouterr().err
    assert run([*base, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["device"], plan["dtype"], plan["width"]) == ("cpu", "float32", TOY_PICTURE_PX[0])
    (need,) = plan["memory"]
    assert need["needed_bytes"] == sum(need["parts_bytes"].values())
    assert need["free_bytes"] > need["needed_bytes"]
    assert {"transformer", "activations", "codec"} <= set(need["parts_bytes"])
