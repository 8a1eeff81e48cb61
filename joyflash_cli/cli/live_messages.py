"""What a live video is told while it runs: one JSON object a line, on stdin or a socket."""

import base64
import binascii
import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from joyflash_cli.errors import JoyFlashError, UsageError
from joyflash_cli.streaming import in_background

if TYPE_CHECKING:
    from joyflash_cli.render.session import Session

MAX_LINE_BYTES = 64 << 20
"""Longer lines are refused; it is half an hour of sound."""

MESSAGE_RATE_HZ = 16_000
"""Of samples that come without a rate."""

_BACKLOG = 8


class Messages:
    """Reads messages and does what they say; one that cannot be read is told and changes nothing.

    Args:
        session: That is spoken to.
        tell: Told of errors; called in other threads.
    """

    def __init__(self, session: "Session", tell: Callable[[Exception], None]) -> None:
        self._session, self._tell = session, tell

    def read(self, stream: BinaryIO) -> None:
        """Does what every line of a stream says, to its end."""
        for line in _lines(stream):
            if isinstance(line, Exception):
                self._tell(line)
            elif line.strip():
                self.do(line)

    def do(self, line: bytes) -> None:
        """Does what one message says."""
        try:
            _ACTIONS[_checked(line)["type"]](self, json.loads(line))
        except (JoyFlashError, OSError) as error:
            self._tell(error)

    def _audio(self, message: dict[str, Any]) -> None:
        path, pcm = message.get("path"), message.get("pcm")
        if (path is None) == (pcm is None):
            raise _unreadable("audio has either pcm or a path")
        if path is not None:
            self._session.play(Path(_text(message, "path")))
            return
        import numpy as np

        rate_hz = _number(message, "rate", MESSAGE_RATE_HZ, 2_000, 384_000)
        channels = _number(message, "channels", 1, 1, 8)
        try:
            data = base64.b64decode(_text(message, "pcm"), validate=True)
        except (binascii.Error, ValueError) as error:
            raise _unreadable(f"pcm is no base64: {error}") from error
        if len(data) % (2 * channels):
            raise _unreadable(f"pcm has {len(data)} bytes: not whole samples of 16 bits")
        samples = np.frombuffer(data, "<i2").reshape(-1, channels)
        self._session.push(samples, rate_hz)

    def _end_segment(self, message: dict[str, Any]) -> None:
        self._session.end_segment(message.get("id"))

    def _clear(self, _message: dict[str, Any]) -> None:
        self._session.clear()

    def _picture(self, message: dict[str, Any]) -> None:
        path = Path(_text(message, "path"))

        def show() -> None:
            try:
                self._session.show(path)
            except (JoyFlashError, OSError) as error:
                self._tell(error)

        in_background(show, "picture")  # a face takes a while to find, and a clear may follow

    def _mark(self, message: dict[str, Any]) -> None:
        self._session.mark(message.get("name"))

    def _quit(self, _message: dict[str, Any]) -> None:
        self._session.end()


_ACTIONS: dict[str, Callable[[Messages, dict[str, Any]], None]] = {
    "audio": Messages._audio,
    "end_segment": Messages._end_segment,
    "clear": Messages._clear,
    "picture": Messages._picture,
    "mark": Messages._mark,
    "quit": Messages._quit,
}


@contextlib.contextmanager
def control_socket(path: Path, serve: Callable[[BinaryIO], None]) -> Iterator[None]:
    """A Unix socket within the ``with`` block; every connection is read in a thread of its own.

    What a killed process has left under its name is taken over.

    Raises:
        UsageError: ``E-CONTROL`` if it cannot be made, or another process listens there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise OSError("another program listens there")
            path.unlink()
        mask = os.umask(0o177)  # only this user may speak
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"--control {path} cannot be opened: {error.strerror or error}",
            hint="give the path of a socket that does not exist yet, shorter than 100 characters",
            code="E-CONTROL",
        ) from error

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # it was closed
            in_background(partial(_serve, connection, serve), "control")

    in_background(accept, "control")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _serve(connection: socket.socket, serve: Callable[[BinaryIO], None]) -> None:
    with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
        serve(stream)


def _lines(stream: BinaryIO) -> Iterator[bytes | Exception]:
    """Lines of a stream; an error in place of one that is too long."""
    while line := stream.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE_BYTES)
            yield _unreadable(f"it has more than {MAX_LINE_BYTES >> 20} MB")
        else:
            yield line


def _checked(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"it is no JSON: {error}") from error
    if not isinstance(message, dict):
        raise _unreadable("it is no JSON object")
    if message.get("type") not in _ACTIONS:
        raise _unreadable(f"its type is {message.get('type')!r:.40}; {', '.join(_ACTIONS)} exist")
    return message


def _text(message: dict[str, Any], key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str) or not value:
        raise _unreadable(f"{key} is {value!r:.40}; a text is needed")
    return value


def _number(message: dict[str, Any], key: str, default: int, least: int, most: int) -> int:
    value = message.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _unreadable(f"{key} is {value!r:.40}; {least} to {most} are possible")
    return value


def _unreadable(what: str) -> UsageError:
    return UsageError(f"a message cannot be read: {what}", hint="see joyflash live --help",
                      code="E-MESSAGE")  # fmt: skip
