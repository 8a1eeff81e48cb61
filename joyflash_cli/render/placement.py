"""Where each part computes and how: devices, number formats, kernels, what is kept elsewhere.

Everything a user can choose about that is checked here, once, before weights are read.
"""

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from joyflash_cli.codec.config import WanCodecConfig
from joyflash_cli.errors import CheckpointError, DeviceError, UsageError
from joyflash_cli.render.device import choose_device, choose_dtype, unusable_gpu
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    import torch


Offload = Literal["none", "text", "all"]
"""``text``: the text encoder runs on the CPU. ``all``: the layers' weights stay there too."""

OFFLOADS: tuple[str, ...] = get_args(Offload)

FAST_CODEC = "fast_codec"
"""The checkpoint's part with the tiny decoder."""

COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class ExecutionOptions:
    """How to run, as a user asks for it; the defaults are right for a model that fits.

    Attributes:
        attention: Kernel: ``auto``, ``sdpa``, ``math``, ``flash`` or ``cudnn``.
        compile: Whether the layers are compiled; the first blocks take minutes longer.
        offload: What stays in CPU memory: ``none``, ``text`` or ``all``.
        fast_decode: Whether frames are decoded by the tiny decoder; ``None`` for as the checkpoint
            was trained, which ``place`` finds out.
        codec_device: Where pictures are encoded and decoded; ``None`` for beside the transformer.
        quantize: Number format of the layers' weights: ``none``, ``int8`` or ``fp8``.
        gpus: Over how many GPUs: the last has the codec, the others share the sampling.
    """

    attention: str = "auto"
    compile: bool = False
    offload: str = "none"
    fast_decode: bool | None = None
    codec_device: str | None = None
    quantize: str = "none"
    gpus: int = 1


DEFAULT_EXECUTION = ExecutionOptions()


@dataclass(frozen=True)
class Placement:
    """Checked choices.

    Attributes:
        device: Where the transformer computes.
        dtype: Its number format.
        codec_device: Where pictures are encoded and decoded.
        options: As asked for.
        warnings: What the user should be told.
    """

    device: "torch.device"
    dtype: "torch.dtype"
    codec_device: "torch.device"
    options: ExecutionOptions = DEFAULT_EXECUTION
    warnings: tuple[str, ...] = ()

    @property
    def dtype_name(self) -> str:
        """``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def num_samplers(self) -> int:
        """GPUs that share the sampling."""
        return max(self.options.gpus - 1, 1)

    def of_rank(self, rank: int) -> "Placement":
        """What one of several GPUs has, the samplers first: all of it on that one."""
        import torch

        device = self.device
        if device.type == "cuda":
            device = torch.device("cuda", (device.index or 0) + rank)
        alone = self.under(gpus=1, codec_device=None)
        return replace(alone, device=device, codec_device=device)

    @property
    def offloads_layers(self) -> bool:
        """Whether the layers' weights stay in CPU memory."""
        return self.options.offload == "all" and self.device.type != "cpu"

    @property
    def packs_layers(self) -> bool:
        """Whether the layers' weights are laid out for the kernels of a CPU."""
        is_plain = self.options.quantize == "none" and not self.options.compile
        return self.device.type == "cpu" and is_plain

    @property
    def text_device(self) -> "torch.device":
        """Where the text encoder computes."""
        import torch

        if self.options.offload != "none":
            return torch.device("cpu")
        return self.device if self.options.gpus == 1 else self.codec_device

    @property
    def transformer_load_device(self) -> "torch.device":
        """Where the transformer's weights are read to, before they are changed and moved."""
        import torch

        on_cpu_first = self.offloads_layers or self.options.quantize != "none"
        return torch.device("cpu") if on_cpu_first else self.device

    def under(self, **changes: Any) -> "Placement":
        """The same with some of the options changed."""
        return replace(self, options=replace(self.options, **changes))

    def describe(self) -> str:
        """``cuda:0 bfloat16, int8 weights``: for one line of text."""
        words = [f"{self.device} {self.dtype_name}"]
        if self.options.quantize != "none":
            words.append(f"{self.options.quantize} weights")
        if self.offloads_layers:
            words.append("layers in CPU memory")
        if self.options.fast_decode:
            words.append("fast decoder")
        if self.options.gpus > 1:
            kind = "processes" if self.device.type == "cpu" else "GPUs"
            words.append(f"{self.num_samplers} of {self.options.gpus} {kind} sample")
        if self.codec_device != self.device:
            words.append(f"pictures on {self.codec_device}")
        return ", ".join(words)


def choose_placement(
    device: str, dtype: str, options: ExecutionOptions = DEFAULT_EXECUTION
) -> Placement:
    """The choices, checked as far as that goes without a checkpoint.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: ``auto``, ``fp32``, ``bf16``, ``fp16`` or their long names.
        options: The rest.

    Raises:
        UsageError: For an unknown name, or options that exclude each other.
        DeviceError: When a device is absent or cannot do what is asked.
    """
    if options.offload not in OFFLOADS:
        raise UsageError(
            f"offload {options.offload!r} does not exist", hint=f"one of {', '.join(OFFLOADS)}"
        )
    for name, given in (("--compile", options.compile), ("--quantize", options.quantize != "none")):
        if options.offload == "all" and given:
            raise UsageError(
                f"--offload all and {name} cannot be combined: weights that come and go are "
                "neither compiled nor quantized",
                hint="use --offload text, or leave one of them out",
            )
    if options.quantize != "none":
        from joyflash_cli.model.quantization import check_weight_format

        check_weight_format(options.quantize)
    first = _first_of_several(device, options) if options.gpus > 1 else 0
    chosen = choose_device(device)
    warnings = []
    if device == "auto" and chosen.type == "cpu" and (unused := unusable_gpu()):
        warnings.append(f"{unused}; the CPU is used")
    if chosen.type == "cpu" and options.offload != "none":
        warnings.append(f"--offload {options.offload} changes nothing on the CPU")
    if options.compile:
        _check_compiler(chosen)
    codec_device = chosen if options.codec_device is None else choose_device(options.codec_device)
    if options.gpus > 1 and chosen.type == "cuda":
        chosen = choose_device(f"cuda:{first}")
        codec_device = choose_device(f"cuda:{first + options.gpus - 1}")
    return Placement(
        device=chosen,
        dtype=choose_dtype(dtype, chosen),
        codec_device=codec_device,
        options=options,
        warnings=tuple(warnings),
    )


def _first_of_several(device: str, options: ExecutionOptions) -> int:
    """Number of the first of several GPUs that were asked for, where they are all there."""
    import torch

    kind, _, index = device.partition(":")
    if options.codec_device is not None:
        raise UsageError(
            "--vae-device cannot be combined with several GPUs: the last one has the codec",
            hint="leave one of them out",
            code="E-GPUS",
        )
    if kind not in ("auto", "cuda", "cpu") or not (index or "0").isdigit():
        raise UsageError(
            f"{options.gpus} GPUs cannot be {device}",
            hint="give auto, cuda, or cuda:N for the first of them",
            code="E-GPUS",
        )
    first, found = int(index or 0), torch.cuda.device_count()
    if kind == "cpu" or first + options.gpus <= found:
        return first
    why = f"this machine has {found}" if found else unusable_gpu() or "no GPU was found"
    raise DeviceError(
        f"{options.gpus} GPUs{f' from {device} on' if first else ''} are asked for; {why}",
        hint="ask for fewer" if found else "--device cpu tries the same with processes on the CPU",
        code="E-GPUS",
    )


def _check_share(placement: Placement, files: CheckpointFiles) -> None:
    """Refuse several GPUs where they cannot share the sampling."""
    from joyflash_cli.sampler.segment_settings import SegmentSettings

    if isinstance(files.description.sampler, SegmentSettings):
        raise UsageError(
            f"profile {files.name} samples in segments, which takes one GPU",
            hint="leave the number of GPUs out",
            code="E-GPUS",
        )
    num_heads = files.description.transformer.num_heads
    if num_heads % placement.num_samplers:
        possible = [str(n + 1) for n in range(1, num_heads + 1) if not num_heads % n]
        raise UsageError(
            f"{placement.options.gpus} GPUs are one for pictures and {placement.num_samplers} "
            f"that cannot share {num_heads} attention heads",
            hint=f"give {', '.join(possible[:-1])} or {possible[-1]}",
            code="E-GPUS-HEADS",
        )


def _check_compiler(device: "torch.device") -> None:
    if device.type == "cpu" and not any(shutil.which(name) for name in COMPILERS):
        raise DeviceError(
            f"--compile needs a C++ compiler on the CPU; none of {', '.join(COMPILERS)} was found",
            hint="install one, or leave --compile out",
            code="E-DEVICE-COMPILER",
        )


def place(
    files: CheckpointFiles,
    device: str = "auto",
    dtype: str = "auto",
    options: ExecutionOptions = DEFAULT_EXECUTION,
) -> Placement:
    """The choices for a checkpoint, checked before its weights are read.

    Raises:
        CheckpointError: When the fast decoder is asked for and is not there.
        DeviceError: When a device is absent or cannot do what is asked, or the attention kernel
            does not run with this device and head width.
        UsageError: For an unknown name, options that exclude each other, or the fast decoder where
            the codec has one of its own.
    """
    from joyflash_cli.model.kernels import check_backend

    placement = choose_placement(device, dtype, options)
    if options.gpus > 1:
        _check_share(placement, files)
    check_backend(
        options.attention,
        device=placement.device,
        dtype=placement.dtype,
        head_dim=files.description.transformer.head_dim,
    )
    if options.fast_decode is None:
        is_usual = files.description.fast_codec_encodes and files.has(FAST_CODEC)
        return placement.under(fast_decode=is_usual)
    if options.fast_decode:
        _check_fast_decoder(files)
    return placement


def _check_fast_decoder(files: CheckpointFiles) -> None:
    if not isinstance(files.description.codec, WanCodecConfig):
        raise UsageError(
            f"profile {files.name} has a small decoder of its own",
            hint="leave --fast-decode out",
            code="E-FAST-DECODE",
        )
    if not files.has(FAST_CODEC):
        raise CheckpointError(
            f"{files.directory} has no {FAST_CODEC}.safetensors, which --fast-decode needs",
            hint=f"fetch role {FAST_CODEC} of profile {files.name} and convert it again, or leave "
            "--fast-decode out",
            code="E-CHECKPOINT-INCOMPLETE",
        )


def fast_decoder_dtype(device: "torch.device") -> "torch.dtype":
    """float16, which the published file holds; a CPU computes it too slowly."""
    import torch

    return torch.float16 if device.type == "cuda" else torch.float32
