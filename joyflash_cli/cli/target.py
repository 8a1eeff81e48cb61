"""Where a video goes: the default name, and what is checked before any work is done."""

from pathlib import Path

from joyflash_cli.errors import UsageError


def choose_output(output: Path | None, image: Path, audio: str) -> Path:
    """The target: as given, or ``<image stem>-<audio stem>.mp4`` in the current directory.

    Raises:
        UsageError: When the sound comes from standard input and no name was given.
    """
    if output is not None:
        return output
    if audio == "-":
        raise UsageError("audio from standard input has no name", hint="give --output FILE.mp4")
    return Path(f"{image.stem}-{Path(audio).stem}.mp4")


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuses a target that could not be written later, before anything else is read.

    Raises:
        UsageError: For standard output.
        OutputError: When the target exists, its suffix is unknown or its folder is not writable.
    """
    from joyflash_cli.media.muxer import check_suffix
    from joyflash_cli.media.pending import check_target

    if str(output) == "-":
        raise UsageError("a video is not written to standard output", hint="give --output FILE.mp4")
    check_target(output, overwrite=overwrite)
    check_suffix(output)
