"""Picture and voice as the command line gives them: options, standard input, and pipes."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from joyflash_cli.cli.options import say
from joyflash_cli.errors import ImageError, UsageError
from joyflash_cli.media.inputs.hearing import SoundChoices

if TYPE_CHECKING:
    from joyflash_cli.media.inputs.sound import Sound

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
