"""What a run needs against what is free, told before anything large is read.

The needs are formulas over sizes (``memory``) and the headers of the weights; nothing is tried out.
An allowance for workspaces and fragmentation is added: on a CPU from measurements with
benchmarks/full_size_step.py, on a GPU a guess.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from joyflash_cli.errors import DeviceError
from joyflash_cli.render.codec_memory import (
    PlannedRun,
    codec_memory,
    frames_bytes,
    latent_grid,
)
from joyflash_cli.render.device import FreeMemory, free_memory, has_bfloat16
from joyflash_cli.render.memory import FLOAT32_BYTES, StreamMemory, stream_memory
from joyflash_cli.render.placement import FAST_CODEC, Placement
from joyflash_cli.weights.store import CheckpointFiles
from joyflash_cli.weights.tensors import num_parameters, tensor_shapes

if TYPE_CHECKING:
    import torch

GPU_ALLOWANCE_BYTES = 256 << 20
GPU_ALLOWANCE = 0.05
"""Workspaces of libraries and holes between tensors on a GPU, fixed and as a share: a guess."""

HEAP_HOLES = 2.0
HEAP_HOLES_BYTES = 480 << 20
"""On a CPU: what the C library's heap keeps of freed activations, and where that ends, because
larger tensors are given back at once. The same run keeps 0.3 GB once and 0.7 GB another time."""

ENCODER_BYTES = 2
"""Text and picture encoder are loaded in half precision."""

GIGABYTE = 1e9


@dataclass(frozen=True)
class MemoryNeed:
    """What a run takes of one device.

    Attributes:
        device: Its name.
        parts: What is alive together while frames are made, by name, in bytes.
        before: The same while the conditioning is encoded, before that.
        free: What the device has now; ``None`` where it does not say.
    """

    device: str
    parts: dict[str, int]
    before: dict[str, int]
    free: FreeMemory | None

    @property
    def binding(self) -> dict[str, int]:
        """The moment that takes more."""
        return max(self.parts, self.before, key=lambda moment: sum(moment.values()))

    @property
    def total(self) -> int:
        """What that moment takes."""
        return sum(self.binding.values())

    @property
    def fits(self) -> bool:
        """Whether that is free; unknown counts as yes."""
        return self.free is None or self.total <= self.free.free

    def describe(self) -> str:
        """``needs 9.1 of 23.4 GB on cuda:0``."""
        if self.free is None:
            return f"needs {gigabytes(self.total)} on {self.device}"
        return (
            f"needs {self.total / GIGABYTE:.1f} of {gigabytes(self.free.free)} free "
            f"on {self.device}"
        )


def gigabytes(num_bytes: float) -> str:
    """``9.1 GB``."""
    return f"{num_bytes / GIGABYTE:.1f} GB"


def memory_needs(run: PlannedRun, placement: Placement) -> list[MemoryNeed]:
    """What the run takes of every device it uses, the transformer's first.

    Raises:
        CheckpointError: When a header cannot be read.
        ConfigError: When the description has a wrong entry, or the size does not fit it.
    """
    import torch

    codec = codec_memory(run, placement)
    stream = _stream(run, placement)
    resident, in_host_memory = _transformer_weights(run.files, placement)
    audio_encoder = num_parameters(run.files.shards("front_end")) * FLOAT32_BYTES
    while_sampling = {
        "transformer": resident,
        f"cache ({gigabytes(stream.per_frame)} per latent frame)": stream.cache,
        "text and picture states": stream.static,
        "activations": stream.activations,
        "audio encoder": audio_encoder,
    }
    before = {"transformer": resident, "audio encoder": audio_encoder}
    encoders = _encoder_bytes(run)
    if placement.text_device == placement.device:
        before["text or picture encoder"] = encoders
    moments = {placement.device: (while_sampling, before)}
    of_codec, of_codec_before = moments.setdefault(placement.codec_device, ({}, {}))
    of_codec["codec"] = codec.total
    of_codec_before["codec"] = codec.weights + codec.encoding
    of_host, _ = moments.setdefault(torch.device("cpu"), ({}, {}))
    of_host["frames"] = frames_bytes(run)
    if placement.device.type != "cpu":
        # Weights pass through the CPU's memory on their way; offloaded ones stay there.
        _, in_host_before = moments.setdefault(torch.device("cpu"), ({}, {}))
        in_host_before["transformer"] = in_host_memory
        if placement.text_device != placement.device:
            in_host_before["text encoder"] = encoders
        if placement.offloads_layers:
            moments[torch.device("cpu")][0]["transformer"] = in_host_memory
    return [
        MemoryNeed(str(device), *_with_allowance(device, *parts), free_memory(device))
        for device, parts in moments.items()
    ]


def _with_allowance(
    device: "torch.device", parts: dict[str, int], before: dict[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    largest = max(sum(parts.values()), sum(before.values()))
    if device.type == "cpu":
        added = heap_holes_bytes(parts.get("activations", 0))
    else:
        added = GPU_ALLOWANCE_BYTES + int(largest * GPU_ALLOWANCE)
    return parts | {"allowance": added}, before | {"allowance": added}


def heap_holes_bytes(activations: int) -> int:
    """What a process on a CPU takes beyond the tensors that are alive."""
    return min(int(activations * HEAP_HOLES), HEAP_HOLES_BYTES)


def _stream(run: PlannedRun, placement: Placement) -> StreamMemory:
    from joyflash_cli.model.kernels import resolve_backend

    backend = resolve_backend(
        placement.options.attention,  # type: ignore[arg-type]
        placement.device,
        placement.dtype,
    )
    return stream_memory(
        run.files.description.transformer,
        run.files.description.sampler,
        latent_grid(run),
        element_bytes=placement.dtype.itemsize,
        written_out=backend == "math",
    )


def _transformer_weights(files: CheckpointFiles, placement: Placement) -> tuple[int, int]:
    """Bytes of the transformer on its device, and in the CPU's memory."""
    shapes = tensor_shapes(files.shards("transformer"))
    sizes = {name: _count(shape) for name, shape in shapes.items()}
    total = sum(sizes.values()) * placement.dtype.itemsize
    # What is quantized and offloaded: the weights of the layers' linear maps.
    linear = {
        name: size
        for name, size in sizes.items()
        if name.startswith("layers.") and name.endswith(".weight") and len(shapes[name]) == 2
    }
    in_linear_maps = sum(linear.values())
    if placement.offloads_layers:
        visiting = max(linear.values(), default=0)
        resident = total - (in_linear_maps - visiting) * placement.dtype.itemsize
        return resident, total
    if placement.options.quantize != "none":
        scales = sum(shapes[name][0] for name in linear) * placement.dtype.itemsize
        saved = in_linear_maps * (placement.dtype.itemsize - 1)
        return total - saved + scales, total
    return total, total


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _encoder_bytes(run: PlannedRun) -> int:
    """The larger of text and picture encoder: each is freed before the next is loaded."""
    parts = ["image_encoder"] + ["text_encoder"] * _encodes_text(run)
    return max(num_parameters(run.files.shards(part)) * ENCODER_BYTES for part in parts)


def _encodes_text(run: PlannedRun) -> bool:
    """Whether the prompt's states are not on disk yet, so that the text encoder is loaded."""
    from joyflash_cli.encoders.text import clean_prompt
    from joyflash_cli.weights.prompt_cache import has_prompt, prompt_key

    if not run.files.has("text_encoder"):
        return False
    config = run.files.description.conditioning
    key = prompt_key(config.text_encoder, clean_prompt(run.prompt or config.default_prompt))
    return not has_prompt(run.files.directory, key)


def check_memory(run: PlannedRun, placement: Placement) -> list[MemoryNeed]:
    """The needs of the run, when they are free.

    Raises:
        DeviceError: ``E-DEVICE-MEMORY`` when they are not; the hint is the next smaller setting.
    """
    needs = memory_needs(run, placement)
    too_large = next((need for need in needs if not need.fits), None)
    if too_large is None:
        return needs
    largest = sorted(too_large.binding.items(), key=lambda part: -part[1])[:3]
    listed = ", ".join(f"{name} {gigabytes(size)}" for name, size in largest)
    width, height = run.size_px
    raise DeviceError(
        f"{run.files.name} at {width} x {height} px {too_large.describe()} ({listed})",
        hint=smaller_setting(run, placement),
        code="E-DEVICE-MEMORY",
    )


def smaller_setting(run: PlannedRun, placement: Placement) -> str:
    """The least change of options with which the run fits, in words."""
    before = smallest = memory_needs(run, placement)[0].total
    together: Placement = placement
    flags: list[str] = []
    for flag, change in _smaller(run.files):
        changed = change(together)
        if changed is None or memory_needs(run, changed)[0].total >= smallest:
            continue
        together, flags = changed, [*flags, flag]
        for given, option in (([flag], change(placement)), (flags, together)):
            needs = memory_needs(run, option) if option is not None else []
            if needs and needs[0].total < before and all(need.fits for need in needs):
                return f"{' '.join(given)} needs {gigabytes(needs[0].total)}"
        smallest = memory_needs(run, together)[0].total
    return (
        f"the least possible here is {gigabytes(smallest)}; free some memory, give another "
        "--device, or --profile tiny"
    )


def _smaller(
    files: CheckpointFiles,
) -> Iterator[tuple[str, Callable[[Placement], Placement | None]]]:
    """Options that make a run smaller, those that cost least first."""
    yield "--dtype bf16", _in_bfloat16
    yield "--offload text", lambda p: _with(p, "offload", "none", "text")
    if files.has(FAST_CODEC):
        yield "--fast-decode", lambda p: _with(p, "fast_decode", False, True)
    yield "--quantize int8", _in_int8
    yield "--vae-device cpu", _codec_on_cpu
    yield "--offload all", _offload_all


def _with(placement: Placement, name: str, before: Any, after: Any) -> Placement | None:
    if placement.device.type == "cpu" and name == "offload":
        return None
    if getattr(placement.options, name) != before:
        return None
    return replace(placement, options=replace(placement.options, **{name: after}))


def _in_bfloat16(placement: Placement) -> Placement | None:
    import torch

    if placement.dtype != torch.float32 or not has_bfloat16(placement.device):
        return None
    return replace(placement, dtype=torch.bfloat16)


def _in_int8(placement: Placement) -> Placement | None:
    return None if placement.offloads_layers else _with(placement, "quantize", "none", "int8")


def _codec_on_cpu(placement: Placement) -> Placement | None:
    import torch

    cpu = torch.device("cpu")
    return None if placement.codec_device == cpu else replace(placement, codec_device=cpu)


def _offload_all(placement: Placement) -> Placement | None:
    if placement.device.type == "cpu" or placement.options.offload == "all":
        return None
    options = replace(placement.options, offload="all", quantize="none", compile=False)
    return replace(placement, options=options)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "DefaultCPUAllocator" in text
    )


def memory_ran_out(run: PlannedRun, placement: Placement) -> DeviceError:
    """What to tell when memory ran out in spite of the preflight."""
    need = memory_needs(run, placement)[0]
    return DeviceError(
        f"{placement.device} is out of memory: by estimate the run {need.describe()}",
        hint=smaller_setting(run, placement),
        code="E-DEVICE-MEMORY",
    )
