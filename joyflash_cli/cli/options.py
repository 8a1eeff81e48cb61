"""Options that several verbs have, and command lines that are declared once and handed on whole."""

import functools
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from joyflash_cli.cli.help_text import DEVICE, EXPERT, FILES, MESSAGES, MODEL

DEVICES = (
    ("auto", "a GPU if there is one"),
    ("cpu", "the processor"),
    ("cuda", "the first CUDA GPU"),
    ("cuda:1", "another CUDA GPU"),
    ("mps", "Apple's GPU"),
)
DTYPES = (
    ("auto", "what the device is best at"),
    ("float32", "exact"),
    ("bfloat16", "half the memory"),
    ("float16", "half the memory, older GPUs"),
)

Options = TypeVar("Options")
Answer = TypeVar("Answer")


def takes(
    options: type[Options],
) -> Callable[[Callable[[Options], Answer]], Callable[..., Answer]]:
    """Makes the fields of a dataclass the command line of a verb that is given one.

    Args:
        options: Its fields are annotated as Typer reads parameters.
    """
    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(options)  # type: ignore[arg-type]
    ]

    def decorate(verb: Callable[[Options], Answer]) -> Callable[..., Answer]:
        @functools.wraps(verb)
        def command(**given: Any) -> Answer:
            return verb(options(**given))

        command.__dict__["__signature__"] = inspect.Signature(parameters)
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def option(
    names: str, text: str, value: str | None = None, *, group: str | None = None, **more: Any
) -> Any:
    """An option as Typer declares it.

    Args:
        names: ``--output``, or ``-o --output``.
        text: Its line of help.
        value: What the help calls its value.
        group: Under which head of the help it stands.
        more: Whatever else Typer is to know.
    """
    return typer.Option(*names.split(), metavar=value, help=text, rich_help_panel=group, **more)


def chosen_decoder(fast: bool, large: bool) -> bool | None:
    """Whether the tiny decoder is asked for, or the large one; ``None`` for the profile's own."""
    if large:  # also against a configuration file
        return False
    return True if fast else None


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """A command line whose ``--fast-decode on`` and ``--fast-decode off`` are flags."""
    flags = {"on": "--fast-decode", "off": "--no-fast-decode"}
    words: list[str] = []
    for word in arguments:
        name, _, value = word.partition("=")
        if words and words[-1] == "--fast-decode" and word in flags:
            words[-1] = flags[word]
        elif name == "--fast-decode" and value in flags:
            words.append(flags[value])
        else:
            words.append(word)
    return words


def complete_profile(incomplete: str) -> Iterator[tuple[str, str]]:
    """For the shell: profiles of ``weights.toml`` with their titles."""
    from joyflash_cli.errors import JoyFlashError
    from joyflash_cli.weights.manifest import read_manifest

    try:
        profiles = read_manifest()
    except JoyFlashError:
        return  # nothing may be printed between what is typed
    for name, profile in profiles.items():
        if name.startswith(incomplete):
            yield name, profile.title


def complete_device(incomplete: str) -> list[tuple[str, str]]:
    """For the shell: devices that may be named."""
    return [entry for entry in DEVICES if entry[0].startswith(incomplete)]


def complete_dtype(incomplete: str) -> list[tuple[str, str]]:
    """For the shell: number formats of the transformer."""
    return [entry for entry in DTYPES if entry[0].startswith(incomplete)]


Json = Annotated[bool, option("--json", "Print one JSON object.", group=MESSAGES)]
Quiet = Annotated[bool, option("--quiet -q", "Only errors on stderr.", group=MESSAGES)]
Debug = Annotated[bool, option("--debug", "Show the traceback of an error.", group=MESSAGES)]
Progress = Annotated[
    str, option("--progress", "On stderr: auto, bar, plain, json or none.", "KIND", group=MESSAGES)
]
ProgressFd = Annotated[
    int | None,
    option(
        "--progress-fd", "Write the JSON lines to file descriptor N.", "N", group=MESSAGES, min=0
    ),
]
Profile = Annotated[
    str,
    option(
        "--profile",
        "Model; see joyflash weights list.",
        "NAME",
        group=MODEL,
        autocompletion=complete_profile,
    ),
]
Checkpoint = Annotated[
    Path | None,
    option("--checkpoint", "Weights to use instead of the profile's.", "DIR", group=MODEL),
]
Device = Annotated[
    str,
    option(
        "--device",
        "auto, cpu, cuda, cuda:N or mps.",
        "NAME",
        group=DEVICE,
        autocompletion=complete_device,
    ),
]
Dtype = Annotated[
    str,
    option(
        "--dtype",
        "auto, bf16, fp16 or fp32.",
        "NAME",
        group=DEVICE,
        autocompletion=complete_dtype,
    ),
]
PictureArgument = Annotated[
    str | None, typer.Argument(metavar="IMAGE", help="Short for --image.", show_default=False)
]
Image = Annotated[
    Path | None, option("--image", "Picture: PNG, JPEG, HEIC, WebP, ...", "FILE", group=FILES)
]
FaceIndex = Annotated[
    int | None, option("--face", "Which face, 0 the largest (default).", "N", group=MODEL, min=0)
]
Prompt = Annotated[str, option("--prompt", "For profiles with text control.", "TEXT", group=MODEL)]
Overwrite = Annotated[
    bool, option("--overwrite", "Replace what exists, but never an input.", group=FILES)
]
ProfileName = Annotated[
    str, typer.Argument(metavar="PROFILE", help="A model; see joyflash weights list.")
]
Accept = Annotated[bool, option("--accept-license", "Accept the terms that the command shows.")]
Roles = Annotated[
    list[str] | None, option("--role", "Only these files; may be given again.", "ROLE")
]
Attention = Annotated[
    str, option("--attention", "Kernel: auto, sdpa, math, flash or cudnn.", "NAME", group=EXPERT)
]
Compile = Annotated[
    bool, option("--compile", "Compile the layers; starts minutes later.", group=EXPERT)
]
Offload = Annotated[
    str,
    option(
        "--offload", "Keep in CPU memory: none, text (its encoder) or all.", "WHAT", group=EXPERT
    ),
]
FastDecode = Annotated[
    bool,
    option(
        "--fast-decode",
        "Decode with the tiny decoder: less sharp, many times faster.",
        group=EXPERT,
    ),
]
StageThreads = Annotated[
    int | None,
    option(
        "--threads",
        "CPU threads of a stage; default: half the cores.",
        "N",
        group=DEVICE,
        min=1,
    ),
]
NoFastDecode = Annotated[
    bool, option("--no-fast-decode", "Decode with the large VAE.", group=EXPERT, hidden=True)
]
VaeDevice = Annotated[
    str | None,
    option("--vae-device", "Encode and decode pictures on another device.", "NAME", group=EXPERT),
]
Quantize = Annotated[
    str,
    option(
        "--quantize",
        "Weights of the layers in eight bits: none, int8 or fp8.",
        "NAME",
        group=EXPERT,
    ),
]
OutputFps = Annotated[
    float | None,
    option(
        "--output-fps",
        "Frames per second of the video: the model's are repeated or left out.",
        "N",
        group=FILES,
        min=1,
        max=240,
    ),
]
AudioTrack = Annotated[
    int | None,
    option(
        "--audio-track",
        "Which of several sound tracks, from 0; default: the default one.",
        "N",
        group=FILES,
        min=0,
    ),
]
SkipDamaged = Annotated[
    bool, option("--skip-damaged", "Make damaged places of compressed sound silent.", group=FILES)
]
Strict = Annotated[bool, option("--strict", "Refuse sound that is cut off.", group=FILES)]
AllowNoFace = Annotated[
    bool, option("--allow-no-face", "Where no face is found, show the middle of the picture.")
]
Frame = Annotated[
    str | None,
    option(
        "--frame",
        "Show the whole picture (default) or the square of the face: picture or face.",
        "WHAT",
    ),
]
Size = Annotated[
    int | None, option("--size", "Side of the face's square: 256 (default) or 512 px.", "N")
]
MaxSize = Annotated[
    int | None, option("--max-size", "Longer side of the picture, at most; default: 1280 px.", "N")
]

LabelText = Annotated[
    str,
    option("--label", "A small text in a corner of the video, such as 'AI-generated'.", "TEXT"),
]

Sign = Annotated[
    Path | None,
    option(
        "--sign",
        "Sign the video with this certificate (PEM): Content Credentials.",
        "CERT",
        group=FILES,
    ),
]
Key = Annotated[
    Path | None, option("--key", "The private key of --sign (PEM).", "FILE", group=FILES)
]
SignTimestamp = Annotated[
    str,
    option(
        "--sign-timestamp",
        "Service that attests when it was signed (RFC 3161).",
        "URL",
        group=FILES,
    ),
]
SignThumbnail = Annotated[
    bool,
    option("--sign-thumbnail", "Show the picture, small, in what is signed.", group=FILES),
]


def say(*lines: str, quiet: bool = False) -> None:
    """Lines for people, on stderr."""
    if not quiet:
        for line in lines:
            typer.echo(line, err=True)


def print_json(values: Any) -> None:
    """One object for programs, on stdout."""
    typer.echo(json.dumps(values))


def answer(values: Any, *lines: str, as_json: bool) -> None:
    """What was asked for, on stdout: one object for programs, lines for everybody else."""
    if as_json:
        print_json(values)
        return
    for line in lines:
        typer.echo(line)
