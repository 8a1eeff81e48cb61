"""A render over several GPUs: samplers that share every pass, one GPU for pictures, one writer.

Each GPU has a process of its own. The command's own process reads the sound, writes the video and
answers to signals; it computes nothing. When one process dies, or the command ends, all do.
"""

import contextlib
import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from joyflash_cli.errors import DeviceError, JoyFlashError
from joyflash_cli.render.placement import Placement
from joyflash_cli.render.rank_process import RankTask, RelayedSound, send, serve
from joyflash_cli.render.request import RenderRequest
from joyflash_cli.streaming import WAKE_EVERY_S, Cancellation, RunAhead
from joyflash_cli.types import FrameChunk
from joyflash_cli.weights.store import CheckpointFiles

START_METHOD = "forkserver" if hasattr(signal, "SIGCHLD") else "spawn"
"""The server imports once for all processes and never touches a GPU, so what it forks can."""

PRELOADED = ["torch", "joyflash_cli.sampler.stream", "joyflash_cli.render.rank_process"]

GRACE_S = 2.0
"""How long, after a failure, frames that are on their way are waited for, and its cause."""


class RankPipeline:
    """The processes of several GPUs, which render one request after the other.

    Args:
        files: The checkpoint.
        placement: For at least two GPUs.
    """

    def __init__(self, files: CheckpointFiles, placement: Placement) -> None:
        self._files, self._placement = files, placement
        self._num_samplers = placement.num_samplers
        self._processes: list[BaseProcess] = []
        self._commands: list[Connection] = []
        self._watched: dict[Any, int] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._failure: BaseException | None = None
        self._failed_at = 0.0

    def start(self) -> None:
        """Begins the processes and waits until all have loaded.

        Raises:
            JoyFlashError: What any of them could not do.
        """
        import torch

        context: Any = multiprocessing.get_context(START_METHOD)
        if START_METHOD == "forkserver":
            context.set_forkserver_preload(PRELOADED)
        self._folder = tempfile.TemporaryDirectory(prefix="joyflash-")
        to_codec, from_sampler = context.Pipe()
        blocks = {0: to_codec, self._num_samplers: from_sampler}
        try:
            for rank in range(self._num_samplers + 1):
                ours, theirs = context.Pipe()
                task = RankTask(
                    self._files,
                    self._placement.of_rank(rank),
                    rank,
                    self._num_samplers,
                    Path(self._folder.name) / "meeting",
                    torch.get_num_threads(),
                )
                process = context.Process(
                    target=serve, args=(task, theirs, blocks.get(rank)), daemon=True
                )
                process.start()
                theirs.close()
                self._processes.append(process)
                self._commands.append(ours)
                self._watched |= {ours: rank, process.sentinel: rank}
            for end in blocks.values():
                end.close()
            for _ in self._processes:
                self._next(None)  # each says that it has loaded
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends all processes at once, whatever they do; the next request begins new ones."""
        for process in self._processes:
            process.kill()
        for process, command in zip(self._processes, self._commands, strict=True):
            process.join()
            command.close()
        self._processes, self._commands, self._watched = [], [], {}
        self._failure = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def stream(
        self, request: RenderRequest, *, on_wait: Callable[[float], None] | None = None
    ) -> Generator[FrameChunk, None, None]:
        """Frames of the request; see ``JoyFlash.stream``.

        Raises:
            DeviceError: Also when a process has died.
        """
        started = time.perf_counter()
        if not self._processes:
            self.start()
        cancellation = Cancellation()
        is_live = request.sound.num_samples is None
        relayed: Any = RelayedSound(request.sound.name)
        told = replace(request, audio=relayed) if is_live else request
        complete = False

        def end() -> None:
            if not complete:
                self.stop()

        with contextlib.ExitStack() as stack:
            stack.callback(end)
            self._tell(self._commands, told)
            self._tell_samplers(self._next(on_wait))
            if is_live:
                relay = self._relay(request, cancellation)
                stack.enter_context(RunAhead(relay, name="hearing", cancellation=cancellation))
                stack.callback(end)  # before it waits for the relay, which may wait for a process
            while (chunk := self._next(on_wait)) is not None:
                yield replace(chunk, elapsed_s=time.perf_counter() - started)
            complete = True

    def _tell(self, commands: list[Connection], message: object) -> None:
        for command in commands:
            with contextlib.suppress(OSError):  # it has died, which `_next` will notice
                send(command, message)

    def _tell_samplers(self, message: object) -> None:
        self._tell(self._commands[: self._num_samplers], message)

    def _relay(self, request: RenderRequest, cancellation: Cancellation) -> Iterator[None]:
        """Passes live sound on to the samplers while it is heard; yields nothing."""
        try:
            sound = request.sound.open(cancellation.check)
            self._tell_samplers((sound.name, sound.format))
            for piece in sound.pieces:
                self._tell_samplers(piece)
            self._tell_samplers(None)
        except JoyFlashError as error:
            self._tell_samplers(error)
        yield from ()

    def _next(self, on_wait: Callable[[float], None] | None) -> Any:
        """What a process says next; while streaming, what the codec says.

        Raises:
            DeviceError: When a process has died, after frames that were on their way.
            BaseException: What failed in a process.
        """
        began = time.monotonic()
        while True:
            heard = self._hear()
            if heard is None:
                now = time.monotonic()
                if self._failure is not None and now > self._failed_at + GRACE_S:
                    raise self._failure
                if on_wait is not None:
                    on_wait(now - began)
                continue
            rank, message = heard
            if not isinstance(message, BaseException):
                return message
            is_known = isinstance(message, JoyFlashError)
            if is_known and rank == self._num_samplers:
                raise message
            if self._failure is None:
                self._failed_at = time.monotonic()
            # One that dies makes others fail, and their words only tell that it has gone.
            if not isinstance(self._failure, JoyFlashError):
                self._failure = message

    def _hear(self) -> tuple[int, Any] | None:
        """A process and what it says, its death included; ``None`` after a while of silence."""
        ready = wait(list(self._watched), WAKE_EVERY_S)
        if not ready:
            return None
        rank, is_pipe = max((self._watched[end], isinstance(end, Connection)) for end in ready)
        if is_pipe:
            with contextlib.suppress(EOFError, OSError):
                return rank, self._commands[rank].recv()
        self._watched = {end: of for end, of in self._watched.items() if of != rank}
        return rank, self._death(rank)

    def _death(self, rank: int) -> DeviceError:
        process = self._processes[rank]
        process.join(GRACE_S)
        code = process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended ({code})"
        work = "decoding" if rank == self._num_samplers else "sampling"
        device = self._placement.of_rank(rank).device
        return DeviceError(
            f"process {rank + 1} of {len(self._processes)}, {work} on {device}, {how}",
            hint="run the same command again; signal 9 often means that memory ran out",
            code="E-GPUS-DIED",
        )
