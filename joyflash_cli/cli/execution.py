"""Options for models that are large for their device, and what the preflight says about them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from joyflash_cli.cli.help_text import EXPERT, FILES

if TYPE_CHECKING:
    from joyflash_cli.render.placement import Placement
    from joyflash_cli.render.preflight import MemoryNeed
    from joyflash_cli.weights.store import CheckpointFiles

WORTH_TELLING_BYTES = 1_000_000_000
"""A run that takes less is not worth a line."""

Attention = Annotated[
    str,
    typer.Option(
        "--attention",
        metavar="NAME",
        help="Kernel: auto, sdpa, math, flash or cudnn.",
        rich_help_panel=EXPERT,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile", help="Compile the layers; starts minutes later.", rich_help_panel=EXPERT
    ),
]
Offload = Annotated[
    str,
    typer.Option(
        "--offload",
        metavar="WHAT",
        help="Keep in CPU memory: none, text (its encoder) or all.",
        rich_help_panel=EXPERT,
    ),
]
FastDecode = Annotated[
    bool,
    typer.Option(
        "--fast-decode",
        help="Decode with the tiny decoder: less sharp, many times faster.",
        rich_help_panel=EXPERT,
    ),
]
VaeDevice = Annotated[
    str | None,
    typer.Option(
        "--vae-device",
        metavar="NAME",
        help="Encode and decode pictures on another device.",
        rich_help_panel=EXPERT,
    ),
]
OutputFps = Annotated[
    float | None,
    typer.Option(
        "--output-fps",
        min=1,
        max=240,
        metavar="N",
        help="Frames per second of the video: the model's are repeated or left out.",
        rich_help_panel=FILES,
    ),
]
AllowNoFace = Annotated[
    bool,
    typer.Option(
        "--allow-no-face",
        help="Where no face is found, show the middle of the picture.",
    ),
]
Frame = Annotated[
    str | None,
    typer.Option(
        "--frame",
        metavar="WHAT",
        help="Show the whole picture (default) or the square of the face: picture or face.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option("--size", metavar="N", help="Side of the face's square: 256 (default) or 512 px."),
]
MaxSize = Annotated[
    int | None,
    typer.Option(
        "--max-size", metavar="N", help="Longer side of the picture, at most; default: 1280 px."
    ),
]
Quantize = Annotated[
    str,
    typer.Option(
        "--quantize",
        metavar="NAME",
        help="Weights of the layers in eight bits: none, int8 or fp8.",
        rich_help_panel=EXPERT,
    ),
]


def preflight(
    files: "CheckpointFiles", size_px: tuple[int, int], placement: "Placement", *, prompt: str = ""
) -> "list[MemoryNeed]":
    """What the run needs, when the checkpoint can be run so and the memory is free.

    Raises:
        CheckpointError: When a part is missing.
        DeviceError: When the memory is not free, or a kernel does not run.
        UsageError: When an option does not fit the checkpoint.
    """
    from joyflash_cli.render.placement import check_checkpoint
    from joyflash_cli.render.preflight import PlannedRun, check_memory

    check_checkpoint(files, placement)
    return check_memory(PlannedRun(files, size_px, prompt), placement)


def memory_line(placement: "Placement", needs: "list[MemoryNeed]") -> str:
    """``device cuda:0 bfloat16, needs 9.1 of 23.4 GB free on cuda:0``."""
    return f"device {placement.describe()}; {', '.join(need.describe() for need in needs)}"


def is_worth_telling(needs: "list[MemoryNeed]") -> bool:
    """Whether a run is large enough for a line about its memory."""
    return any(need.total >= WORTH_TELLING_BYTES for need in needs)


def memory_summary(placement: "Placement", needs: "list[MemoryNeed]") -> dict[str, Any]:
    """The same for a program that reads it."""
    return {
        "device": str(placement.device),
        "dtype": str(placement.dtype).removeprefix("torch."),
        "memory": [
            {
                "device": need.device,
                "needed_bytes": need.total,
                "free_bytes": None if need.free is None else need.free.free,
                "parts_bytes": need.binding,
            }
            for need in needs
        ],
    }
