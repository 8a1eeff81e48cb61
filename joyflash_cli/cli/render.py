"""``joyflash render``: one picture and one voice to one video, from files or through pipes."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import typer

from joyflash_cli import __version__
from joyflash_cli.cli.command_lines import RenderOptions
from joyflash_cli.cli.endpoints import (
    STANDARD_INPUT,
    STANDARD_INPUT_DESCRIPTOR,
    check_target,
    choose_inputs,
    choose_output,
    claimed_stream,
    is_standard_output,
    is_stream,
    open_picture,
    open_sound,
)
from joyflash_cli.cli.events import EventStream
from joyflash_cli.cli.options import print_json, takes
from joyflash_cli.cli.process import StopSignals
from joyflash_cli.cli.progress import RenderProgress, open_display

if TYPE_CHECKING:
    from joyflash_cli.media.outputs.names import OutputNames
    from joyflash_cli.render import RenderPlan, RenderRequest, RunRecord
    from joyflash_cli.render.memory import MemoryNeed
    from joyflash_cli.render.placement import Placement
    from joyflash_cli.weights.store import CheckpointFiles

WORTH_TELLING_BYTES = 1_000_000_000
"""A run that takes less memory is not worth a line."""

_TOLD = (
    "video_frames", "fps", "width", "height", "audio_s", "truncated",
    "wall_s", "realtime_factor", "first_frame_s", "load_s",
)  # fmt: skip
"""Figures of a render in ``--json``."""


@takes(RenderOptions)
def render(options: RenderOptions) -> None:
    """Make a talking-head video from one picture and one voice.

    The path of the video is printed on stdout, everything else on stderr; FILE.json beside the
    video says how it was made. The ending of --output decides the format: .mp4, .webm, .mkv, .mov,
    .m3u8 (HLS, playable while it grows) or pictures such as face-%05d.png. Sound on stdin is heard
    while it arrives, and pictures leave as soon as they are ready. Ctrl-C once keeps what is ready
    in a playable .partial.mp4; twice ends at once.

    \b
    Examples:
      joyflash render face.png talk.wav
      joyflash render --image face.png --audio talk.wav --output hello.mp4 --output-fps 30
      some-tts "Hello" | joyflash render --image face.png --audio - --output hello.mp4
      some-tts "Hello" | joyflash render --image face.png --audio - --output - | ffplay -
      arecord -f S16_LE -r 16000 -t raw | joyflash render --image face.png --audio - \\
        --audio-format s16le:16000 --look-ahead 1 --output live.m3u8
    """  # noqa: D301 - \b tells the help not to fold the examples
    image, audio = choose_inputs((options.picture, options.voice), options.image, options.audio)
    options.until_stopped(partial(_run, options, image, audio))


def _run(
    options: RenderOptions, image: Path, audio: str, signals: StopSignals, events: EventStream
) -> int:
    """Output, picture, sound, a path or ``-``, and only then weights; the exit code."""
    from joyflash_cli.render.request import read_request
    from joyflash_cli.render.writer import check_signing

    output = choose_output(options.output, image, audio)
    names = check_target(
        output,
        overwrite=options.overwrite,
        as_json=options.as_json,
        inputs=(image, Path(audio) if audio != STANDARD_INPUT else STANDARD_INPUT_DESCRIPTOR),
        also=_preview_files(options, output),
    )
    check_signing(options.signing, names)
    choices = options.sound_choices
    sound = open_sound(audio, options.audio_format, choices, quiet=options.is_silent)
    files = options.find_checkpoint()
    with open_picture(image, quiet=options.is_silent) as picture:
        request = read_request(
            files,
            picture,
            sound,
            look_ahead_blocks=options.look_ahead,
            choices=choices,
            **options.about_the_picture,
        ).at_output_fps(options.output_fps)
    options.warn(request.warnings)
    if options.dry_run:
        _report_plan(options, output, files, request)
        return 0
    with contextlib.ExitStack() as opened:
        target = names or opened.enter_context(claimed_stream(output, quiet=options.is_silent))
        result = _render(options, signals, files, request, target=target, events=events)
    if not is_standard_output(output) and is_stream(output):
        result = replace(result, output=output)  # a stream does not know its name
    options.warn(result.late_warnings)
    options.say(result_line(result))
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


def _preflight(
    options: RenderOptions, files: "CheckpointFiles", request: "RenderRequest"
) -> "tuple[Placement, list[MemoryNeed]]":
    """Where and how it is to be run, and what that needs.

    Raises:
        CheckpointError: When a part is missing.
        DeviceError: When the memory is not free, or a kernel does not run.
        UsageError: When an option does not fit the checkpoint.
    """
    from joyflash_cli.render.device import use_threads
    from joyflash_cli.render.memory import PlannedRun, check_memory
    from joyflash_cli.render.placement import place
    from joyflash_cli.weights.store import unverified

    use_threads(options.threads)
    placement = place(files, options.device, options.dtype, options.execution)
    needs = check_memory(PlannedRun(files, request.size_px, options.prompt), placement)
    options.warn(placement.warnings)
    if not_verified := unverified(files):
        options.say(f"weights: {not_verified}")
    return placement, needs


def _render(
    options: RenderOptions,
    signals: StopSignals,
    files: "CheckpointFiles",
    request: "RenderRequest",
    *,
    target: "OutputNames | BinaryIO",
    events: EventStream,
) -> "RunRecord":
    from joyflash_cli.render import JoyFlash

    placement, needs = _preflight(options, files, request)
    if any(need.total >= WORTH_TELLING_BYTES for need in needs):
        options.say(memory_line(placement, needs))
    announcement: list[str] = []
    if options.preview:
        from joyflash_cli.cli.preview import open_preview
        from joyflash_cli.media.outputs.names import OutputNames

        shown = target.given if isinstance(target, OutputNames) else Path(STANDARD_INPUT)
        display = open_preview(shown, quiet=options.is_silent)
    else:
        display = open_display("render", quiet=options.quiet, kind=options.progress)
    fps = files.description.sampler.fps
    progress = RenderProgress(request.num_frames(fps), fps, display, events)
    with display:
        progress.loading(files.name, request.warnings)
        joyflash = JoyFlash.load(files, placement=placement)
        if request.audio_s is None:
            latency = joyflash.latency(options.look_ahead)
            events.emit("latency", **vars(latency))
            announcement.append(latency.describe())
        signals.be_graceful()

        def announced(show: Callable[[Any], None], value: object) -> None:
            # Only once sound is awaited: what is no sound at all is told by its error alone.
            if announcement:
                options.say(announcement.pop())
            show(value)

        result = joyflash.render(
            request,
            target,
            overwrite=options.overwrite,
            on_chunk=partial(announced, progress.update),
            on_wait=partial(announced, progress.waiting),
            should_stop=signals.requested,
        )
        events.emit("saved" if result.complete else "stopped", **result_summary(result))
    return result


def _report_plan(
    options: RenderOptions, output: Path, files: "CheckpointFiles", request: "RenderRequest"
) -> None:
    from joyflash_cli.render import plan_render

    plan = None
    if request.audio_s is not None:
        plan = plan_render(request, files.description.sampler)
    memory = _preflight(options, files, request)
    if options.as_json:
        print_json(plan_summary(output, files, request, plan) | memory_summary(*memory))
    else:
        options.say(plan_line(output, files, request, plan), memory_line(*memory))


def plan_summary(
    output: Path, files: "CheckpointFiles", request: "RenderRequest", plan: "RenderPlan | None"
) -> dict[str, Any]:
    """A dry run for a program that reads it; lengths are null for live sound."""
    width, height = request.size_px
    return {
        "dry_run": True,
        "output": str(output),
        "video_frames": None if plan is None else plan.num_frames,
        "blocks": None if plan is None else plan.num_blocks,
        "fps": request.output_fps or files.description.sampler.fps,
        "width": width,
        "height": height,
        "audio_s": None if plan is None else round(plan.audio_s, 6),
        "truncated": None if plan is None else bool(request.hearing and request.hearing.truncated),
        "seed": request.seed,
        "profile": files.name,
        "checkpoint": str(files.directory),
        "version": __version__,
    }


def plan_line(
    output: Path, files: "CheckpointFiles", request: "RenderRequest", plan: "RenderPlan | None"
) -> str:
    """A dry run in one line."""
    width, height = request.size_px
    length = "as long as the sound"
    times = ""
    if plan is not None:
        length = f"{plan.num_frames} frames in {plan.num_blocks} blocks"
        times = f"{plan.video_s:.2f} s video / {plan.audio_s:.2f} s audio, "
    fps = request.output_fps or files.description.sampler.fps
    return (
        f"would write {output}: {length}, {width} x {height} px at {fps:g} fps, {times}"
        f"profile {files.name} from {files.directory}"
    )


def result_line(result: "RunRecord") -> str:
    """What was saved, in one line."""
    if not result.complete:
        return f"saved {result.video_s:.1f} s of {result.audio_s:.1f} s in {result.output}"
    where = "standard output" if str(result.output) == "-" else str(result.output)
    return (
        f"saved {where}: {result.video_s:.2f} s video / {result.audio_s:.2f} s audio, "
        f"{result.realtime_factor:.2f}x realtime, seed {result.seed}"
        f"{f', signed by {result.signed_by}' if result.signed_by else ''}"
    )


def result_summary(result: "RunRecord") -> dict[str, Any]:
    """A render for a program that reads it."""
    figures = result.figures()
    return {
        "output": str(result.output),
        "complete": result.complete,
        **{name: figures[name] for name in _TOLD},
        "seed": result.seed,
        "profile": result.profile,
        "version": __version__,
        **({"signed_by": result.signed_by} if result.signed_by else {}),
        "sidecar": None if result.sidecar is None else str(result.sidecar),
    }


def memory_line(placement: "Placement", needs: "list[MemoryNeed]") -> str:
    """``device cuda:0 bfloat16, needs 9.1 of 23.4 GB free on cuda:0``."""
    return f"device {placement.describe()}; {', '.join(need.describe() for need in needs)}"


def memory_summary(placement: "Placement", needs: "list[MemoryNeed]") -> dict[str, Any]:
    """The same for a program that reads it."""
    return {
        "device": str(placement.device),
        "dtype": placement.dtype_name,
        "memory": [
            {
                "device": need.device,
                "needed_bytes": need.total,
                "free_bytes": None if need.free is None else need.free.free,
                "parts_bytes": need.parts,
            }
            for need in needs
        ],
    }
