"""Memory and time of one rolling iteration of a full-size model: random weights, no download.

`python benchmarks/full_size_step.py --json` builds the true 1.3B geometry in bfloat16, puts the
stream in its steady state (full cache, a window of four blocks at four noise levels) and runs one
iteration: the joint pass with its condition frame, then the pass that stores the finished block.
Peak memory is the process's own, above what it had before the weights; the prediction beside it is
what a render is refused with. Weights are random, so nothing is said about pictures.

Measured with torch 2.13 on one thread of a shared AMD EPYC (AVX512-BF16), 256 x 256 pixels,
1,421,187,232 parameters: peaks of 3.89, 4.32, 4.36 and 3.85 GB in four runs against 3.97 GB
predicted, which is 0.98, 1.09, 1.10 and 0.97 of it (weights 2.84, cache 0.42, states 0.10,
activations 0.20, heap holes 0.40; what the heap keeps is what varies). 65 to 97 CPU seconds for
14,520 GFLOP, more the busier the machine was. runs/full-size-step.json has the rest.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

TEXT_TOKENS = 512
WAN_STRIDE = 8
CLEAN_BLOCKS = 4
"""Blocks that left the window before: they fill sink and context."""


def main() -> None:
    """Run one iteration and print the figures."""
    options = read_options()
    report = measure(options)
    if options.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:26} {value}")


def read_options() -> argparse.Namespace:
    """The command line."""
    from joyflash_cli.model.kernels import BACKENDS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--profile", default="livetalk-1.3b", help="one that is converted")
    parser.add_argument("--width", type=int, default=256, help="pixels, a multiple of 16")
    parser.add_argument("--height", type=int, default=256, help="pixels, a multiple of 16")
    parser.add_argument("--layers", type=int, default=None, help="fewer layers, for a quick look")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--attention", default="auto", choices=BACKENDS)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads, default all cores")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict:
    """One iteration in this process: seconds, bytes, and the bytes that were predicted."""
    from dataclasses import replace

    import torch

    from joyflash_cli import __version__
    from joyflash_cli.model.attention import use_backend
    from joyflash_cli.model.config import TransformerConfig
    from joyflash_cli.model.kernels import resolve_backend
    from joyflash_cli.render.device import keep_freed_memory
    from joyflash_cli.render.memory import (
        activation_bytes,
        heap_holes_bytes,
        keys_values_bytes,
        static_bytes,
    )
    from joyflash_cli.sampler.settings import PAPER
    from joyflash_cli.weights.convert import read_template

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    config = TransformerConfig.from_dict(read_template(options.profile)["transformer"])
    config = replace(config, num_layers=options.layers or config.num_layers)
    grid = (options.height // WAN_STRIDE, options.width // WAN_STRIDE)
    keep_freed_memory()  # as every render does
    warm_up_libraries(dtype)
    before = resident_bytes()
    started = time.perf_counter()
    transformer = random_transformer(config, dtype)
    use_backend(transformer, options.attention)
    load_s = time.perf_counter() - started
    weights = sum(p.numel() * p.element_size() for p in transformer.parameters())
    with torch.inference_mode():
        stream = steady_stream(transformer, PAPER, grid)
        started, cpu_started = time.perf_counter(), time.process_time()
        block = stream.finish_iteration(stream.window_pass())
        wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    if block is None:
        raise SystemExit("the stream was not in its steady state: no block became clean")
    backend = resolve_backend(options.attention, torch.device("cpu"), dtype)
    tokens = config.tokens_per_frame(*grid)
    peak = peak_bytes() - before
    cached = PAPER.sink_frames + PAPER.context_frames
    cache = keys_values_bytes(config, cached * tokens, dtype.itemsize)
    static = static_bytes(config, dtype.itemsize)
    activations = activation_bytes(config, PAPER, tokens, dtype.itemsize)
    allowance = heap_holes_bytes(activations)
    expected = weights + cache + static + activations + allowance
    gflop = iteration_gflop(config, PAPER, tokens)
    return {
        "profile": options.profile,
        "layers": config.num_layers,
        "parameters": sum(p.numel() for p in transformer.parameters()),
        "size_px": [options.width, options.height],
        "tokens_per_frame": tokens,
        "dtype": options.dtype,
        "attention": backend,
        "threads": torch.get_num_threads(),
        "predicted_bytes": expected,
        "peak_bytes": peak,
        "peak_over_predicted": round(peak / expected, 4),
        "weights_bytes": weights,
        "cache_bytes": cache,
        "static_bytes": static,
        "activations_bytes": activations,
        "allowance_bytes": allowance,
        "bytes_before": before,
        "random_weights_s": round(load_s, 1),
        "iteration_wall_s": round(wall_s, 2),
        "iteration_cpu_s": round(cpu_s, 2),
        "iteration_gflop": round(gflop, 1),
        "gflop_per_cpu_s": round(gflop / cpu_s, 1),
        "version": __version__,
    }


def warm_up_libraries(dtype) -> None:
    """Let the thread pool and the matrix library take their memory before it is counted."""
    import torch

    matrix = torch.ones(256, 256, dtype=dtype)
    torch.nn.functional.linear(matrix, matrix).softmax(-1)


def random_transformer(config, dtype):
    """A transformer that never existed in another number format than its own."""
    import torch

    from joyflash_cli.model.transformer import CausalTransformer

    with torch.device("meta"):
        transformer = CausalTransformer(config).to(dtype)
    transformer = transformer.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in transformer.named_parameters():
        if name.endswith("norm.weight"):
            parameter.fill_(1)
        else:
            parameter.normal_(std=0.02, generator=generator)
    return transformer


def steady_stream(transformer, settings, grid):
    """A stream in which the next iteration makes a block clean and a full cache is read."""
    import torch

    from joyflash_cli.sampler.noise import SeededNoise
    from joyflash_cli.sampler.stream import Stream
    from joyflash_cli.sampler.window import WindowBlock

    config = transformer.config
    shape = (config.out_channels, *grid)
    noise = SeededNoise(0, shape)
    source = RandomSource(config, grid)
    stream = Stream.start(transformer, settings, source=source, noise=noise, latent_shape=shape)
    block_tokens = settings.block_frames * config.tokens_per_frame(*grid)
    keys = torch.randn(1, block_tokens, config.num_heads, config.head_dim)
    keys = keys.to(transformer.patch_embedding.weight.dtype)
    for index in range(CLEAN_BLOCKS):
        stream.cache.append(((keys, keys),) * config.num_layers, settings.block_start(index))
    del keys
    num_blocks = settings.num_window_blocks
    stream.window = [
        WindowBlock(
            CLEAN_BLOCKS + place,
            noise.initial(CLEAN_BLOCKS + place, settings.block_frames),
            level=settings.clean_level - 2 * (place + 1),
        )
        for place in range(num_blocks)
    ]
    stream.num_emitted = CLEAN_BLOCKS
    stream.next_block = CLEAN_BLOCKS + num_blocks
    stream.clean_block = noise.initial(CLEAN_BLOCKS - 1, settings.block_frames)
    return stream


class RandomSource:
    """Conditioning of the right shapes for any frames."""

    def __init__(self, config, grid) -> None:
        import torch

        self._config, self._grid = config, grid
        self._text = torch.randn(1, TEXT_TOKENS, config.text_dim) if config.text_dim else None

    def has_block(self, block_index: int) -> bool:
        """The stream never ends."""
        return True

    def frames(self, start: int, stop: int):
        """Conditioning of latent frames ``start <= i < stop``."""
        import torch

        from joyflash_cli.types import Conditioning

        config, num_frames = self._config, stop - start
        image = audio = None
        if config.image_channels:
            image = torch.randn(1, num_frames, config.image_channels, *self._grid)
        if config.audio_pack is not None:
            rows = (config.audio_pack.rows_per_latent, config.audio_pack.audio_dim)
            audio = torch.randn(1, num_frames, *rows)
        return Conditioning(image=image, text=self._text, audio=audio)


def iteration_gflop(config, settings, tokens_per_frame: int) -> float:
    """Multiplications and additions of the linear maps and attentions of both passes."""
    from joyflash_cli.sampler.urcr import attended_frames

    held = {"num_sink": settings.sink_frames, "num_context": settings.context_frames}
    total = 0
    for kind, num_frames, in_front in (
        ("window", settings.window_frames, int(settings.mci)),
        ("clean", settings.block_frames, 0),
    ):
        own = (num_frames + in_front) * tokens_per_frame
        context = sum(attended_frames(settings, kind, num_own=num_frames, **held))
        linear = 2 * own * (6 * config.dim**2 + 2 * config.dim * config.ffn_dim)
        pairs = own * (own + context * tokens_per_frame)
        across = own * (TEXT_TOKENS if config.text_dim else 0)
        total += config.num_layers * (linear + 4 * config.dim * (pairs + across))
    return total / 1e9


def resident_bytes() -> int:
    """Memory of this process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak_bytes() -> int:
    """Most memory that this process ever had; Linux counts kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
