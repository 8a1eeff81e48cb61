"""The parts of a checkpoint in memory: modules with their weights, on a device, in a dtype."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from joyflash_cli.checkpoints.store import CheckpointFiles
from joyflash_cli.config import from_dict
from joyflash_cli.errors import DeviceError, UsageError
from joyflash_cli.pipeline.request import read_sampler_profile

if TYPE_CHECKING:
    import torch

    from joyflash_cli.codec.protocol import Codec
    from joyflash_cli.conditioning.audio_windows import AudioWindowRule
    from joyflash_cli.conditioning.reference import ImageConvention
    from joyflash_cli.encoders.protocol import AudioEncoder
    from joyflash_cli.model.transformer import CausalTransformer
    from joyflash_cli.sampler.profile import SamplerProfile

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class LoadedParts:
    """The parts of a checkpoint, with weights, ready to run.

    Attributes:
        transformer: In the run's dtype.
        codec: In float32.
        front_end: Sound to feature rows, in float32.
        sampler: The checkpoint's sampler settings.
        audio_windows: Which rows each latent frame hears.
        image_convention: How the reference latents are concatenated.
    """

    transformer: "CausalTransformer"
    codec: "Codec"
    front_end: "AudioEncoder"
    sampler: "SamplerProfile"
    audio_windows: "AudioWindowRule"
    image_convention: "ImageConvention"


def load_parts(files: CheckpointFiles, device: "torch.device", dtype: "torch.dtype") -> LoadedParts:
    """The modules of a checkpoint with their weights.

    Raises:
        CheckpointError: When weights and description do not agree.
        ConfigError: When the description has an unknown or wrong entry.
    """
    import torch

    from joyflash_cli.checkpoints.state_dict import load_state_dict
    from joyflash_cli.codec.tiny import TinyCodec, TinyCodecConfig
    from joyflash_cli.conditioning.audio_windows import AudioWindowRule
    from joyflash_cli.encoders.front_end import FrontEnd, FrontEndConfig
    from joyflash_cli.model.config import TransformerConfig
    from joyflash_cli.model.transformer import CausalTransformer

    def load(part: str, config_class: type, module_class: type, kind: "torch.dtype"):
        config: Any = from_dict(config_class, files.section(part), path=f"checkpoint.json: {part}")
        module = module_class(config)
        load_state_dict(module, files.weights(part), dtype=kind)
        return module.to(device).eval().requires_grad_(False)

    conditioning = files.section("conditioning")
    return LoadedParts(
        transformer=load("transformer", TransformerConfig, CausalTransformer, dtype),
        codec=load("codec", TinyCodecConfig, TinyCodec, torch.float32),
        front_end=load("front_end", FrontEndConfig, FrontEnd, torch.float32),
        sampler=read_sampler_profile(files),
        audio_windows=from_dict(
            AudioWindowRule,
            conditioning.get("audio_windows", {"kind": "own-frames-margin", "margin": 2}),
            path="checkpoint.json: conditioning.audio_windows",
        ),
        image_convention=conditioning.get("image_convention", "avatar"),
    )


def choose_device(name: str) -> "torch.device":
    """The device called ``name``; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        DeviceError: When it does not exist here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}",
            hint="leave --device out, or give cpu",
        ) from error
    return device


def choose_dtype(name: str, device: "torch.device") -> "torch.dtype":
    """The number format called ``name``; ``auto`` takes the fast one of the device.

    Raises:
        UsageError: For an unknown name.
        DeviceError: When the device does not compute in it.
    """
    import torch

    if name == "auto":
        return _fast_dtype(device)
    if name not in DTYPES:
        raise UsageError(f"dtype {name!r} does not exist", hint=f"one of auto, {', '.join(DTYPES)}")
    dtype = getattr(torch, name)
    if device.type == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        raise DeviceError(
            f"{torch.cuda.get_device_name(device)} does not compute in bfloat16",
            hint="give --dtype float16 or float32",
        )
    if device.type == "cpu" and dtype == torch.float16:
        raise DeviceError(
            "the CPU does not compute in float16", hint="give --dtype bfloat16 or float32"
        )
    return dtype


def _fast_dtype(device: "torch.device") -> "torch.dtype":
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float32
    # bfloat16 without instructions for it is emulated, and slower than float32.
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    has_bfloat16 = abilities.get("avx512_bf16") or abilities.get("amx_bf16")
    return torch.bfloat16 if has_bfloat16 else torch.float32
