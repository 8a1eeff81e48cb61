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

WAN_STRIDE = 8


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
    from joyflash_cli.render.operations import block_operations
    from joyflash_cli.render.steady import random_transformer, steady_stream
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
    gflop = block_operations(config, PAPER, grid) / 1e9
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


def resident_bytes() -> int:
    """Memory of this process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak_bytes() -> int:
    """Most memory that this process ever had; Linux counts kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
