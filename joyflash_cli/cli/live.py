"""``joyflash live``: a process that keeps its model, speaks what it is told, and can be stopped."""

import contextlib
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from joyflash_cli.cli import options as shared
from joyflash_cli.cli.command_lines import ModelOptions
from joyflash_cli.cli.endpoints import (
    STANDARD_INPUT,
    STANDARD_INPUT_DESCRIPTOR,
    check_target,
    claimed_stream,
    is_standard_output,
    is_stream,
    open_sound,
)
from joyflash_cli.cli.events import EventStream
from joyflash_cli.cli.help_text import EXPERT, FILES, MODEL
from joyflash_cli.cli.live_messages import Messages, control_socket
from joyflash_cli.cli.live_raw import RawOutput
from joyflash_cli.cli.options import option, takes
from joyflash_cli.cli.process import StopSignals
from joyflash_cli.cli.progress import Display, open_display
from joyflash_cli.cli.render import result_line
from joyflash_cli.errors import JoyFlashError, UsageError
from joyflash_cli.media.inputs.hearing import SoundChoices
from joyflash_cli.streaming import in_background

if TYPE_CHECKING:
    from joyflash_cli.media.outputs.names import OutputNames
    from joyflash_cli.render import JoyFlash, RunRecord
    from joyflash_cli.render.session import Session
    from joyflash_cli.weights.store import CheckpointFiles


@dataclass(frozen=True, kw_only=True)
class LiveOptions(ModelOptions):
    """The command line of ``joyflash live``."""

    picture: shared.PictureArgument = None
    image: shared.Image = None
    output: Annotated[
        str | None,
        option("-o --output", "Video: as for render; - for MP4 on stdout.", "FILE", group=FILES),
    ] = None
    frames_fd: Annotated[
        int | None,
        option("--frames-fd", "Raw RGB frames go to file descriptor N.", "N", group=FILES, min=0),
    ] = None
    sound_fd: Annotated[
        int | None,
        option(
            "--sound-fd", "The sound goes to file descriptor N, as s16le.", "N", group=FILES, min=0
        ),
    ] = None
    rate: Annotated[
        int,
        option(
            "--rate", "Of the video's sound, samples a second.", "HZ",
            group=FILES, min=8000, max=192_000,
        ),
    ] = 48_000  # fmt: skip
    audio: Annotated[
        str | None,
        option(
            "--audio", "Plain sound instead of messages: a file, a pipe, or - for stdin.", "FILE",
            group=FILES,
        ),
    ] = None  # fmt: skip
    audio_format: Annotated[
        str | None,
        option(
            "--audio-format", "Of --audio without a header: s16le:16000, f32le:44100:2, ...",
            "FORMAT", group=FILES,
        ),
    ] = None  # fmt: skip
    control: Annotated[
        Path | None,
        option("--control", "Take messages from this Unix socket.", "SOCKET", group=FILES),
    ] = None
    overwrite: shared.Overwrite = False
    late: Annotated[
        str,
        option(
            "--late", "Where the model is too slow: fall-behind, or skip pictures.", "WHAT",
            group=MODEL,
        ),
    ] = "fall-behind"  # fmt: skip
    look_ahead: Annotated[
        int,
        option(
            "--look-ahead", "Blocks of sound heard beyond the one shown; fewer: sooner spoken, "
            "less exact lips.", "N", group=MODEL, min=0,
        ),
    ] = 1  # fmt: skip
    profile: shared.Profile = "tiny"
    checkpoint: shared.Checkpoint = None
    seed: Annotated[int, option("--seed", "Of everything random.", "N", group=MODEL, min=0)] = 0
    face: shared.FaceIndex = None
    allow_no_face: shared.AllowNoFace = False
    frame: shared.Frame = None
    size: shared.Size = None
    max_size: shared.MaxSize = None
    label: shared.LabelText = ""
    sign: shared.Sign = None
    key: shared.Key = None
    sign_thumbnail: shared.SignThumbnail = False
    sign_timestamp: shared.SignTimestamp = ""
    prompt: shared.Prompt = ""
    device: shared.Device = "auto"
    dtype: shared.Dtype = "auto"
    threads: shared.StageThreads = None
    attention: shared.Attention = "auto"
    compile_layers: shared.Compile = False
    offload: shared.Offload = "none"
    fast_decode: shared.FastDecode = False
    no_fast_decode: shared.NoFastDecode = False
    vae_device: shared.VaeDevice = None
    quantize: shared.Quantize = "none"
    sampling: Annotated[
        list[str] | None,
        option("--sampling", "As for render.", "NAME", group=EXPERT),
    ] = None
    progress: shared.Progress = "auto"
    progress_fd: shared.ProgressFd = None
    quiet: shared.Quiet = False
    debug: shared.Debug = False


@takes(LiveOptions)
def live(options: LiveOptions) -> None:
    """Keep a face on screen that speaks what it is sent and rests in between.

    The video runs on the clock from the first moment. Messages come as one JSON object a line, on
    stdin or on a Unix socket (--control); events leave the same way (--progress json, or
    --progress-fd N): ready, segment_first_frame, segment_last_frame, cleared, mark, idle, late,
    picture, error and ended. The end of stdin, or quit, ends the video once everything was spoken.

    \b
    Messages:
      {"type": "audio", "pcm": "<base64 of s16le>", "rate": 16000}   also: "path": "talk.wav"
      {"type": "end_segment", "id": "answer-1"}   {"type": "mark", "name": "here"}
      {"type": "clear"}   {"type": "picture", "path": "other.png"}   {"type": "quit"}

    \b
    Examples:
      agent | joyflash live --image face.png -o - --progress-fd 3 3>events.jsonl | ffplay -
      joyflash live face.png -o live.m3u8 --control face.sock
      arecord -f S16_LE -r 16000 -t raw | joyflash live face.png --audio - \\
        --audio-format s16le:16000 -o - | ffplay -
    """  # noqa: D301 - \b tells the help not to fold the examples
    options.until_stopped(partial(_run, options))


def _run(options: LiveOptions, signals: StopSignals, events: EventStream) -> int:
    from joyflash_cli.render.writer import check_signing

    image, output, names = _chosen(options)
    check_signing(options.signing, names)
    sound = None
    if options.audio is not None:
        sound = open_sound(
            options.audio, options.audio_format, SoundChoices(), quiet=options.is_silent
        )
    raw = RawOutput(options.frames_fd, options.sound_fd)
    files = options.find_checkpoint()
    joyflash = _load(options, files)
    display = open_display("live", quiet=options.quiet, kind=options.progress)
    with display, contextlib.ExitStack() as stack:
        told = _Told(display, events)
        session = joyflash.session(
            image,
            rate_hz=options.rate,
            look_ahead_blocks=options.look_ahead,
            late=options.late,  # type: ignore[arg-type]
            on_event=told,
            **options.about_the_picture,
        )
        options.warn(session.request.warnings)
        told.session = session
        messages = Messages(session, told.error)
        if options.control is not None:
            stack.enter_context(control_socket(options.control, messages.read))
        if sound is not None:
            session.play(sound)
            session.end_segment(options.audio)
            if options.control is None:
                session.end(hears_out=True)
        elif options.control is None:
            in_background(lambda: _read_stdin(session, messages), "messages")
        signals.be_graceful()
        target: OutputNames | BinaryIO | None = names
        if output is not None and names is None:
            target = stack.enter_context(claimed_stream(output, quiet=options.is_silent))
        record = _film(options, joyflash, session, target, raw, signals)
    if record is not None:
        if output is not None and not is_standard_output(output) and is_stream(output):
            record = replace(record, output=output)
        options.say(result_line(record))
        if output is not None and not is_standard_output(output):
            typer.echo(str(record.output))
    return signals.exit_code if signals.requested() else 0


def _chosen(options: LiveOptions) -> "tuple[Path, Path | None, OutputNames | None]":
    """Picture, output and, where that is a file, its checked names."""
    if options.picture is not None and options.image is not None:
        raise UsageError("two pictures are given", hint="a live video begins with one")
    image = options.image or (None if options.picture is None else Path(options.picture))
    if image is None:
        raise UsageError("a picture is needed", hint="give --image FILE")
    if options.audio_format is not None and options.audio is None:
        raise UsageError("--audio-format is for --audio", hint="messages say their rate")
    if options.output is None:
        if options.frames_fd is None and options.sound_fd is None:
            raise UsageError(
                "the video goes nowhere",
                hint="give -o FILE, -o - for standard output, or --frames-fd N",
            )
        return image, None, None
    output = Path(options.output)
    inputs: list[Path | int] = [image, STANDARD_INPUT_DESCRIPTOR]
    if options.audio not in (None, STANDARD_INPUT):
        inputs.append(Path(str(options.audio)))
    names = check_target(output, overwrite=options.overwrite, as_json=False, inputs=inputs, also=())
    return image, output, names


def _load(options: LiveOptions, files: "CheckpointFiles") -> "JoyFlash":
    from joyflash_cli.render import JoyFlash
    from joyflash_cli.render.device import use_threads
    from joyflash_cli.render.placement import place

    use_threads(options.threads)
    placement = place(files, options.device, options.dtype, options.execution)
    options.warn(placement.warnings)
    return JoyFlash.load(files, placement=placement)


def _read_stdin(session: "Session", messages: Messages) -> None:
    if sys.stdin is not None:
        messages.read(sys.stdin.buffer)
    session.end(hears_out=True)


def _film(
    options: LiveOptions,
    joyflash: "JoyFlash",
    session: "Session",
    target: "OutputNames | BinaryIO | None",
    raw: RawOutput,
    signals: StopSignals,
) -> "RunRecord | None":
    """Writes frames as they leave, to the end; the record of what was written."""
    from joyflash_cli.render.record import begin_record
    from joyflash_cli.render.writer import VideoWriter
    from joyflash_cli.types import FrameChunk

    begun = begin_record(
        session.request, joyflash.files, joyflash.placement, load_s=joyflash.load_s
    )
    started = time.perf_counter()
    writer = None
    if target is not None:
        writer = VideoWriter(
            target, session.request, joyflash.files, begun, overwrite=options.overwrite
        )
    with raw, writer or contextlib.nullcontext():
        try:
            for frame in session.frames(signals.requested):
                raw.write(frame)
                if writer is not None:
                    elapsed_s = time.perf_counter() - started
                    pixels, at = frame.pixels[None], frame.index
                    chunk = FrameChunk(at, None, pixels, at, elapsed_s, sound=frame.sound)
                    writer.write(chunk)
        except BaseException as error:
            if writer is not None:
                writer.save_what_is_ready(error)
            raise
        if writer is None or not writer.num_frames:
            return None
        return writer.close(complete=True)


class _Told:
    """Passes on what happens, to people and to programs; messages fail in other threads."""

    def __init__(self, display: Display, events: EventStream) -> None:
        self._display, self._events = display, events
        self._lock = threading.Lock()
        self.session: Session | None = None

    def __call__(self, name: str, values: Mapping[str, Any]) -> None:
        """An event of the session."""
        if name == "error":
            self.error(values["error"])
            return
        with self._lock:
            self._events.emit(name, **values)
            self._display.show(f"{name.replace('_', ' ')} at {values['video_s']:.2f} s")
            if name == "late" and values["frames"]:
                self._display.say(f"live: {values['frames']} frames behind the clock")

    def error(self, error: Exception) -> None:
        """Something that was asked for cannot be done; the video goes on."""
        code = error.code if isinstance(error, JoyFlashError) else "E-MESSAGE"
        text = " ".join(str(error).split())
        video_s = 0.0 if self.session is None else round(self.session.video_s, 6)
        wall_time = round(time.time(), 6)
        with self._lock:
            self._events.emit("error", code=code, text=text, video_s=video_s, wall_time=wall_time)
            self._display.say(f"live: error[{code}]: {text}")
