"""Where a video goes: the default name, and what is checked before any work is done."""

import sys
from pathlib import Path

from joyflash_cli.errors import UsageError

STANDARD_OUTPUT = "-"


def choose_output(output: Path | None, image: Path, audio: str) -> Path:
    """The target: as given, or ``<image stem>-<audio stem>.mp4`` in the current directory.

    Raises:
        UsageError: When the sound comes from standard input and no name was given.
    """
    if output is not None:
        return output
    if audio == "-":
        raise UsageError(
            "audio from standard input has no name",
            hint="give --output FILE.mp4, or --output - to pipe the video on",
        )
    return Path(f"{image.stem}-{Path(audio).stem}.mp4")


def is_standard_output(output: Path) -> bool:
    """Whether the video goes to whoever reads standard output."""
    return str(output) == STANDARD_OUTPUT


def check_target(output: Path, *, overwrite: bool, as_json: bool) -> None:
    """Refuses a target that could not be written later, before anything else is read.

    Raises:
        UsageError: For standard output that is a terminal, or that JSON is to be printed on.
        OutputError: When the target exists, its suffix is unknown or its folder is not writable.
    """
    from joyflash_cli.pipeline.writing import check_output

    if not is_standard_output(output):
        check_output(output, overwrite=overwrite)
        return
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
