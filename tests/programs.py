"""The command in a process of its own, without importing everything each time.

A server imports the whole program once, computes nothing, and forks for each start. What it
forks is handed over to the test's process as a child of its own: signals, exit codes and pipes
are those of any other program. What is told about the start of the interpreter itself, such as
how quickly the help comes, needs ``subprocess``.

Workers that the test's process spawns by ``multiprocessing`` begin in the same way.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import io
import json
import multiprocessing.util
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

COMMAND = "from joyflash_cli.cli.app import main; main()"
MESSAGE_BYTES = 100_000
PR_SET_CHILD_SUBREAPER = 36


class Program(subprocess.Popen):
    """``python -c``, with ``joyflash`` as the program if no other is given.

    Args:
        arguments: What follows the program's name.
        program: Python text.
        options: As for ``Popen``: streams, ``pass_fds``, ``cwd``, ``env``, ``text``.
    """

    def __init__(self, arguments: Sequence[str], *, program: str = COMMAND, **options) -> None:
        super().__init__([sys.executable, "-c", program, *map(str, arguments)], **options)

    def _execute_child(self, args, *rest) -> None:
        if sys.platform != "linux":
            super()._execute_child(args, *rest)
            return
        pass_fds, cwd, env = rest[3:6]
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = rest[9:15]
        streams = [
            number if given == -1 else given
            for number, given in enumerate((p2cread, c2pwrite, errwrite))
        ]
        try:
            self.pid = _server().start(
                args[2], args[3:], streams=streams, kept=pass_fds, folder=cwd, environment=env
            )
        finally:
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        self._child_created = True


def run_program(
    arguments: Sequence[str], *, input=None, timeout: float = 600, **options
) -> subprocess.CompletedProcess:
    """A program's whole life; both of its outputs are caught unless they go elsewhere."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        streams["stdin"] = subprocess.PIPE
    with Program(arguments, **(streams | options)) as program:
        try:
            out, err = program.communicate(input, timeout)
        except BaseException:
            program.kill()
            raise
    return subprocess.CompletedProcess(arguments, program.returncode, out, err)


class _Server:
    """The process that forks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._answer()  # it is ready
        atexit.register(self._end)

    def start(
        self, program, arguments, *, streams=(0, 1, 2), kept=(), folder=None, environment=None
    ) -> int:
        """The process number of a new child of ours."""
        start = {
            "program": program,
            "arguments": list(arguments),
            "folder": os.fspath(folder or os.getcwd()),
            "environment": dict(os.environ if environment is None else environment),
            "kept": list(kept),
        }
        prctl = ctypes.CDLL(None).prctl
        with self._lock:
            prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                message = json.dumps(start).encode()
                socket.send_fds(self._channel, [message], [*streams, *kept])
                number = self._answer()
                self._answer()  # the process between has gone: the new one is ours now
            finally:
                prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        return number

    def _answer(self) -> int:
        told = self._channel.recv(MESSAGE_BYTES)
        assert told, "the server has gone"
        return int(told)

    def _end(self) -> None:
        self._channel.close()
        self._process.wait()


_server = functools.cache(_Server)


def spawn_quickly() -> None:
    """From now on ``multiprocessing`` has its spawned workers from here."""
    if sys.platform != "linux":
        return
    spawn = multiprocessing.util.spawnv_passfds

    def start(path, arguments, kept):
        if arguments[-1] != "--multiprocessing-fork":
            return spawn(path, arguments, kept)
        return _server().start(arguments[-2], arguments[-1:], kept=kept)

    multiprocessing.util.spawnv_passfds = start


def _serve(channel: socket.socket) -> None:
    _import_everything()
    gc.freeze()
    channel.send(b"0")
    while True:
        message, descriptors, *_ = socket.recv_fds(channel, MESSAGE_BYTES, 64)
        if not message:
            return
        between = os.fork()
        if between == 0:
            number = os.fork()
            if number == 0:
                break
            channel.send(str(number).encode())
            os._exit(0)
        os.waitpid(between, 0)
        channel.send(b"0")
        for descriptor in descriptors:
            os.close(descriptor)
    channel.detach()
    _become(json.loads(message), descriptors)


def _import_everything() -> None:
    import av  # noqa: F401
    import torch._dynamo  # noqa: F401 - by the first step of an optimiser
    import torch.distributed.fsdp  # noqa: F401

    import joyflash_cli

    for module in pkgutil.walk_packages(joyflash_cli.__path__, "joyflash_cli."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)


def _become(start: dict, descriptors: list[int]) -> None:
    """Goes on as the program that was asked for."""
    numbers = [0, 1, 2, *start["kept"]]
    beyond = max(*numbers, *descriptors) + 1
    for offset, descriptor in enumerate(descriptors):
        os.dup2(descriptor, beyond + offset)
    for offset, number in enumerate(numbers):
        os.dup2(beyond + offset, number, inheritable=True)
    for number in range(3, beyond + len(numbers)):
        if number not in numbers:
            with contextlib.suppress(OSError):
                os.close(number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(start["folder"])
    os.environ.clear()
    os.environ.update(start["environment"])
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    out, err = (io.BufferedWriter(io.FileIO(number, "w")) for number in (1, 2))
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), "utf-8")
    sys.stdout = io.TextIOWrapper(out, "utf-8", write_through=unbuffered)
    sys.stderr = io.TextIOWrapper(err, "utf-8", "backslashreplace", line_buffering=True)
    sys.path += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["-c", *start["arguments"]]
    exec(start["program"], {"__name__": "__main__"})


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
