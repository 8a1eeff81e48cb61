"""The command lines of ``render`` and ``batch``, each declared once and handed on whole."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from joyflash_cli.cli import options as shared
from joyflash_cli.cli.events import EventStream, open_events
from joyflash_cli.cli.help_text import CONTROL, DEVICE, EXPERT, FILES, MESSAGES, MODEL, WORKERS
from joyflash_cli.cli.options import chosen_decoder, option, say
from joyflash_cli.cli.process import StopSignals
from joyflash_cli.media.inputs.hearing import SoundChoices
from joyflash_cli.streaming import StopRequested

if TYPE_CHECKING:
    from joyflash_cli.batch.renderer import RendererSettings
    from joyflash_cli.media.scene import FrameOptions
    from joyflash_cli.provenance.identity import Signing
    from joyflash_cli.render.placement import ExecutionOptions
    from joyflash_cli.weights.store import CheckpointFiles


class ModelOptions:
    """What the verbs that run a model are told alike: the base of their command lines."""

    profile: str
    checkpoint: Path | None
    sampling: list[str] | None = None
    seed: int
    prompt: str
    face: int | None
    allow_no_face: bool
    audio_track: int | None
    skip_damaged: bool
    strict: bool
    attention: str
    compile_layers: bool
    offload: str
    fast_decode: bool
    no_fast_decode: bool
    vae_device: str | None
    quantize: str
    gpus: int = 1
    frame: str | None
    size: int | None
    max_size: int | None
    label: str
    sign: Path | None
    key: Path | None
    sign_thumbnail: bool
    sign_timestamp: str
    progress: str
    progress_fd: int | None
    quiet: bool

    @property
    def sound_choices(self) -> SoundChoices:
        """How the sound is to be heard."""
        return SoundChoices(self.audio_track, self.skip_damaged, self.strict)

    @property
    def frame_options(self) -> "FrameOptions":
        """What of the picture is shown."""
        from joyflash_cli.media.scene import FrameOptions

        return FrameOptions(self.frame, self.size, self.max_size)

    @property
    def signing(self) -> "Signing | None":
        """By whom videos are signed."""
        from joyflash_cli.provenance.identity import choose_signing

        return choose_signing(self.sign, self.key, self.sign_thumbnail, self.sign_timestamp)

    @property
    def about_the_picture(self) -> dict[str, Any]:
        """What is shown and how it moves, as ``read_request`` and ``JoyFlash.session`` take it."""
        return {
            "seed": self.seed,
            "prompt": self.prompt,
            "face_index": self.face,
            "needs_face": not self.allow_no_face,
            "frame": self.frame_options,
            "label": self.label,
            "signing": self.signing,
        }

    def find_checkpoint(self) -> "CheckpointFiles":
        """The checkpoint that was asked for, sampled as asked; what that means is told."""
        from joyflash_cli.weights.store import resolve_checkpoint

        files = resolve_checkpoint(self.profile, self.checkpoint)
        if self.sampling:
            from joyflash_cli.render.request import with_sampler_options

            files, notes = with_sampler_options(files, self.sampling)
            self.warn(notes)
        return files

    @property
    def execution(self) -> "ExecutionOptions":
        """How the model is run."""
        from joyflash_cli.render.placement import ExecutionOptions

        return ExecutionOptions(
            attention=self.attention,
            compile=self.compile_layers,
            offload=self.offload,
            fast_decode=chosen_decoder(self.fast_decode, self.no_fast_decode),
            codec_device=self.vae_device,
            quantize=self.quantize,
            gpus=self.gpus,
        )

    @property
    def is_silent(self) -> bool:
        """Whether nothing is said to people: quiet, or a program reads along."""
        return self.quiet or self.progress == "json"

    def say(self, *lines: str) -> None:
        """Lines for people, on stderr."""
        say(*lines, quiet=self.is_silent)

    def warn(self, texts: Iterable[str]) -> None:
        """Warnings for people, on stderr."""
        self.say(*(f"joyflash: warning: {text}" for text in texts))

    def until_stopped(self, work: Callable[[StopSignals, EventStream], int]) -> NoReturn:
        """Does a verb's work until it is done or the user stops it, and ends with its exit code."""
        with StopSignals() as signals, open_events(self.progress, self.progress_fd) as events:
            try:
                exit_code = work(signals, events)
            except (KeyboardInterrupt, StopRequested):
                self.say("joyflash: stopped")
                exit_code = signals.exit_code
            events.emit("done", exit_code=exit_code)
        raise typer.Exit(exit_code)


@dataclass(frozen=True, kw_only=True)
class RenderOptions(ModelOptions):
    """The command line of ``joyflash render``."""

    picture: shared.PictureArgument = None
    voice: Annotated[
        str | None, typer.Argument(metavar="AUDIO", help="Short for --audio.", show_default=False)
    ] = None
    image: shared.Image = None
    audio: Annotated[
        str | None,
        option("--audio", "Voice: any sound file, or - for WAV on stdin.", "FILE", group=FILES),
    ] = None
    # A text: a path forgets the slash of a folder.
    output: Annotated[
        str | None,
        option(
            "-o --output",
            "Video; default: IMAGE-AUDIO.mp4 right here; - for MP4 on stdout.",
            "FILE",
            group=FILES,
        ),
    ] = None
    audio_format: Annotated[
        str | None,
        option(
            "--audio-format",
            "Sound without a header: s16le:16000, f32le:44100:2, ...",
            "FORMAT",
            group=FILES,
        ),
    ] = None
    audio_track: shared.AudioTrack = None
    skip_damaged: shared.SkipDamaged = False
    strict: shared.Strict = False
    profile: shared.Profile = "tiny"
    checkpoint: shared.Checkpoint = None
    output_fps: shared.OutputFps = None
    seed: Annotated[
        int, option("--seed", "Same seed and number format, same video.", "N", group=MODEL, min=0)
    ] = 0
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
    look_ahead: Annotated[
        int | None,
        option(
            "--look-ahead",
            "Blocks of sound heard beyond the one shown; fewer: a quicker live picture, "
            "less exact lips. Default: the model's.",
            "N",
            group=EXPERT,
            min=0,
        ),
    ] = None
    sampling: Annotated[
        list[str] | None,
        option(
            "--sampling",
            "Sample as the model was not trained to: rolling, psb, urcr, mci, "
            "exact-timesteps or rounded-timesteps; may be given several times.",
            "NAME",
            group=EXPERT,
        ),
    ] = None
    device: shared.Device = "auto"
    dtype: shared.Dtype = "auto"
    gpus: Annotated[
        int,
        option(
            "--gpus",
            "Over several GPUs: the last for pictures, the others share the sampling.",
            "N",
            group=DEVICE,
            min=1,
        ),
    ] = 1
    threads: shared.StageThreads = None
    attention: shared.Attention = "auto"
    compile_layers: shared.Compile = False
    offload: shared.Offload = "none"
    fast_decode: shared.FastDecode = False
    no_fast_decode: shared.NoFastDecode = False
    vae_device: shared.VaeDevice = None
    quantize: shared.Quantize = "none"
    prompt: shared.Prompt = ""
    overwrite: shared.Overwrite = False
    dry_run: Annotated[
        bool,
        option("--dry-run", "Check everything, say what would be done, and stop.", group=CONTROL),
    ] = False
    preview: Annotated[
        bool,
        option(
            "--preview", "Show thumbnails in the terminal, or keep them in a file.", group=FILES
        ),
    ] = False
    progress: shared.Progress = "auto"
    progress_fd: shared.ProgressFd = None
    as_json: Annotated[
        bool, option("--json", "Print one JSON object instead of the path.", group=MESSAGES)
    ] = False
    quiet: shared.Quiet = False
    debug: shared.Debug = False


class EngineName(StrEnum):
    """Where workers run."""

    local = "local"
    ray = "ray"


@dataclass(frozen=True, kw_only=True)
class BatchOptions(ModelOptions):
    """The command line of ``joyflash batch``."""

    manifest: Annotated[
        str,
        typer.Argument(metavar="MANIFEST", help="CSV or JSON lines file, or - for standard input."),
    ]
    out_dir: Annotated[
        Path, option("--out-dir", "Where videos, records and results go.", "DIR", group=FILES)
    ]
    workers: Annotated[
        int | None,
        option(
            "--workers",
            "Rows at a time, if memory holds them; default: one per GPU or core.",
            "N",
            group=WORKERS,
            min=1,
        ),
    ] = None
    engine: Annotated[
        EngineName,
        option("--engine", "Processes of this machine, or a Ray cluster.", group=WORKERS),
    ] = EngineName.local
    ray_address: Annotated[
        str | None,
        option(
            "--ray-address",
            "Cluster for --engine ray: auto or host:port; default: one on this machine.",
            "ADDRESS",
            group=WORKERS,
        ),
    ] = None
    shard: Annotated[
        str, option("--shard", "Only the I-th of N equal parts.", "I/N", group=WORKERS)
    ] = "1/1"
    retry_failed: Annotated[
        bool, option("--retry-failed", "Try rows again that failed earlier.", group=CONTROL)
    ] = False
    fail_fast: Annotated[
        bool, option("--fail-fast", "Begin no further row once one has failed.", group=CONTROL)
    ] = False
    overwrite: Annotated[
        bool, option("--overwrite", "Replace whatever lies where a video goes.", group=FILES)
    ] = False
    dry_run: Annotated[
        bool,
        option("--dry-run", "Read every input, say what would be done, and stop.", group=CONTROL),
    ] = False
    profile: shared.Profile = "tiny"
    checkpoint: shared.Checkpoint = None
    device: shared.Device = "auto"
    dtype: Annotated[
        str,
        option(
            "--dtype",
            "auto, fp32, bf16 or fp16; also long names.",
            "NAME",
            group=DEVICE,
            autocompletion=shared.complete_dtype,
        ),
    ] = "auto"
    gpus: Annotated[
        int,
        option(
            "--gpus-per-row",
            "Each row over several GPUs: the last for pictures, the others share the sampling.",
            "N",
            group=WORKERS,
            min=1,
        ),
    ] = 1
    threads: Annotated[
        int, option("--threads", "CPU threads of each worker.", "N", group=DEVICE, min=1)
    ] = 1
    attention: shared.Attention = "auto"
    compile_layers: shared.Compile = False
    offload: shared.Offload = "none"
    fast_decode: shared.FastDecode = False
    no_fast_decode: shared.NoFastDecode = False
    vae_device: shared.VaeDevice = None
    quantize: shared.Quantize = "none"
    output_fps: shared.OutputFps = None
    audio_track: shared.AudioTrack = None
    skip_damaged: shared.SkipDamaged = False
    strict: shared.Strict = False
    allow_no_face: shared.AllowNoFace = False
    frame: shared.Frame = None
    size: shared.Size = None
    max_size: shared.MaxSize = None
    label: shared.LabelText = ""
    sign: shared.Sign = None
    key: shared.Key = None
    sign_thumbnail: shared.SignThumbnail = False
    sign_timestamp: shared.SignTimestamp = ""
    progress: shared.Progress = "auto"
    progress_fd: shared.ProgressFd = None
    as_json: Annotated[
        bool, option("--json", "Print one JSON object instead of a path.", group=MESSAGES)
    ] = False
    quiet: shared.Quiet = False
    debug: shared.Debug = False

    def settings(self, files: "CheckpointFiles") -> "RendererSettings":
        """How every row is rendered; what the default shows goes into the rows' keys, too."""
        from joyflash_cli.batch.renderer import RendererSettings

        return RendererSettings(
            profile=self.profile,
            checkpoint="" if self.checkpoint is None else str(self.checkpoint.absolute()),
            dtype=self.dtype,
            threads=self.threads,
            execution=self.execution,
            output_fps=self.output_fps,
            needs_face=not self.allow_no_face,
            choices=self.sound_choices,
            frame=self.frame_options.resolved(files.description.framing, files.name),
            label=self.label,
            signing=self.signing,
        )
