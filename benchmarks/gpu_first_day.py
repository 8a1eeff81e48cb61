"""Everything that only a GPU can show, in under twelve minutes and without a download.

`python benchmarks/gpu_first_day.py -o h100.json` makes the 1.3B transformer of the paper with
random weights and

1. compares every attention kernel and number format with float32 on the CPU (two layers of the true
   width, a steady window pass);
2. lets a steady block run under CUDA's own alarm for waits;
3. times the steady stream at 832 x 480 with each kernel, number format, quantisation, offload,
   clean pass and the compiler;
4. where there are several GPUs, shares the pass among 2, 3, 4, 6, 8 of them, compares the latents
   with those of one, and times that.

What fails says why and stops nothing; what there is no time for is left out and named. The exit
status is 1 when something computes wrongly. `--rehearse` does all but the compiler at a small size
on the CPU, with two processes in the place of GPUs.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

PROFILE = "joyavatar-flash-1.3b"
SIZE_PX = (832, 480)
STRIDE = 8
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 1e-2}
"""Largest relative error of a prediction; of random weights and two layers."""

BLOCKS = 4
SHARED_BLOCKS = 3
PORT = "29531"


def main() -> int:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=None, metavar="FILE")
    parser.add_argument("--minutes", type=float, default=11.0, help="no step begins after these")
    parser.add_argument("--rehearse", action="store_true", help="small, on the CPU")
    options = parser.parse_args()
    import torch

    if not options.rehearse and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device; --rehearse needs none")
    day = Day(options.minutes * 60, is_rehearsal=options.rehearse)
    day.run()
    text = json.dumps(day.report, indent=1)
    if options.output is not None:
        options.output.write_text(text + "\n")
    print(text)
    return 0 if day.is_right else 1


class Day:
    """The steps, their results and the time that is left.

    Args:
        limit_s: Seconds after which no step begins.
        is_rehearsal: Whether everything is small and on the CPU.
    """

    def __init__(self, limit_s: float, *, is_rehearsal: bool) -> None:
        import torch

        from joyflash_cli import __version__
        from joyflash_cli.model.config import TransformerConfig
        from joyflash_cli.render.device import device_model
        from joyflash_cli.sampler.settings import SamplerSettings
        from joyflash_cli.weights.convert import read_template

        template = read_template(PROFILE)
        self.config = TransformerConfig.from_dict(template["transformer"])
        self.settings = SamplerSettings.from_dict(template["sampler"])
        self.size_px, self.blocks = SIZE_PX, BLOCKS
        self.device = torch.device("cpu" if is_rehearsal else "cuda:0")
        if is_rehearsal:
            self.config = replace(self.config, dim=256, ffn_dim=512, num_heads=2, num_layers=2)
            self.size_px, self.blocks = (64, 64), 1
        self.is_rehearsal, self.is_right = is_rehearsal, True
        self._stop = time.monotonic() + limit_s
        self.report: dict[str, Any] = {
            "version": __version__,
            "torch": torch.__version__,
            "device": device_model(self.device),
            "num_devices": 2 if is_rehearsal else torch.cuda.device_count(),
            "profile": PROFILE,
            "size_px": list(self.size_px),
            "is_rehearsal": is_rehearsal,
            "equal": {},
            "speed": {},
            "shared": {},
            "left_out": [],
        }

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a latent frame."""
        return self.size_px[1] // STRIDE, self.size_px[0] // STRIDE

    def run(self) -> None:
        """All steps."""
        for dtype in self._dtypes():
            for backend in self._backends(dtype):
                self._step(
                    "equal", f"{dtype} {backend}", lambda d=dtype, b=backend: self.equal(d, b)
                )
        if not self.is_rehearsal:
            self._step("equal", "no wait in a steady block", self.unwaited)
        fast = self._dtypes()[0]
        for name, changes in self._choices(fast):
            self._step("speed", name, lambda c=changes: self.speed(**c))
        if self.report["num_devices"] < 2:
            self.report["left_out"].append("shared: there is one GPU")
        for ranks in (2, 3, 4, 6, 8):
            if ranks <= self.report["num_devices"] and self.config.num_heads % ranks == 0:
                self._step("shared", str(ranks), lambda n=ranks: self.shared(n))

    def _step(self, part: str, name: str, work: Callable[[], dict[str, Any]]) -> None:
        """One step: what it finds, or why it found nothing."""
        if time.monotonic() > self._stop:
            self.report["left_out"].append(f"{part}: {name}")
            return
        print(f"{part}: {name}", file=sys.stderr)
        started = time.monotonic()
        try:
            found = work()
        except Exception as error:  # noqa: BLE001 - the next step may do
            found = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        self.is_right &= found.get("is_right", True)
        self.report[part][name] = found | {"took_s": round(time.monotonic() - started, 1)}
        gc.collect()
        if self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

    def _dtypes(self) -> list[str]:
        """Number formats, the fastest first."""
        from joyflash_cli.render.device import has_bfloat16

        half = ["bfloat16"] if has_bfloat16(self.device) else []
        return [*half, *(["float16"] if self.device.type == "cuda" else []), "float32"]

    def _backends(self, dtype: str) -> tuple[str, ...]:
        import torch

        from joyflash_cli.model.kernels import usable_backends

        return usable_backends(
            device=self.device, dtype=getattr(torch, dtype), head_dim=self.config.head_dim
        )

    def _choices(self, fast: str) -> list[tuple[str, dict[str, Any]]]:
        """What is timed, in the order of what is most wanted."""
        compiled = (
            ("compile", {"compile": True}),
            ("compile, quantize fp8", {"compile": True, "quantize": "fp8"}),
        )
        named = [backend for backend in self._backends(fast) if backend != "auto"]
        return [
            ("as it comes", {}),
            *((f"attention {name}", {"attention": name}) for name in named),
            *(
                (f"clean_kv {name}", {"clean_kv": name})
                for name in ("extra-pass", "next-pass", "last-pass")
                if name != self.settings.clean_kv
            ),
            ("quantize int8", {"quantize": "int8"}),
            ("quantize fp8", {"quantize": "fp8"}),
            *(() if self.is_rehearsal else compiled),
            ("offload all", {"offload": "all"}),
            *((name, {"dtype": name}) for name in self._dtypes() if name != fast),
        ]

    def equal(self, dtype: str, backend: str) -> dict[str, Any]:
        """The relative error of a window pass against float32 on the CPU, written out."""
        import torch

        from joyflash_cli.model.attention import use_backend
        from joyflash_cli.render.steady import random_transformer, steady_stream

        config = replace(self.config, num_layers=min(2, self.config.num_layers))
        exact = random_transformer(config, torch.float32)
        use_backend(exact, "math")
        grid = (8, 8) if self.is_rehearsal else (16, 16)

        def predicted(transformer: Any, device: Any) -> Any:
            stream = steady_stream(transformer, self.settings, grid, device=device)
            return stream.window_pass().prediction.float().cpu()

        with torch.inference_mode():
            expected = predicted(exact, "cpu")
            other = exact.to(self.device, getattr(torch, dtype))
            use_backend(other, backend)  # type: ignore[arg-type]
            found = predicted(other, self.device)
        error = float((found - expected).norm() / expected.norm())
        return {"relative_error": error, "is_right": error < TOLERANCE[dtype]}

    def unwaited(self) -> dict[str, Any]:
        """Whether a steady block runs without a wait; CUDA itself says where there is one."""
        import torch

        from joyflash_cli.render.steady import random_transformer, steady_stream

        config = replace(self.config, num_layers=2)
        transformer = random_transformer(config, torch.bfloat16, self.device)
        with torch.inference_mode():
            stream = steady_stream(transformer, self.settings, self.grid, device=self.device)
            blocks = (block for block in stream.iterate() if block is not None)
            next(blocks)
            torch.cuda.set_sync_debug_mode("error")
            try:
                next(blocks)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return {"is_right": True}

    def speed(
        self, *, dtype: str = "auto", clean_kv: str | None = None, **execution: Any
    ) -> dict[str, Any]:
        """The steady stream's speed under some choices."""
        from joyflash_cli.render.benchmark import benchmark_random
        from joyflash_cli.render.placement import ExecutionOptions, choose_placement

        settings = self.settings
        if clean_kv is not None:
            settings = replace(settings, clean_kv=clean_kv)
        placement = choose_placement(str(self.device), dtype, ExecutionOptions(**execution))
        found = benchmark_random(
            PROFILE, self.config, settings, placement,
            size_px=self.size_px, grid=self.grid, num_blocks=self.blocks,
        )  # fmt: skip
        wanted = ("fps_dit", "block_s", "dtype", "attention", "mfu", "peak_bytes")
        return {name: found[name] for name in wanted}

    def shared(self, ranks: int) -> dict[str, Any]:
        """Latents and speed of a stream that several processes compute."""
        import torch
        import torch.multiprocessing as processes

        with tempfile.TemporaryDirectory() as folder:
            # One process for itself first, in a process of its own, too: its memory is freed.
            for size in (1, ranks):
                processes.spawn(
                    sample_shared, (size, self.config, self.settings, self.grid, folder,
                    self.is_rehearsal), nprocs=size, join=True,
                )  # fmt: skip
            alone, together = (
                torch.load(Path(folder) / f"{size}.pt", weights_only=True) for size in (1, ranks)
            )
        error = float((together["latents"] - alone["latents"]).norm() / alone["latents"].norm())
        tolerance = TOLERANCE["float32" if self.is_rehearsal else "bfloat16"]
        return {
            "relative_error": error,
            "is_right": error < tolerance,
            "block_s": together["block_s"],
            "times_faster": alone["block_s"] / together["block_s"],
        }


def sample_shared(
    rank: int, size: int, config: Any, settings: Any, grid: tuple[int, int], folder: str,
    is_rehearsal: bool,
) -> None:  # fmt: skip
    """What each process does: some steady blocks; the first one writes them and their time."""
    import torch
    import torch.distributed as dist

    from joyflash_cli.model.ulysses import Ranks
    from joyflash_cli.render.benchmark import synchronise
    from joyflash_cli.render.steady import random_transformer, steady_stream

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": PORT}
    device = torch.device("cpu" if is_rehearsal else f"cuda:{rank}")
    torch.set_num_threads(1)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("gloo" if is_rehearsal else "nccl", rank=rank, world_size=size)
    try:
        dtype = torch.float32 if is_rehearsal else torch.bfloat16
        transformer = random_transformer(config, dtype, device)
        if size > 1:
            transformer.share_with(Ranks(rank, size))
        with torch.inference_mode():
            stream = steady_stream(transformer, settings, grid, device=device)
            blocks = (block for block in stream.iterate() if block is not None)
            latents = [next(blocks).latents]
            synchronise(device)
            started = time.perf_counter()
            latents += [next(blocks).latents for _ in range(SHARED_BLOCKS)]
            synchronise(device)
            block_s = (time.perf_counter() - started) / SHARED_BLOCKS
        if rank == 0:
            found = {"latents": torch.cat(latents, 1).float().cpu(), "block_s": block_s}
            torch.save(found, Path(folder) / f"{size}.pt")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
