"""One process of a render over several GPUs: it samples its share, or encodes and decodes.

    command          request, sound --> every sampler        chunks <-- codec
    codec            picture, text, face --> command --> samplers
    first sampler    blocks --> codec

What goes between processes is pickled through pipes of their own; only the passes of the samplers
exchange tensors, by ``torch.distributed``. A full pipe pauses whoever writes to it.
"""

import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from joyflash_cli.processes import serve_parent
from joyflash_cli.render.job import StreamJob, device_errors, static_conditioning
from joyflash_cli.render.load import LoadedParts, load_codec, load_front_end, load_transformer
from joyflash_cli.render.placement import Placement
from joyflash_cli.render.request import RenderRequest
from joyflash_cli.render.sound_feed import SoundFeed
from joyflash_cli.render.stages import SampledBlock, decode_stage, on_cpu, sample_stage
from joyflash_cli.streaming import Cancellation, RunAhead
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    import torch

    from joyflash_cli.media.inputs.sound import OpenSound

PATIENCE = timedelta(days=365)
"""How long ranks wait for each other: a reader of the video may pause it as long as it likes."""

ELSEWHERE: Any = None
"""A part of the checkpoint that only other processes load."""


@dataclass(frozen=True)
class RankTask:
    """What one process is there for.

    Attributes:
        files: The checkpoint.
        placement: Its own device.
        rank: From 0; the samplers come first, the codec last.
        num_samplers: How many share every pass.
        meeting: File by which the samplers find each other.
        num_threads: CPU threads of an operation.
    """

    files: CheckpointFiles
    placement: Placement
    rank: int
    num_samplers: int
    meeting: Path
    num_threads: int


@dataclass(frozen=True)
class RelayedSound:
    """Sound that the command hears and passes on through a pipe; see ``relayed``.

    Attributes:
        name: For messages.
    """

    name: str


class _ByValue(ForkingPickler):
    """Sends the numbers of tensors, where PyTorch would let processes share their memory."""

    _extra_reducers: ClassVar[dict[type, Any]] = {}


def send(connection: Connection, message: object) -> None:
    """Send to a process that calls ``recv``."""
    connection.send_bytes(_ByValue.dumps(message))


def received(connection: Connection) -> Iterator[Any]:
    """What was sent, up to ``None``; an error that was sent is raised."""
    while (message := connection.recv()) is not None:
        if isinstance(message, BaseException):
            raise message
        yield message


def relayed(connection: Connection) -> "OpenSound":
    """The sound that comes through a pipe: name and format, then its pieces."""
    from joyflash_cli.media.inputs.sound import OpenSound

    messages = received(connection)
    name, sound_format = next(messages)
    return OpenSound(name, sound_format, messages)


def serve(task: RankTask, command: Connection, blocks: Connection | None) -> None:
    """The life of the process: says ``None`` when it has loaded, then makes a stream per request.

    An error is told to whoever waits, and then this process waits for its end: if it went by
    itself, the others would fail by that and tell of it first.

    Args:
        task: What it does.
        command: To the command.
        blocks: From the first sampler to the codec; ``None`` for the other samplers.
    """
    import torch

    serve_parent()
    torch.set_num_threads(task.num_threads)
    is_codec = task.rank == task.num_samplers
    # Whoever reads the blocks hears of a failure after those that came before it.
    listener = command if is_codec or blocks is None else blocks
    try:
        with device_errors():
            worker = Decoder(task, command, blocks) if is_codec else Sampler(task, command, blocks)
        send(command, None)
        while True:
            worker.stream(command.recv())
    except BaseException as error:  # noqa: BLE001 - the command tells it
        error.add_note(traceback.format_exc())
        for connection in (listener, command):
            try:
                send(connection, error)
                break
            except OSError:
                continue
        try:
            while True:
                command.recv_bytes()
        except (EOFError, OSError):
            return


class Decoder:
    """Encodes picture and text, and makes frames of blocks."""

    def __init__(self, task: RankTask, command: Connection, blocks: Connection | None) -> None:
        assert blocks is not None
        self._task, self._command, self._blocks = task, command, blocks
        codec = load_codec(task.files, task.placement)
        self._parts = LoadedParts(transformer=ELSEWHERE, codec=codec, front_end=ELSEWHERE)

    def stream(self, request: RenderRequest) -> None:
        """Sends the job of the samplers, then chunks as they are ready, then ``None``."""
        import torch

        placement = self._task.placement
        job = StreamJob.prepare(self._task.files, self._parts, request, placement)
        with torch.inference_mode(), device_errors(job.planned, placement):
            static = static_conditioning(job).to("cpu", placement.dtype)
        send(self._command, (replace(job.to("cpu"), parts=ELSEWHERE), static))
        chunks = decode_stage(job, self._sampled(placement.device), time.perf_counter())
        with RunAhead(chunks, name="decoding", cancellation=Cancellation()) as ready:
            for chunk in ready:
                send(self._command, chunk)
        send(self._command, None)

    def _sampled(self, device: "torch.device") -> Iterator[SampledBlock]:
        for sampled in received(self._blocks):
            block = replace(sampled.block, latents=sampled.block.latents.to(device))
            yield replace(sampled, block=block)


class Sampler:
    """Samples blocks together with the other samplers.

    Args:
        task: Of this process.
        command: To the command, which also sends live sound.
        blocks: To the codec; ``None`` where another sampler hands them on.
    """

    def __init__(self, task: RankTask, command: Connection, blocks: Connection | None) -> None:
        self._task, self._command, self._blocks = task, command, blocks
        transformer = load_transformer(task.files, task.placement)
        front_end = load_front_end(task.files, task.placement.device)
        self._parts = LoadedParts(transformer=transformer, codec=ELSEWHERE, front_end=front_end)
        if task.num_samplers > 1:
            transformer.share_with(_meet(task))

    def stream(self, request: RenderRequest) -> None:
        """Waits for the job and samples; blocks and ``None`` go to the codec."""
        job, static = self._command.recv()
        task, device = self._task, self._task.placement.device
        job = replace(job.to(device), parts=self._parts, request=request, placement=task.placement)
        is_relayed = isinstance(request.audio, RelayedSound)
        sound = relayed(self._command) if is_relayed else request.sound.open()
        feed = SoundFeed(sound, task.files.description.sampler.fps, device=device)
        sampled = sample_stage(job, feed, static)
        if self._blocks is None:
            for _ in sampled:
                pass
            return
        with RunAhead(sampled, name="sampling", cancellation=Cancellation()) as ready:
            for block in on_cpu(ready, device):
                send(self._blocks, block)
        send(self._blocks, None)


def _meet(task: RankTask) -> Any:
    """The samplers as one group."""
    import os
    import sys

    import torch
    import torch.distributed as dist

    from joyflash_cli.model.ulysses import Ranks

    is_cuda = task.placement.device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(task.placement.device)
    if sys.platform == "linux":
        # All are on this machine: nobody else is to reach them, and its name may lead nowhere.
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "nccl" if is_cuda else "gloo",
        init_method=task.meeting.as_uri(),
        rank=task.rank,
        world_size=task.num_samplers,
        timeout=PATIENCE,
    )
    return Ranks(task.rank, task.num_samplers)
