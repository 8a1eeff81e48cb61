"""``joyflash render``: one picture and one voice to one video, from files or through pipes."""

from pathlib import Path
from typing import Annotated

import typer

from joyflash_cli.cli.completion import complete_device, complete_dtype, complete_profile
from joyflash_cli.cli.events import ProgressFd
from joyflash_cli.cli.execution import (
    AllowNoFace,
    Attention,
    Compile,
    FastDecode,
    Frame,
    MaxSize,
    Offload,
    OutputFps,
    Quantize,
    Size,
    VaeDevice,
)
from joyflash_cli.cli.help_text import EXPERT, FILES, MESSAGES
from joyflash_cli.cli.inputs import AudioTrack, SkipDamaged, Strict
from joyflash_cli.cli.render_run import RenderOptions, run_render
from joyflash_cli.cli.signals import StopSignals
from joyflash_cli.cli.target import choose_inputs
from joyflash_cli.media.inputs.hearing import SoundChoices


def render(
    picture: Annotated[
        str | None, typer.Argument(metavar="IMAGE", help="Short for --image.", show_default=False)
    ] = None,
    voice: Annotated[
        str | None, typer.Argument(metavar="AUDIO", help="Short for --audio.", show_default=False)
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="Picture: PNG, JPEG, HEIC, WebP, ..."),
    ] = None,
    audio: Annotated[
        str | None,
        typer.Option(
            "--audio", metavar="FILE", help="Voice: any sound file, or - for WAV on stdin."
        ),
    ] = None,
    output: Annotated[
        str | None,  # a path forgets the slash of a folder
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Video; default: IMAGE-AUDIO.mp4 right here; - for MP4 on stdout.",
        ),
    ] = None,
    audio_format: Annotated[
        str | None,
        typer.Option(
            "--audio-format",
            metavar="FORMAT",
            help="Sound without a header: s16le:16000, f32le:44100:2, ...",
            rich_help_panel=FILES,
        ),
    ] = None,
    audio_track: AudioTrack = None,
    skip_damaged: SkipDamaged = False,
    strict: Strict = False,
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            metavar="NAME",
            help="Model; see joyflash weights list.",
            autocompletion=complete_profile,
        ),
    ] = "tiny",
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", metavar="DIR", help="Weights to use instead of the profile's."
        ),
    ] = None,
    output_fps: OutputFps = None,
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, metavar="N", help="Same seed and number format, same video."),
    ] = 0,
    face: Annotated[
        int | None,
        typer.Option("--face", min=0, metavar="N", help="Which face, 0 the largest (default)."),
    ] = None,
    allow_no_face: AllowNoFace = False,
    frame: Frame = None,
    size: Size = None,
    max_size: MaxSize = None,
    look_ahead: Annotated[
        int | None,
        typer.Option(
            "--look-ahead",
            min=0,
            metavar="N",
            help="Blocks of sound heard beyond the one shown; fewer: a quicker live picture, "
            "less exact lips. Default: the model's.",
            rich_help_panel=EXPERT,
        ),
    ] = None,
    sampling: Annotated[
        list[str] | None,
        typer.Option(
            "--sampling",
            metavar="NAME",
            help="Sample as the model was not trained to: rolling, psb, urcr, mci, "
            "exact-timesteps or rounded-timesteps; may be given several times.",
            rich_help_panel=EXPERT,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="NAME",
            help="auto, cpu, cuda, cuda:N or mps.",
            autocompletion=complete_device,
        ),
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            metavar="NAME",
            help="auto, bf16, fp16 or fp32.",
            autocompletion=complete_dtype,
        ),
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, metavar="N", help="CPU threads of a stage; default: half the cores."
        ),
    ] = None,
    attention: Attention = "auto",
    compile_layers: Compile = False,
    offload: Offload = "none",
    fast_decode: FastDecode = False,
    vae_device: VaeDevice = None,
    quantize: Quantize = "none",
    prompt: Annotated[
        str, typer.Option("--prompt", metavar="TEXT", help="For profiles with text control.")
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what exists, but never an input.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what would be done, and stop.")
    ] = False,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Show thumbnails in the terminal, or keep them in a file."),
    ] = False,
    progress: Annotated[
        str,
        typer.Option(
            "--progress",
            metavar="KIND",
            help="On stderr: auto, bar, plain, json or none.",
            rich_help_panel=MESSAGES,
        ),
    ] = "auto",
    progress_fd: ProgressFd = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of the path.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
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
    given = [text for text in (picture, voice) if text is not None]
    image_path, sound = choose_inputs(given, image, audio)
    options = RenderOptions(
        image=image_path,
        audio=sound,
        output=output,
        audio_format=audio_format,
        profile=profile,
        checkpoint=checkpoint,
        seed=seed,
        face=face,
        allow_no_face=allow_no_face,
        frame=frame,
        size=size,
        max_size=max_size,
        look_ahead=look_ahead,
        sampling=tuple(sampling or ()),
        choices=SoundChoices(audio_track, skip_damaged, strict),
        device=device,
        dtype=dtype,
        threads=threads,
        prompt=prompt,
        execution={
            "attention": attention,
            "compile": compile_layers,
            "offload": offload,
            "fast_decode": fast_decode,
            "codec_device": vae_device,
            "quantize": quantize,
        },
        overwrite=overwrite,
        dry_run=dry_run,
        preview=preview,
        progress=progress,
        progress_fd=progress_fd,
        output_fps=output_fps,
        as_json=as_json,
        quiet=quiet,
    )
    with StopSignals() as signals:
        exit_code = run_render(options, signals)
    raise typer.Exit(exit_code)
