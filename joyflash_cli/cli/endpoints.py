"""Picture, voice and video as the command line gives them: options, pipes, standard streams.

What can be refused is refused before any work is done.
"""

import contextlib
import os
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from joyflash_cli.cli.options import say
from joyflash_cli.errors import ImageError, OutputError, UsageError
from joyflash_cli.media.inputs.hearing import SoundChoices

if TYPE_CHECKING:
    from joyflash_cli.media.inputs.sound import Sound
    from joyflash_cli.media.outputs.names import OutputNames, Source


STANDARD_INPUT = "-"
STANDARD_INPUT_DESCRIPTOR = 0
_SAID_AFTER_S = 1.0


def open_sound(
    audio: str, audio_format: str | None, choices: SoundChoices, *, quiet: bool
) -> "Path | Sound":
    """The path of a file, or what a pipe or standard input brings as it arrives.

    Args:
        audio: As given.
        audio_format: As given with ``--audio-format``.
        choices: How it is to be heard.
        quiet: Whether nobody is told what is awaited.

    Raises:
        UsageError: For standard input that is a terminal, or an impossible format.
        AudioError: When the sound cannot be used.
    """
    from joyflash_cli.media.inputs.hearing import parse_pcm_format
    from joyflash_cli.media.inputs.sound import LiveSound, check_sound_file, is_pipe, open_pipe

    pcm = None if audio_format is None else parse_pcm_format(audio_format)
    if audio != STANDARD_INPUT:
        path = Path(audio)
        if is_pipe(path):
            with said_while_opening(path, "--audio", quiet=quiet):
                return open_pipe(path, pcm, choices=choices)
        return path if pcm is None else check_sound_file(path, pcm, choices=choices)
    if sys.stdin is None or sys.stdin.isatty():
        what = "closed" if sys.stdin is None else "a terminal"
        raise UsageError(
            f"--audio - reads WAV from standard input, which is {what}",
            hint="pipe a sound into it, or give --audio FILE",
            code="E-STDIN-TERMINAL",
        )
    return LiveSound(sys.stdin.buffer, pcm, choices=choices)


@contextlib.contextmanager
def open_picture(path: Path, *, quiet: bool) -> Iterator[Path | BinaryIO]:
    """The path of a picture, or an open pipe.

    Raises:
        ImageError: ``E-IMAGE-MISSING`` for a pipe that cannot be opened.
    """
    from joyflash_cli.media.inputs.sound import is_pipe

    if not is_pipe(path):
        yield path
        return
    try:
        with said_while_opening(path, "--image", quiet=quiet):
            file = path.open("rb")
    except OSError as error:
        raise ImageError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="give the path of a picture",
            code="E-IMAGE-MISSING",
        ) from error
    with file:
        yield cast("BinaryIO", file)


@contextlib.contextmanager
def said_while_opening(
    path: Path, option: str, *, quiet: bool, to_read: bool = True
) -> Iterator[None]:
    """Says what is awaited where opening takes long: a named pipe waits for its other end.

    Args:
        path: What is opened within the ``with`` statement.
        option: Where it was given.
        quiet: Whether nothing is said.
        to_read: Whether it is read here, and a writer is awaited; else a reader.
    """
    does = "writes to" if to_read else "reads from"
    text = f"joyflash: waiting until a program {does} the pipe {path} ({option})"
    timer = threading.Timer(_SAID_AFTER_S, say, (text,), {"quiet": quiet})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


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
) -> "OutputNames | None":
    """The names of a target, ``None`` for a stream; before anything else is read.

    What could not be written later is refused.

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
    from joyflash_cli.media.outputs.names import OutputNames, check_names

    if not is_stream(output):
        return OutputNames(output).check(overwrite=overwrite, inputs=inputs, also=also)
    check_names(also, overwrite=overwrite, inputs=inputs)
    if not is_standard_output(output):
        return None
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
    return None


@contextlib.contextmanager
def claimed_stream(output: Path, *, quiet: bool) -> "Iterator[BinaryIO]":
    """A pipe or device, or standard output, for the video alone.

    Whatever a library may print meanwhile goes to standard error: one stray byte would break the
    video.
    """
    if not is_standard_output(output):
        with _opened_stream(output, quiet=quiet) as stream:
            yield stream
        return
    sys.stdout.flush()
    descriptor = sys.stdout.fileno()
    video = os.dup(descriptor)
    os.dup2(sys.stderr.fileno(), descriptor)
    try:
        with open(video, "wb", buffering=0, closefd=False) as stream:
            yield cast("BinaryIO", stream)
    finally:
        os.dup2(video, descriptor)
        os.close(video)


@contextlib.contextmanager
def _opened_stream(output: Path, *, quiet: bool) -> "Iterator[BinaryIO]":
    """A pipe or device by its name; a pipe's reader is waited for."""
    try:
        with said_while_opening(output, "--output", quiet=quiet, to_read=False):
            stream = output.open("wb", buffering=0)
    except OSError as error:
        raise OutputError(
            f"{output} cannot be written: {error.strerror or error}",
            hint="choose another place with --output",
            code="E-OUTPUT-WRITE",
        ) from error
    with stream:
        yield cast("BinaryIO", stream)
