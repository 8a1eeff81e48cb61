"""How fast a profile is: the transformer alone, as papers state it, and the whole way to a file."""

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyflash_cli import __version__
from joyflash_cli.render.device import device_model, keep_freed_memory
from joyflash_cli.render.joyflash import JoyFlash
from joyflash_cli.render.request import RenderRequest
from joyflash_cli.sampler.segment_settings import AnySettings, SegmentSettings
from joyflash_cli.types import FRAMES_PER_LATENT, AudioClip

if TYPE_CHECKING:
    import torch

    from joyflash_cli.model.config import TransformerConfig
    from joyflash_cli.model.transformer import CausalTransformer
    from joyflash_cli.render.placement import Placement

BENCHMARK_FORMAT = 1
OF_A_VIDEO = (
    "fps", "realtime_factor", "first_block_s", "load_s", "video_frames", "cpu_ms_per_frame",
)  # fmt: skip
"""Figures that random weights do not give."""

NO_WEIGHTS = "random weights make no video"
NO_CPU_PEAK = "no peak is listed for CPUs"


@dataclass(frozen=True)
class BlockTimes:
    """When clean blocks left the transformer.

    Attributes:
        seconds: Of the steady blocks together.
        num_blocks: Steady blocks: behind a full cache, beside a full window.
        per_block: Of each steady block; on a GPU, which is asked only at the ends, their mean.
    """

    seconds: float
    num_blocks: int
    per_block: tuple[float, ...]


def benchmark(
    joyflash: JoyFlash,
    request: RenderRequest,
    warm_up: RenderRequest,
    *,
    say: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """Figures of a loaded checkpoint: a short render, the sampler alone, then a render to a file.

    Args:
        joyflash: The checkpoint.
        request: What is measured; long enough to fill window and cache.
        warm_up: A short one, as first calls of kernels are slower than all later ones.
        say: Told what is being done.

    Raises:
        UsageError: When the sound is too short.
    """
    say("warming up")
    for _ in joyflash.stream(warm_up):
        pass
    placement, settings = joyflash.placement, request.settings_of(joyflash.sampler)
    reset_peak(placement.device)
    say("the transformer alone")
    times, grid = _sampler_times(joyflash, request)
    say("the whole way to a file")
    with tempfile.TemporaryDirectory() as folder:
        cpu_before_s = time.process_time()
        record = joyflash.render(request, Path(folder) / "benchmark.mp4")
        cpu_s = time.process_time() - cpu_before_s
    width, height = request.size_px
    figures = {
        "fps": record.video_frames / record.wall_s,
        "realtime_factor": record.realtime_factor,
        "first_block_s": record.first_frame_s,
        "load_s": joyflash.load_s,
        "video_frames": record.video_frames,
        # Of all threads: what a busy machine hides in the frames per second.
        "cpu_ms_per_frame": 1000 * cpu_s / record.video_frames,
        "size_px": [width, height],
    }
    return _report(
        {"profile": joyflash.files.name, "weights": joyflash.files.description.version} | figures,
        config=joyflash.files.description.transformer,
        settings=settings,
        placement=placement,
        grid=grid,
        times=times,
    )


def _sampler_times(joyflash: JoyFlash, request: RenderRequest) -> tuple[BlockTimes, Any]:
    """Steady blocks of the sampler without decoding, and the latent frame's rows and columns."""
    from joyflash_cli.errors import UsageError
    from joyflash_cli.render.sound_feed import SoundFeed
    from joyflash_cli.render.stages import sample_stage

    settings, device = request.settings_of(joyflash.sampler), joyflash.placement.device
    job = joyflash.job(request)
    num_blocks = joyflash.plan(request).num_blocks
    grid = job.reference_latent.shape[-2:]
    if isinstance(settings, SegmentSettings):  # whose stream decodes, too
        network, measured = job.parts.transformer, max(2, num_blocks - 1)
        size = int(grid[0]), int(grid[1])
        return _steady_times(network, settings, size, device, measured), grid
    first = blocks_before_steady(settings)
    last = num_blocks - settings.num_window_blocks  # the window empties after it
    if last - first < 2:
        least = settings.video_start(first + settings.num_window_blocks + 2) / settings.fps
        raise UsageError(
            f"the sound is too short to measure a steady stream; {least:.1f} s are needed",
            hint="give --seconds",
        )
    stamps: list[float] = []
    feed = SoundFeed(request.sound.open(lambda: None), settings.fps, device=device)
    for index, _ in enumerate(sample_stage(job, feed)):
        if first <= index <= last:
            if index in (first, last):
                synchronise(device)
            stamps.append(time.perf_counter())
    return block_times(stamps, device), grid


def block_times(stamps: list[float], device: "torch.device") -> BlockTimes:
    """Of the moments at which blocks were there; only the first and the last are sure on a GPU."""
    num_blocks, seconds = len(stamps) - 1, stamps[-1] - stamps[0]
    each = tuple(b - a for a, b in zip(stamps, stamps[1:], strict=False))
    if device.type != "cpu":
        each = (seconds / num_blocks,) * num_blocks
    return BlockTimes(seconds, num_blocks, each)


def _steady_times(
    transformer: "CausalTransformer",
    settings: AnySettings,
    grid: tuple[int, int],
    device: "torch.device",
    num_blocks: int,
) -> BlockTimes:
    """The transformer alone, from its steady state on, behind two blocks that are not measured."""
    import torch

    from joyflash_cli.render.steady import steady_blocks

    stamps: list[float] = []
    with torch.inference_mode():
        for _ in steady_blocks(transformer, settings, grid, device=device):
            if len(stamps) in (0, num_blocks):
                synchronise(device)
            stamps.append(time.perf_counter())
            if len(stamps) > num_blocks:
                break
    return block_times(stamps, device)


def blocks_before_steady(settings: AnySettings) -> int:
    """Blocks that leave before a pass sees a full cache and a full window."""
    cached = settings.cached_frames
    return max(-(-cached // settings.block_frames), settings.num_window_blocks) + 1


def benchmark_random(
    name: str,
    config: "TransformerConfig",
    settings: AnySettings,
    placement: "Placement",
    *,
    size_px: tuple[int, int],
    grid: tuple[int, int],
    num_blocks: int,
    say: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """Figures of the transformer alone with random weights, from its steady state on.

    Args:
        name: Of the profile.
        config: Its transformer.
        settings: Its sampler.
        placement: Where it computes.
        size_px: Width and height of the video.
        grid: Rows and columns of a latent frame.
        num_blocks: How many are measured, after two that are not.
        say: Told what is being done.
    """
    from joyflash_cli.render.load import place_transformer
    from joyflash_cli.render.steady import random_transformer

    device = placement.device
    if device.type == "cpu":
        keep_freed_memory()
    say("making random weights")
    transformer = random_transformer(config, placement.dtype, placement.transformer_load_device)
    place_transformer(transformer, placement)
    reset_peak(device)
    say("the transformer alone")
    times = _steady_times(transformer, settings, grid, device, num_blocks)
    return _report(
        {"profile": name, "weights": "random", "size_px": list(size_px)},
        config=config,
        settings=settings,
        placement=placement,
        grid=grid,
        times=times,
    )


def _report(
    figures: dict[str, Any],
    *,
    config: "TransformerConfig",
    settings: AnySettings,
    placement: "Placement",
    grid: tuple[int, int],
    times: BlockTimes,
) -> dict[str, Any]:
    """The JSON object: every key is there; what is not known is null with a reason."""
    import torch

    from joyflash_cli.model.kernels import resolve_backend
    from joyflash_cli.render.operations import block_operations, peak_operations, window_shape

    device, dtype = placement.device, placement.dtype
    attention: Any = placement.options.attention
    frames = settings.block_frames * FRAMES_PER_LATENT
    is_cuda = device.type == "cuda"
    model = device_model(device)
    peak, reason = peak_operations(model, dtype) if is_cuda else (None, NO_CPU_PEAK)
    operations = block_operations(config, settings, (int(grid[0]), int(grid[1])))
    per_s = operations * times.num_blocks / times.seconds
    reasons = {} if peak is not None else {"mfu": reason}
    reasons |= {name: NO_WEIGHTS for name in OF_A_VIDEO if name not in figures}
    values: dict[str, Any] = {
        "format": BENCHMARK_FORMAT,
        "version": __version__,
        **dict.fromkeys(OF_A_VIDEO),
        **figures,
        "video_fps": settings.fps,
        "fps_dit": frames * times.num_blocks / times.seconds,
        "block_s": statistics.median(times.per_block),
        "num_blocks": times.num_blocks,
        "device": str(device),
        "device_model": model,
        "dtype": placement.dtype_name,
        "attention": resolve_backend(attention, device, dtype),
        "execution": _execution(placement),
        "threads": torch.get_num_threads(),
        "kv_frames": sum(window_shape(settings)),
        "cached_frames": settings.cached_frames,
        "tokens_per_frame": config.tokens_per_frame(int(grid[0]), int(grid[1])),
        "parameters": _num_parameters(config),
        "operations_per_block": operations,
        "operations_per_s": per_s,
        "mfu": None if peak is None else per_s / peak,
        "peak_bytes": peak_bytes(device),
        "peak_of": "device" if is_cuda else "process",
        "load_average": _load_average(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "reasons": reasons,
    }
    return {name: _rounded(value) for name, value in values.items()}


def _execution(placement: "Placement") -> dict[str, Any]:
    """How the model was run, kernel and device aside."""
    options = placement.options
    return {
        "compile": options.compile,
        "offload": options.offload,
        "quantize": options.quantize,
        "fast_decode": options.fast_decode,
        "codec_device": str(placement.codec_device),
    }


def _num_parameters(config: "TransformerConfig") -> int:
    from joyflash_cli.render.operations import meta_transformer

    return sum(parameter.numel() for parameter in meta_transformer(config).parameters())


def _load_average() -> float | None:
    """Processes that wanted a processor in the last minute, this one's threads included."""
    import os

    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def synchronise(device: "torch.device") -> None:
    """Returns when the device has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def reset_peak(device: "torch.device") -> None:
    """Counts the most memory from now on, where the device can."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: "torch.device") -> int | None:
    """Most memory that PyTorch had of a GPU, or on a CPU this process since it began."""
    import sys

    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        import resource
    except ImportError:  # a system without it
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def repeated(sound: AudioClip, seconds: float) -> AudioClip:
    """A sound said again and again, or cut, to a length."""
    import numpy as np

    wanted = round(seconds * sound.sample_rate_hz)
    times = -(-wanted // len(sound.samples))
    return AudioClip(np.tile(sound.samples, (times, 1))[:wanted], sound.sample_rate_hz)
