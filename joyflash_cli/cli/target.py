"""What a video is made of and where it goes: names, and what is checked before any work is done."""

import stat
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.cli.inputs import STANDARD_INPUT
from joyflash_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from joyflash_cli.media.outputs.names import Source

STANDARD_OUTPUT = "-"


def choose_inputs(
    given: Iterable[str | None], image: Path | None, audio: str | None
) -> tuple[Path, str]:
    """Picture and voice, from options or without them in this order.

    Args:
        given: What stands on the command line without an option; ``None`` for nothing.
        image: As given with ``--image``.
        audio: As given with ``--audio``.

    Raises:
        UsageError: When one is missing, or more is given than there is use for.
    """
    left = [text for text in given if text is not None]
    if image is None and left:
        image = Path(left.pop(0))
    if audio is None and left:
        audio = left.pop(0)
    if left:
        raise UsageError(
            f"{left[0]!r} is given besides a picture and a voice",
            hint="a render takes one of each; see joyflash batch for many",
        )
    if image is None or audio is None:
        missing = "a picture" if image is None else "a voice"
        option = "--image FILE" if image is None else "--audio FILE, or --audio - for a pipe"
        raise UsageError(f"{missing} is needed", hint=f"give {option}")
    return image, audio


def choose_output(output: str | None, image: Path, audio: str) -> Path:
    """The target: as given, or ``<image stem>-<audio stem>.mp4`` in the current directory.

    Raises:
        OutputError: For a name that ends in a slash.
        UsageError: When the sound comes from standard input and no name was given.
    """
    from joyflash_cli.media.outputs.names import check_is_no_folder

    if output is not None:
        check_is_no_folder(output)
        return Path(output)
    if audio == STANDARD_INPUT:
        raise UsageError(
            "audio from standard input has no name",
            hint="give --output FILE.mp4, or --output - to pipe the video on",
        )
    return Path(f"{image.stem}-{Path(audio).stem}.mp4")


def is_standard_output(output: Path) -> bool:
    """Whether the video goes to whoever reads standard output."""
    return str(output) in (STANDARD_OUTPUT, "/dev/stdout")


def is_stream(output: Path) -> bool:
    """Whether the video goes somewhere that is no file: standard output, a pipe or a device.

    A named pipe, a shell's ``>(program)`` or ``/dev/null`` can neither be replaced nor read back.
    """
    if is_standard_output(output):
        return True
    try:
        mode = output.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def check_target(
    output: Path,
    *,
    overwrite: bool,
    as_json: bool,
    inputs: Sequence["Source"],
    also: Iterable[Path],
) -> None:
    """Refuses a target that could not be written later, before anything else is read.

    Args:
        output: Where the video goes.
        overwrite: Whether what is there may be replaced.
        as_json: Whether JSON is to be printed.
        inputs: What is read, which no file that is written may replace.
        also: Other files that are written.

    Raises:
        UsageError: For standard output that is a terminal, or that JSON is to be printed on.
        OutputError: See ``OutputNames.check``; when standard output is closed.
    """
    from joyflash_cli.media.outputs.names import check_names
    from joyflash_cli.render.writer import check_output

    if not is_stream(output):
        check_output(output, overwrite=overwrite, inputs=inputs, also=also)
        return
    check_names(also, overwrite=overwrite, inputs=inputs)
    if not is_standard_output(output):
        return
    if sys.stdout is None:
        raise OutputError(
            "--output - writes the video to standard output, which is closed",
            hint="pipe it into a player, such as | ffplay -, or give --output FILE.mp4",
            code="E-OUTPUT-WRITE",
        )
    if sys.stdout.isatty():
        raise UsageError(
            "--output - writes the video to standard output, which is a terminal",
            hint="pipe it into a player, such as | ffplay -, or give --output FILE.mp4",
            code="E-STDOUT-TERMINAL",
        )
    if as_json:
        raise UsageError(
            "--json and --output - both write to standard output",
            hint="leave --json out; --progress json tells the same on standard error",
        )
