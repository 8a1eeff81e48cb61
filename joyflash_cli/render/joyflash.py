"""A loaded checkpoint that renders: the stages wired into one stream."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from joyflash_cli.errors import UsageError
from joyflash_cli.render.device import keep_freed_memory
from joyflash_cli.render.job import StreamJob, device_errors
from joyflash_cli.render.load import LoadedParts, load_front_end, load_parts
from joyflash_cli.render.placement import DEFAULT_EXECUTION, ExecutionOptions, Placement, place
from joyflash_cli.render.record import RunRecord, begin_record
from joyflash_cli.render.request import RenderPlan, RenderRequest, plan_render, read_request
from joyflash_cli.render.sound_feed import SoundFeed
from joyflash_cli.render.stages import SampledBlock, decode_stage, sample_stage
from joyflash_cli.render.writer import VideoWriter
from joyflash_cli.streaming import Cancellation, RunAhead, StopRequested
from joyflash_cli.types import FrameChunk
from joyflash_cli.weights.store import CheckpointFiles, resolve_checkpoint, verify_at_load

if TYPE_CHECKING:
    from joyflash_cli.media.outputs.names import OutputNames
    from joyflash_cli.render.latency import Latency
    from joyflash_cli.render.live_sound import Clock
    from joyflash_cli.render.rank_pipeline import RankPipeline
    from joyflash_cli.render.session import Late, Session
    from joyflash_cli.sampler.segment_settings import AnySettings

SOUND_RATE_HZ = 48_000
"""Of a live video's sound, unless another is asked for."""

LOOK_AHEAD_BLOCKS = 1
"""Blocks of sound heard beyond the one shown: what is lost on lips is little, the time is much."""


class JoyFlash:
    """A loaded checkpoint: renders any number of requests, one after the other.

    Build it with ``JoyFlash.load``. It holds weights and settings only; everything that belongs to
    a stream is made when the stream starts.
    """

    def __init__(
        self,
        files: CheckpointFiles,
        parts: "LoadedParts | RankPipeline",
        *,
        placement: Placement,
        load_s: float = 0.0,
    ) -> None:
        self.files = files
        self.placement = placement
        self.load_s = load_s
        self._parts = parts

    @classmethod
    def load(
        cls,
        profile: str | CheckpointFiles = "tiny",
        checkpoint: Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        execution: ExecutionOptions = DEFAULT_EXECUTION,
        placement: Placement | None = None,
    ) -> "JoyFlash":
        """The checkpoint with its weights in memory.

        Args:
            profile: A name of ``weights.toml``, or files that were already resolved.
            checkpoint: A directory to use instead of the profile's own.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            dtype: Of the transformer: ``auto``, ``fp32``, ``bf16``, ``fp16`` or their long names.
            execution: How to run a model that is large for its device.
            placement: From ``place``, for those who chose already; the three before are not
                looked at then.

        Raises:
            CheckpointError: When the files are missing, damaged, of another layout, or not those
                that their checksums were made of.
            DeviceError: When the device is absent or cannot compute as asked.
            UsageError: When options exclude each other or the checkpoint.
        """
        started = time.perf_counter()
        if isinstance(profile, CheckpointFiles):
            files = profile
        else:
            files = resolve_checkpoint(profile, checkpoint)
        if placement is None:
            placement = place(files, device, dtype, execution)
        verify_at_load(files)
        if placement.device.type == "cpu":
            keep_freed_memory()
        with device_errors():
            if placement.options.gpus > 1:
                from joyflash_cli.render.rank_pipeline import RankPipeline

                ranks = RankPipeline(files, placement)
                ranks.start()
                parts: LoadedParts | RankPipeline = ranks
            else:
                parts = load_parts(files, placement)
        return cls(files, parts, placement=placement, load_s=time.perf_counter() - started)

    def close(self) -> None:
        """End the processes of several GPUs; the end of the program does, too."""
        if not isinstance(self._parts, LoadedParts):
            self._parts.stop()

    @property
    def sampler(self) -> "AnySettings":
        """The checkpoint's sampler settings."""
        return self.files.description.sampler

    def plan(self, request: RenderRequest) -> RenderPlan:
        """Frames and blocks that the request takes."""
        return plan_render(request, self.sampler)

    def latency(self, look_ahead_blocks: int | None = None) -> "Latency":
        """What a live picture must wait for, from the checkpoint's settings."""
        import torch

        from joyflash_cli.render.latency import compute_latency

        if isinstance(self._parts, LoadedParts):
            front_end = self._parts.front_end
        else:
            front_end = load_front_end(self.files, torch.device("cpu"))
        return compute_latency(
            self.sampler,
            self.files.description.conditioning.audio_windows,
            front_end,
            look_ahead_blocks=look_ahead_blocks,
        )

    def job(self, request: RenderRequest) -> StreamJob:
        """What the stages of a stream share; the picture is encoded for it."""
        assert isinstance(self._parts, LoadedParts), "they are in the processes of several GPUs"
        return StreamJob.prepare(self.files, self._parts, request, self.placement)

    def stream(
        self, request: RenderRequest, *, on_wait: Callable[[float], None] | None = None
    ) -> Generator[FrameChunk, None, None]:
        """Frames of the request, one chunk per block, as soon as each is clean.

        Sampling and decoding run in threads of their own, a few blocks ahead of the caller; live
        sound is read no faster than they need it. The frames cover the sound exactly.

        Args:
            request: What to render.
            on_wait: Called a few times a second while no chunk is ready, with the seconds waited;
                what it raises ends the stream.

        Raises:
            AudioError: When live sound cannot be used.
            DeviceError: When a block comes out with numbers that are not finite, or memory is out.
        """
        if not isinstance(self._parts, LoadedParts):
            yield from self._parts.stream(request, on_wait=on_wait)
            return
        started = time.perf_counter()
        cancellation = Cancellation()
        job = self.job(request)

        def sample() -> Iterator[SampledBlock]:
            sound = request.sound.open(cancellation.check)
            feed = SoundFeed(sound, self.sampler.fps, device=self.placement.device)
            yield from sample_stage(job, feed)

        def decode() -> Iterator[FrameChunk]:
            with RunAhead(sample(), name="sampling", cancellation=cancellation) as blocks:
                yield from decode_stage(job, blocks, started)

        with RunAhead(
            decode(), name="decoding", cancellation=cancellation, on_wait=on_wait
        ) as chunks:
            yield from chunks

    def session(
        self,
        image: "Path | BinaryIO",
        *,
        rate_hz: int = SOUND_RATE_HZ,
        look_ahead_blocks: int | None = LOOK_AHEAD_BLOCKS,
        late: "Late" = "fall-behind",
        max_waiting_s: float = 300.0,
        on_event: Callable[[str, Mapping[str, Any]], None] | None = None,
        clock: "Clock | None" = None,
        **choices: Any,
    ) -> "Session":
        """A live video that runs on the clock and speaks whatever is pushed; see ``Session``.

        Args:
            image: The picture.
            rate_hz: Of the video's sound, which is mono.
            look_ahead_blocks: As for ``read_request``.
            late: What becomes of pictures that are not ready in time.
            max_waiting_s: Seconds of pushed sound that may wait; ``push`` waits beyond.
            on_event: Told what happens: a name and values.
            clock: The time, where it is not the wall's.
            choices: ``seed``, ``prompt``, ``face_index``, ``needs_face``, ``frame``,
                ``label``, ``signing``: as for ``read_request``.

        Raises:
            ImageError: When the picture cannot be used.
            UsageError: For choices that are impossible.
        """
        from joyflash_cli.media.scene import fit_scene
        from joyflash_cli.render.live_sound import TrackReader
        from joyflash_cli.render.live_track import LiveTrack
        from joyflash_cli.render.session import Session

        if not isinstance(self._parts, LoadedParts):
            # What they hear is on its way to them early, and could not be taken back.
            raise UsageError("a live session takes one GPU", code="E-GPUS")
        choices["look_ahead_blocks"] = look_ahead_blocks
        track = LiveTrack(self.sampler.fps, rate_hz, max_waiting_s=max_waiting_s, clock=clock)
        endless = TrackReader(track.hear, track.format, 0, skips=False)
        request = read_request(self.files, image, endless, **choices)

        def another(image: "Path | BinaryIO") -> RenderRequest:
            found = read_request(self.files, image, endless, **choices)
            if found.scene is None or found.size_px == request.size_px:
                return found
            return replace(found, scene=fit_scene(found.scene, request.size_px))

        return Session(
            request,
            read_picture=another,
            open_chunks=lambda request: self._run_ahead(request, track.clock),
            track=track,
            fps=self.sampler.fps,
            latency=self.latency(look_ahead_blocks),
            late=late,
            on_event=on_event,
        )

    def _run_ahead(
        self, request: RenderRequest, clock: "Clock"
    ) -> RunAhead[tuple[float, FrameChunk]]:
        """A stream that runs in a thread of its own, each chunk with the time it was ready."""
        cancellation = Cancellation()

        def stamped() -> Iterator[tuple[float, FrameChunk]]:
            stream = self.stream(request, on_wait=lambda _: cancellation.check())
            with contextlib.closing(stream) as chunks:
                for chunk in chunks:
                    yield clock.now(), chunk

        chunks = RunAhead(stamped(), name="live", cancellation=cancellation, capacity=1)
        return chunks.__enter__()

    def render(
        self,
        request: RenderRequest,
        output: "Path | OutputNames | BinaryIO",
        *,
        overwrite: bool = False,
        on_chunk: Callable[[FrameChunk], None] = lambda _chunk: None,
        on_wait: Callable[[float], None] = lambda _waited_s: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> RunRecord:
        """The request as a video with its sound, and the record of how it was made.

        A file appears under its name only when it is complete; see ``open_muxer`` for what can be
        written.

        Args:
            request: From ``read_request``.
            output: Target, whose directory must exist; its names, where they were checked; or a
                binary stream for fragmented MP4.
            overwrite: Whether an existing file is replaced.
            on_chunk: Called after each chunk was written.
            on_wait: Called while nothing can be written, with the seconds waited so far.
            should_stop: Asked at the start, after each chunk and while waiting; true ends the
                video there, in a partial file.

        Raises:
            OutputError: When the target cannot be written, or a file that would be written exists
                or is an input.
            AudioError: When live sound cannot be used.
            DeviceError: When the device fails. What was ready is kept in a partial file.
            BrokenPipeError: When the reader of the stream has gone.
            StopRequested: When ``should_stop`` said so before anything could be written.
        """
        begun = begin_record(request, self.files, self.placement, load_s=self.load_s)

        def wait(waited_s: float) -> None:
            if should_stop():
                raise StopRequested
            on_wait(waited_s)

        with VideoWriter(output, request, self.files, begun, overwrite=overwrite) as writer:
            try:
                if should_stop():  # nothing may be begun
                    raise StopRequested
                with contextlib.closing(self.stream(request, on_wait=wait)) as chunks:
                    for chunk in chunks:
                        writer.write(chunk)
                        on_chunk(chunk)
                        if should_stop():
                            raise StopRequested
            except StopRequested:
                if writer.num_frames == 0:
                    raise
                return writer.close(complete=writer.covers_the_sound)
            except BaseException as error:
                writer.save_what_is_ready(error)
                raise
            return writer.close(complete=True)
