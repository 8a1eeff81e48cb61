"""``joyflash benchmark``: how fast a profile is on this machine."""

import json
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from joyflash_cli.cli import options as shared
from joyflash_cli.cli.command_lines import ModelOptions
from joyflash_cli.cli.help_text import DEVICE, MESSAGES
from joyflash_cli.cli.options import option, say, takes
from joyflash_cli.errors import UsageError

if TYPE_CHECKING:
    from joyflash_cli.render.placement import Placement

WARM_UP_S = 2.0


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(ModelOptions):
    """The command line of ``joyflash benchmark``."""

    profile: shared.ProfileName
    checkpoint: shared.Checkpoint = None
    image: Annotated[
        Path | None, option("--image", "Picture; default: one that the package carries.", "FILE")
    ] = None
    audio: Annotated[
        Path | None, option("--audio", "Sound; default: one that the package carries.", "FILE")
    ] = None
    seconds: Annotated[
        float, option("--seconds", "Length of the video; the sound is repeated.", "S", min=1)
    ] = 20.0
    random_weights: Annotated[
        bool,
        option("--random-weights", "Measure the transformer alone, with no weights fetched."),
    ] = False
    blocks: Annotated[
        int, option("--blocks", "With --random-weights: blocks to measure.", "N", min=1)
    ] = 10
    px: Annotated[
        str | None,
        option("--px", "With --random-weights: size of the video.", "WIDTHxHEIGHT"),
    ] = None
    device: shared.Device = "auto"
    dtype: Annotated[str, option("--dtype", "auto, fp32, bf16 or fp16.", "NAME", group=DEVICE)] = (
        "auto"
    )
    threads: Annotated[
        int | None, option("--threads", "CPU threads; default: half the cores.", "N", min=1)
    ] = None
    attention: shared.Attention = "auto"
    compile_layers: shared.Compile = False
    offload: shared.Offload = "none"
    quantize: shared.Quantize = "none"
    fast_decode: shared.FastDecode = False
    no_fast_decode: shared.NoFastDecode = False
    vae_device: shared.VaeDevice = None
    output: Annotated[
        Path | None, option("-o --output", "Write the JSON object here, too.", "FILE")
    ] = None
    quiet: shared.Quiet = False
    as_json: Annotated[bool, option("--json", "Print one JSON object.", group=MESSAGES)] = False
    debug: shared.Debug = False

    def placement(self, head_dim: int) -> "Placement":
        """The choices, checked as far as that goes without a checkpoint."""
        from joyflash_cli.model.kernels import check_backend
        from joyflash_cli.render.placement import choose_placement

        placement = choose_placement(self.device, self.dtype, self.execution)
        check_backend(
            self.attention, device=placement.device, dtype=placement.dtype, head_dim=head_dim
        )
        return placement


@takes(BenchmarkOptions)
def benchmark(options: BenchmarkOptions) -> None:
    """Measure how fast a profile is here: frames per second, first block, memory.

    fps_dit is the transformer alone in its steady state, as papers state it; fps is the whole way
    from the sound to the finished file, first block, decoding and writing included. Both count
    from weights that are loaded and kernels that are warm. mfu is what the transformer does of
    what the device can do at most: null where no peak is listed, as for every CPU.

    With --random-weights nothing is fetched: the true sizes, no video, no fps.

    \b
    Examples:
      joyflash benchmark tiny --json
      joyflash benchmark joyavatar-flash-1.3b --random-weights --px 832x480 -o h100.json
    """  # noqa: D301 - \b tells the help not to fold the examples
    from joyflash_cli.render.device import use_threads

    if options.output is not None:
        from joyflash_cli.files import check_place

        check_place(options.output, hint="choose another place")
    use_threads(options.threads)
    report = _random(options) if options.random_weights else _measured(options)
    text = json.dumps(report)
    if options.output is not None:
        from joyflash_cli.files import cannot_write, write_whole

        try:
            write_whole(options.output, json.dumps(report, indent=1) + "\n")
        except OSError as error:
            raise cannot_write(options.output, error, hint="choose another place") from error
    typer.echo(text if options.as_json else "\n".join(_lines(report)))


def _tell(options: BenchmarkOptions) -> Any:
    return lambda text: say(f"benchmark: {text}", quiet=options.quiet)


def _measured(options: BenchmarkOptions) -> dict[str, Any]:
    from joyflash_cli.media.inputs.audio import read_audio
    from joyflash_cli.render import JoyFlash, read_request
    from joyflash_cli.render.benchmark import benchmark as measure
    from joyflash_cli.render.benchmark import repeated
    from joyflash_cli.render.placement import place
    from joyflash_cli.weights.store import resolve_checkpoint

    if options.px is not None:
        raise UsageError("--px is for --random-weights", hint="the picture decides the size")
    checkpoint = resolve_checkpoint(options.profile, options.checkpoint)
    asked = options.placement(checkpoint.description.transformer.head_dim)
    placement = place(checkpoint, options.device, options.dtype, asked.options)
    with as_file(files("joyflash_cli") / "assets" / "held_out") as folder:
        sound = read_audio(options.audio or folder / "clip-02.flac")
        requests = [
            read_request(
                checkpoint, options.image or folder / "clip-03.png", repeated(sound, seconds)
            )
            for seconds in (options.seconds, min(WARM_UP_S, options.seconds))
        ]
        _tell(options)("loading")
        joyflash = JoyFlash.load(checkpoint, placement=placement)
        return measure(joyflash, *requests, say=_tell(options))


def _random(options: BenchmarkOptions) -> dict[str, Any]:
    from joyflash_cli.description import parse_sampler
    from joyflash_cli.model.config import TransformerConfig
    from joyflash_cli.render.benchmark import benchmark_random
    from joyflash_cli.weights.convert import read_template

    template = read_template(options.profile)
    config = TransformerConfig.from_dict(template["transformer"])
    sizes = template.get("framing", {}).get("sizes") or [[832, 480]]
    width, height = _size(options.px) if options.px is not None else sizes[0]
    settings = parse_sampler(template["sampler"]).for_size(width, height)
    stride = 8  # of the Wan VAE, which all full-size profiles use
    return benchmark_random(
        options.profile,
        config,
        settings,
        options.placement(config.head_dim),
        size_px=(width, height),
        grid=(height // stride, width // stride),
        num_blocks=options.blocks,
        say=_tell(options),
    )


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) % 16 == 0 for part in parts):
        raise UsageError(f"--px {text!r:.40} is no size", hint="832x480: multiples of 16")
    width, height = map(int, parts)
    if not min(width, height):
        raise UsageError(f"--px {text!r:.40} is no size", hint="832x480: multiples of 16")
    return width, height


def _lines(report: dict[str, Any]) -> list[str]:
    """The figures for people."""

    def shown(name: str, unit: str = "") -> str:
        value = report[name]
        return (
            f"- ({report['reasons'].get(name, 'unknown')})" if value is None else f"{value}{unit}"
        )

    size = "x".join(map(str, report["size_px"]))
    peak = "unknown" if report["peak_bytes"] is None else f"{report['peak_bytes'] / 1e9:.2f} GB"
    return [
        f"profile      {report['profile']} {report['weights']}, {size}, {report['video_fps']} fps",
        f"device       {report['device']} {report['device_model']}, {report['dtype']}, attention "
        f"{report['attention']}, {report['threads']} threads",
        f"fps_dit      {report['fps_dit']} (transformer alone, {report['num_blocks']} blocks of "
        f"{report['block_s']} s, {report['kv_frames']} KV frames)",
        f"fps          {shown('fps')}",
        f"first block  {shown('first_block_s', ' s')}",
        f"memory       {peak} of the {report['peak_of']} at most",
        f"operations   {report['operations_per_block'] / 1e12:.4g} TFLOP a block, "
        f"{report['operations_per_s'] / 1e12:.4g} TFLOP/s",
        f"mfu          {shown('mfu')}",
    ]
