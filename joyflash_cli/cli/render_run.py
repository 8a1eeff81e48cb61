"""The run behind ``joyflash render``, cheap mistakes first."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import typer

from joyflash_cli.cli.events import EventStream, open_events
from joyflash_cli.cli.inputs import (
    STANDARD_INPUT,
    STANDARD_INPUT_DESCRIPTOR,
    open_picture,
    open_sound,
    said_while_opening,
)
from joyflash_cli.cli.progress import (
    Progress,
    ProgressKind,
    check_progress_kind,
    open_progress,
)
from joyflash_cli.cli.render_text import (
    plan_line,
    plan_summary,
    print_json,
    result_line,
    result_summary,
    say,
)
from joyflash_cli.cli.signals import StopSignals
from joyflash_cli.cli.target import (
    check_target,
    choose_output,
    is_standard_output,
    is_stream,
)
from joyflash_cli.errors import OutputError
from joyflash_cli.media.inputs.hearing import SoundChoices

if TYPE_CHECKING:
    from joyflash_cli.media.outputs.names import Source
    from joyflash_cli.render import RenderRequest, RenderResult
    from joyflash_cli.render.placement import Placement
    from joyflash_cli.render.preflight import MemoryNeed
    from joyflash_cli.weights.store import CheckpointFiles


@dataclass(frozen=True)
class RenderOptions:
    """The command line of ``joyflash render``, as given."""

    image: Path
    audio: str
    output: str | None
    audio_format: str | None
    profile: str
    checkpoint: Path | None
    seed: int
    face: int | None
    look_ahead: int | None
    device: str
    dtype: str
    threads: int | None
    prompt: str
    overwrite: bool
    dry_run: bool
    preview: bool
    progress: str
    as_json: bool
    quiet: bool
    progress_fd: int | None = None
    output_fps: float | None = None
    allow_no_face: bool = False
    frame: str | None = None
    size: int | None = None
    max_size: int | None = None
    execution: dict[str, Any] = field(default_factory=dict)
    sampling: tuple[str, ...] = ()
    choices: SoundChoices = SoundChoices()

    @property
    def is_silent(self) -> bool:
        """Whether nothing is said to people: quiet, or a program reads along."""
        return self.quiet or self.progress == "json"

    @property
    def inputs(self) -> "tuple[Source, Source]":
        """Picture and sound; standard input may be a file, too."""
        heard = self.audio != STANDARD_INPUT
        return self.image, Path(self.audio) if heard else STANDARD_INPUT_DESCRIPTOR


def run_render(options: RenderOptions, signals: StopSignals) -> int:
    """Renders; the exit code."""
    from joyflash_cli.render.joyflash import StopRequested

    check_progress_kind(options.progress)
    with open_events(options.progress, options.progress_fd) as events:
        try:
            exit_code = _run(options, signals, events)
        except (KeyboardInterrupt, StopRequested):
            say(options.is_silent, "joyflash: stopped")
            exit_code = signals.exit_code
        if events is not None:
            events.emit("done", exit_code=exit_code)
    return exit_code


def _run(options: RenderOptions, signals: StopSignals, events: EventStream | None) -> int:
    """Output, picture, sound, and only then weights."""
    from joyflash_cli.render import FrameOptions, read_request
    from joyflash_cli.weights.store import resolve_checkpoint

    output = choose_output(options.output, options.image, options.audio)
    check_target(
        output,
        overwrite=options.overwrite,
        as_json=options.as_json,
        inputs=options.inputs,
        also=_preview_files(options, output),
    )
    sound = open_sound(
        options.audio, options.audio_format, options.choices, quiet=options.is_silent
    )
    files = resolve_checkpoint(options.profile, options.checkpoint)
    if options.sampling:
        files = _with_sampling(options, files)
    with open_picture(options.image, quiet=options.is_silent) as picture:
        request = read_request(
            files,
            picture,
            sound,
            seed=options.seed,
            prompt=options.prompt,
            face_index=options.face,
            needs_face=not options.allow_no_face,
            look_ahead_blocks=options.look_ahead,
            choices=options.choices,
            frame=FrameOptions(options.frame, options.size, options.max_size),
        ).at_output_fps(options.output_fps)
    say(options.is_silent, *(f"joyflash: warning: {warning}" for warning in request.warnings))
    if options.dry_run:
        _report_plan(options, output, files, request)
        return 0
    with _claimed_output(output, quiet=options.is_silent) as target:
        result = _render(options, signals, files, request, target=target, events=events)
    if not is_standard_output(output) and is_stream(output):
        result = replace(result, output=output)  # a stream does not know its name
    say(options.is_silent, *(f"joyflash: warning: {warning}" for warning in result.warnings))
    say(options.is_silent, result_line(result))
    if options.as_json:
        print_json(result_summary(result))
    elif not is_standard_output(output):
        typer.echo(str(result.output))
    return 0 if result.complete else signals.exit_code


def _preview_files(options: RenderOptions, output: Path) -> list[Path]:
    """The picture file of a preview, where the terminal cannot show one."""
    from joyflash_cli.cli.preview import shown_in
    from joyflash_cli.files import part_path
    from joyflash_cli.media.outputs.names import preview_path

    if not options.preview or shown_in(sys.stderr, quiet=options.is_silent) is not None:
        return []
    path = preview_path(Path(STANDARD_INPUT) if is_stream(output) else output)
    return [path, part_path(path)]


def _with_sampling(options: RenderOptions, files: "CheckpointFiles") -> "CheckpointFiles":
    """The checkpoint sampled as asked, with a warning for each way it was not trained for."""
    from joyflash_cli.render.sampling import with_sampler_options

    files, notes = with_sampler_options(files, options.sampling)
    say(options.is_silent, *(f"joyflash: warning: {note}" for note in notes))
    return files


def _preflight(
    options: RenderOptions, files: "CheckpointFiles", request: "RenderRequest"
) -> "tuple[Placement, list[MemoryNeed]]":
    """Where and how it is to be run, and what that needs; refused when it cannot be."""
    from joyflash_cli.cli.execution import preflight
    from joyflash_cli.render.placement import ExecutionOptions, choose_placement
    from joyflash_cli.weights.verify import unverified

    execution = ExecutionOptions(**options.execution)
    placement = choose_placement(options.device, options.dtype, execution)
    needs = preflight(files, request.size_px, placement, prompt=options.prompt)
    say(options.is_silent, *(f"joyflash: warning: {text}" for text in placement.warnings))
    if not_verified := unverified(files):
        say(options.is_silent, f"weights: {not_verified}")
    return placement, needs


def _render(
    options: RenderOptions,
    signals: StopSignals,
    files: "CheckpointFiles",
    request: "RenderRequest",
    *,
    target: "Path | BinaryIO",
    events: EventStream | None,
) -> "RenderResult":
    from joyflash_cli.cli.execution import is_worth_telling, memory_line
    from joyflash_cli.render import JoyFlash

    _use_threads(options.threads)
    placement, needs = _preflight(options, files, request)
    if is_worth_telling(needs):
        say(options.is_silent, memory_line(placement, needs))
    announcement: list[str] = []
    with _open_progress(options, files, request, target=target, events=events) as progress:
        for warning in request.warnings:
            progress.event("warn", text=warning)
        progress.loading(files.name)
        joyflash = JoyFlash.load(
            files, device=options.device, dtype=options.dtype, execution=placement.options
        )
        if request.audio_s is None:
            latency = joyflash.latency(options.look_ahead)
            progress.event("latency", **vars(latency))
            announcement.append(latency.describe())
        signals.be_graceful()

        def announced(show: Callable[[Any], None], value: object) -> None:
            # Only once sound is awaited: what is no sound at all is told by its error alone.
            if announcement:
                say(options.is_silent, announcement.pop())
            show(value)

        result = joyflash.render(
            request,
            target,
            overwrite=options.overwrite,
            on_chunk=partial(announced, progress.update),
            on_wait=partial(announced, progress.waiting),
            should_stop=signals.requested,
        )
        progress.event("saved" if result.complete else "stopped", **result_summary(result))
    return result


def _open_progress(
    options: RenderOptions,
    files: "CheckpointFiles",
    request: "RenderRequest",
    *,
    target: "Path | BinaryIO",
    events: EventStream | None,
) -> Progress:
    fps = files.description.sampler.fps
    num_frames = request.num_frames(fps)
    if options.preview:
        from joyflash_cli.cli.preview import open_preview

        output = target if isinstance(target, Path) else Path(STANDARD_INPUT)
        return open_preview(num_frames, fps, output=output, quiet=options.is_silent, events=events)
    kind = cast("ProgressKind", options.progress)
    return open_progress(num_frames, fps, quiet=options.quiet, kind=kind, events=events)


@contextlib.contextmanager
def _claimed_output(output: Path, *, quiet: bool) -> "Iterator[Path | BinaryIO]":
    """The path, or standard output for the video alone.

    Whatever a library may print meanwhile goes to standard error: one stray byte would break the
    video.
    """
    if not is_stream(output):
        yield output
        return
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


def _use_threads(threads: int | None) -> None:
    import torch

    from joyflash_cli.render.device import stage_threads

    torch.set_num_threads(stage_threads() if threads is None else threads)


def _report_plan(
    options: RenderOptions, output: Path, files: "CheckpointFiles", request: "RenderRequest"
) -> None:
    from joyflash_cli.cli.execution import memory_line, memory_summary
    from joyflash_cli.render import plan_render

    plan = None
    if request.audio_s is not None:
        plan = plan_render(request, files.description.sampler)
    memory = _preflight(options, files, request)
    if options.as_json:
        print_json(plan_summary(output, files, request, plan) | memory_summary(*memory))
    else:
        say(options.is_silent, plan_line(output, files, request, plan), memory_line(*memory))
