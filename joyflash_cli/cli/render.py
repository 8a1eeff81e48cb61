"""``joyflash render``: one picture and one voice to one video."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from joyflash_cli import __version__
from joyflash_cli.cli.progress import open_progress
from joyflash_cli.cli.signals import StopSignals
from joyflash_cli.cli.target import check_output, choose_output
from joyflash_cli.errors import UsageError

if TYPE_CHECKING:
    from joyflash_cli.checkpoints.store import CheckpointFiles
    from joyflash_cli.pipeline import RenderPlan, RenderRequest, RenderResult

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class RenderOptions:
    """The command line of ``joyflash render``, as given."""

    image: Path
    audio: str
    output: Path | None
    profile: str
    checkpoint: Path | None
    seed: int
    face: int | None
    device: str
    dtype: str
    threads: int | None
    prompt: str
    overwrite: bool
    dry_run: bool
    as_json: bool
    quiet: bool


def render(
    image: Annotated[
        Path, typer.Option("--image", metavar="FILE", help="Picture: PNG, JPEG or WebP.")
    ],
    audio: Annotated[
        str,
        typer.Option(
            "--audio", metavar="FILE", help="Voice: any sound file, or - for WAV on stdin."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Video; default: IMAGE-AUDIO.mp4 right here."
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option("--profile", metavar="NAME", help="Model; see joyflash weights list.")
    ] = "tiny",
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", metavar="DIR", help="Weights to use instead of the profile's."
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, metavar="N", help="Same seed, same video."),
    ] = 0,
    face: Annotated[
        int | None,
        typer.Option("--face", min=0, metavar="N", help="Which face, 0 the largest (default)."),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="NAME", help="auto, float32, bfloat16 or float16.")
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, metavar="N", help="CPU threads; default: all cores."),
    ] = None,
    prompt: Annotated[
        str, typer.Option("--prompt", metavar="TEXT", help="For profiles with text control.")
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the video if it exists.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what would be done, and stop.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of the path.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Make a talking-head video from one picture and one voice.

    The path of the video is printed on stdout, everything else on stderr. Ctrl-C once keeps what is
    ready in a playable .partial.mp4; twice ends at once.

    \b
    Examples:
      joyflash render --image face.png --audio talk.wav
      some-tts "Hello" | joyflash render --image face.png --audio - --output hello.mp4
    """  # noqa: D301 - \b tells the help not to fold the examples
    options = RenderOptions(
        image=image,
        audio=audio,
        output=output,
        profile=profile,
        checkpoint=checkpoint,
        seed=seed,
        face=face,
        device=device,
        dtype=dtype,
        threads=threads,
        prompt=prompt,
        overwrite=overwrite,
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
    )
    with StopSignals() as signals:
        try:
            exit_code = _run(options, signals)
        except KeyboardInterrupt:
            exit_code = signals.exit_code
            _say(options, "joyflash: stopped")
    raise typer.Exit(exit_code)


def _run(options: RenderOptions, signals: StopSignals) -> int:
    """The render, cheap mistakes first: output, picture, sound, and only then weights."""
    from joyflash_cli.checkpoints.store import resolve_checkpoint
    from joyflash_cli.pipeline import JoyFlash, plan_render, read_request, read_sampler_profile

    output = choose_output(options.output, options.image, options.audio)
    check_output(output, overwrite=options.overwrite)
    sound = _audio_source(options.audio)
    files = resolve_checkpoint(options.profile, options.checkpoint)
    request = read_request(
        files,
        options.image,
        sound,
        seed=options.seed,
        prompt=options.prompt,
        face_index=options.face,
    )
    _say(options, *(f"joyflash: warning: {warning}" for warning in request.warnings))
    plan = plan_render(request, read_sampler_profile(files))
    if options.dry_run:
        _report_plan(options, output, files, plan)
        return 0
    _use_threads(options.threads)
    with open_progress(plan.num_frames, plan.fps, quiet=options.quiet) as progress:
        progress.loading(files.name)
        joyflash = JoyFlash.load(files, device=options.device, dtype=options.dtype)
        signals.be_graceful()
        result = joyflash.render(
            request,
            output,
            overwrite=options.overwrite,
            on_chunk=progress.update,
            should_stop=signals.requested,
        )
    _report_result(options, result, request)
    return 0 if result.complete else signals.exit_code


def _audio_source(audio: str) -> Any:
    """The path, or standard input as a binary stream."""
    if audio != STANDARD_INPUT:
        return Path(audio)
    if sys.stdin.isatty():
        raise UsageError(
            "--audio - reads WAV from standard input, which is a terminal",
            hint="pipe a sound into it, or give --audio FILE",
            code="E-STDIN-TERMINAL",
        )
    return sys.stdin.buffer


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _say(options: RenderOptions, *lines: str) -> None:
    if not options.quiet:
        for line in lines:
            typer.echo(line, err=True)


def _report_plan(
    options: RenderOptions, output: Path, files: "CheckpointFiles", plan: "RenderPlan"
) -> None:
    width, height = plan.size_px
    if options.as_json:
        typer.echo(
            json.dumps(
                {
                    "dry_run": True,
                    "output": str(output),
                    "video_frames": plan.num_frames,
                    "blocks": plan.num_blocks,
                    "fps": plan.fps,
                    "width": width,
                    "height": height,
                    "audio_s": round(plan.audio_s, 6),
                    "seed": options.seed,
                    "profile": files.name,
                    "checkpoint": str(files.directory),
                    "version": __version__,
                }
            )
        )
        return
    _say(
        options,
        f"would write {output}: {plan.num_frames} frames in {plan.num_blocks} blocks, "
        f"{width} x {height} px at {plan.fps:g} fps, {plan.video_s:.2f} s video / "
        f"{plan.audio_s:.2f} s audio, profile {files.name} from {files.directory}",
    )


def _report_result(
    options: RenderOptions, result: "RenderResult", request: "RenderRequest"
) -> None:
    if result.complete:
        _say(
            options,
            f"saved {result.output}: {result.video_s:.2f} s video / {result.audio_s:.2f} s audio, "
            f"{result.realtime_factor:.2f}x realtime, seed {result.seed}",
        )
    else:
        _say(options, f"saved {result.video_s:.1f} s of {result.audio_s:.1f} s in {result.output}")
    typer.echo(json.dumps(_summary(result)) if options.as_json else str(result.output))


def _summary(result: "RenderResult") -> dict[str, Any]:
    width, height = result.size_px
    return {
        "output": str(result.output),
        "complete": result.complete,
        "video_frames": result.video_frames,
        "fps": result.fps,
        "width": width,
        "height": height,
        "audio_s": round(result.audio_s, 6),
        "wall_s": round(result.wall_s, 4),
        "realtime_factor": round(result.realtime_factor, 4),
        "first_frame_s": round(result.first_frame_s, 4),
        "load_s": round(result.load_s, 4),
        "seed": result.seed,
        "profile": result.profile,
        "version": __version__,
    }
