"""The product beside three public systems it learned from, block for block on one CPU thread.

`python benchmarks/references.py DIR` takes checkouts that lie in DIR under the names of
their repositories (any of them, by `git clone`); beside this project's requirements they import
einops:

    Self-Forcing    https://github.com/guandeh17/Self-Forcing
    RollingForcing  https://github.com/TencentARC/RollingForcing
    LongLive        https://github.com/NVlabs/LongLive at 7b56712 (the 1.3B version)

Of each, the transformer's own code runs with random weights, driven as its own inference loop
drives it in the steady state: text keys and values cached, a full cache of frames, one block of
three latent frames after another. All have the same width, layers, tokens, text and number format.
They take turns, a block each, and CPU seconds of the process are counted, so that what else the
machine does meets all of them alike; the ratio is the median over rounds of theirs over ours. Every
one is measured with PyTorch's attention and with the product's.

`--self` needs no checkouts: what a steady block of the product costs in operations, kernels and
waits for the device, and how many graphs `--compile` makes. `--length 2000 --size small` runs that
many blocks and tells how the last compare with the first, in time and memory.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from checkouts import (
    FEED_FORWARD,
    HEAD_DIM,
    SIZES,
    TEXT_DIM,
    TEXT_TOKENS,
    Reference,
    plain_attention,
)

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

GOALS = {
    ("bfloat16", "384"): (2.0, 1.8, 1.4),
    ("bfloat16", "256"): (2.0, 1.8, 1.4),
    ("bfloat16", "1536"): (1.8, 1.6, 1.3),
    **{("float32", size): (1.2, 1.1, 1.0) for size in ("384", "256", "1536")},
}
CLEAN_KV = ("next-pass", "extra-pass", "last-pass")
EARLY = range(20, 71)
"""Blocks whose time and memory the last ones are compared with."""

SYSTEMS = ("RollingForcing", "Self-Forcing", "LongLive")


def main() -> None:
    """Measure and print."""
    options = read_options()
    import torch

    from joyflash_cli.render.device import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()  # for everybody, as in every command of the product
    if options.length:
        report = over_length(options)
    else:
        report = of_ourselves(options) if options.self else beside(options)
    if options.json:
        print(json.dumps(report))
    elif options.self or options.length:
        print("\n".join(f"{name:28} {value}" for name, value in report.items()))
    else:
        print(as_table(report))


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", type=Path, nargs="?", metavar="DIR")
    parser.add_argument("--self", action="store_true", help="the product alone, no checkouts")
    parser.add_argument("--length", type=int, default=0, help="blocks of one long stream")
    parser.add_argument("--size", default="256", choices=SIZES)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--rounds", type=int, default=12, help="blocks of each")
    parser.add_argument("--clean-kv", default=None, choices=CLEAN_KV)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.length and options.length < 2 * (EARLY.stop + 1):
        parser.error(f"--length {options.length} is too short to compare")
    if not (options.self or options.length) and (
        options.checkouts is None or not options.checkouts.is_dir()
    ):
        parser.error("give the folder of the checkouts, or --self")
    return options


class Product:
    """A steady stream of ours.

    Args:
        size: Key of ``SIZES``.
        dtype: Of weights and cache.
        clean_kv: The sampler's; the default's if ``None``.
        is_packed: Whether weights are laid out for the CPU, as they are unless compiled.
    """

    def __init__(
        self, size: str, dtype: Any, clean_kv: str | None = None, *, is_packed: bool = True
    ) -> None:
        from joyflash_cli.model.config import TransformerConfig
        from joyflash_cli.model.packing import pack_linear_maps
        from joyflash_cli.render.steady import random_transformer, steady_stream
        from joyflash_cli.sampler.settings import PAPER

        width, layers, self.grid = SIZES[size]
        self.config = TransformerConfig(
            dim=width,
            num_layers=layers,
            num_heads=width // HEAD_DIM,
            ffn_dim=round(FEED_FORWARD * width),
            in_channels=16,
            text_dim=TEXT_DIM,
            text_len=TEXT_TOKENS,
        )
        self.settings = PAPER if clean_kv is None else replace(PAPER, clean_kv=clean_kv)
        self.transformer = random_transformer(self.config, dtype)
        if is_packed:
            pack_linear_maps(self.transformer.layers)
        stream = steady_stream(self.transformer, self.settings, self.grid)
        self._blocks = (block for block in stream.iterate() if block is not None)

    def block(self) -> None:
        """One more."""
        next(self._blocks)

    def write_attention_out(self) -> None:
        """From here on as matrix products, which PyTorch's counter sees on a CPU, too."""
        from joyflash_cli.model.attention import use_backend

        use_backend(self.transformer, "math")


def beside(options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds a block of everybody, by turns."""
    import torch

    from joyflash_cli.model.kernels import attend

    dtype = getattr(torch, options.dtype)
    torch.manual_seed(0)
    runners: dict[str, Product | Reference] = {
        "ours": Product(options.size, dtype, options.clean_kv)
    }
    used = runners["ours"].settings.clean_kv  # type: ignore[union-attr]
    for other in CLEAN_KV:
        if other != used:
            runners[f"ours, {other}"] = Product(options.size, dtype, other)
    for name in SYSTEMS:
        checkout = options.checkouts / name
        if not (checkout / "wan/modules/causal_model.py").is_file():
            print(f"{name}: no checkout with wan/modules/causal_model.py", file=sys.stderr)
            continue
        runners[name] = Reference(checkout, options.size, dtype, plain_attention)
        runners[f"{name}, our attention"] = Reference(checkout, options.size, dtype, attend)
    from counting import counted

    seconds: dict[str, list[float]] = {name: [] for name in runners}
    with torch.inference_mode():
        for turn in range(options.rounds + 1):
            for name, runner in runners.items():
                started = time.process_time()
                runner.block()
                if turn:  # the first of each warms up
                    seconds[name].append(time.process_time() - started)
    goals = dict(zip(SYSTEMS, GOALS.get((options.dtype, options.size), ()), strict=False))
    found = {}
    for name, runner in runners.items():
        own = [theirs / ours for theirs, ours in zip(seconds[name], seconds["ours"], strict=True)]
        found[name] = {
            "cpu_ms_per_block": round(1000 * statistics.median(seconds[name]), 1),
            "ratio": round(statistics.median(own), 3),
            "goal": goals.get(name),
            **counted(runner),
        }
    return {"size": options.size, "dtype": options.dtype, "rounds": options.rounds, "of": found}


def of_ourselves(options: argparse.Namespace) -> dict[str, Any]:
    """What a steady block costs, counted and measured in this process."""
    import torch
    from counting import counted

    from joyflash_cli.render.operations import block_operations

    dtype = getattr(torch, options.dtype)
    product = Product(options.size, dtype, options.clean_kv)
    with torch.inference_mode():
        seconds = []
        for turn in range(options.rounds + 1):
            started = time.process_time()
            product.block()
            if turn:
                seconds.append(time.process_time() - started)
    found = counted(product)
    gflop = block_operations(product.config, product.settings, product.grid) / 1e9
    speed = gflop / statistics.median(seconds)
    peak = linear_gflops(product.config.dim, product.config.ffn_dim, dtype)
    return {
        "size": options.size,
        "dtype": options.dtype,
        "clean_kv": product.settings.clean_kv,
        "cpu_ms_per_block": round(1000 * statistics.median(seconds), 1),
        **found,
        "gflop_counted": round(gflop, 2),
        "flops_ratio": round(found["gflop_executed"] / gflop, 4),
        "gflop_per_s": round(speed, 1),
        "peak_gflop_per_s": round(peak, 1),
        "share_of_peak": round(speed / peak, 3),
        **compiled_graphs(Product(options.size, dtype, options.clean_kv, is_packed=False)),
    }


def over_length(options: argparse.Namespace) -> dict[str, Any]:
    """How a long stream of the product ends, beside how it began."""
    import torch

    product = Product(options.size, getattr(torch, options.dtype), options.clean_kv)
    seconds, resident = [], []
    with torch.inference_mode():
        for _ in range(options.length):
            started = time.process_time()
            product.block()
            seconds.append(time.process_time() - started)
            resident.append(resident_bytes())
    early, late = (statistics.median(x) for x in (seconds[EARLY.start : EARLY.stop], seconds[-50:]))
    return {
        "size": options.size,
        "dtype": options.dtype,
        "blocks": options.length,
        "early_ms_per_block": round(1000 * early, 2),
        "late_ms_per_block": round(1000 * late, 2),
        "late_over_early": round(late / early, 3),
        "memory_growth_mb": round((max(resident[-50:]) - max(resident[: EARLY.stop])) / 1e6, 2),
    }


def resident_bytes() -> int:
    """Memory of this process."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def linear_gflops(width: int, hidden: int, dtype: Any, tokens: int = 2080) -> float:
    """GFLOP/s of a linear map of the feed-forward's shape: the best of ten."""
    import torch

    states, weight = torch.randn(tokens, width).to(dtype), torch.randn(hidden, width).to(dtype)
    best = float("inf")
    for _ in range(10):
        started = time.process_time()
        torch.nn.functional.linear(states, weight)
        best = min(best, time.process_time() - started)
    return 2 * tokens * width * hidden / best / 1e9


def compiled_graphs(product: Product, num_blocks: int = 4) -> dict[str, int]:
    """Graphs that ``--compile`` makes of all layers: in a first steady block, and in later ones.

    They are traced and not compiled further, which takes no compiler of the system.
    """
    import torch
    from torch._dynamo.testing import CompileCounter

    from joyflash_cli.render.load import compile_layers

    counter = CompileCounter()
    with torch.inference_mode():
        product.block()  # before it nothing is clean that the next pass could have in front
        compile_layers(product.transformer, backend=counter)
        product.block()
        first = counter.frame_count
        for _ in range(num_blocks):
            product.block()
    return {"graphs": first, "graphs_later": counter.frame_count - first}


def as_table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"Width {report['size']}, {report['dtype']}, one thread, {report['rounds']} blocks each.",
        "",
        "| | CPU ms a block | theirs / ours | goal | GFLOP | kernels | waits |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in report["of"].items():
        lines.append(
            f"| {name} | {found['cpu_ms_per_block']} | {found['ratio']} | {found['goal'] or ''} | "
            f"{found['gflop_executed']} | {found['kernels_per_block']} | "
            f"{found['host_syncs_per_block']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
