"""The command line of ``live``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from joyflash_cli.cli.command_lines import ModelOptions
from joyflash_cli.cli.help_text import EXPERT, FILES, MODEL
from joyflash_cli.cli.options import (
    AllowNoFace,
    Attention,
    Checkpoint,
    Compile,
    Debug,
    Device,
    Dtype,
    FaceIndex,
    FastDecode,
    Frame,
    Image,
    Key,
    LabelText,
    MaxSize,
    NoFastDecode,
    Offload,
    Overwrite,
    PictureArgument,
    Profile,
    Progress,
    ProgressFd,
    Prompt,
    Quantize,
    Quiet,
    Sign,
    SignThumbnail,
    SignTimestamp,
    Size,
    StageThreads,
    VaeDevice,
    option,
)


@dataclass(frozen=True, kw_only=True)
class LiveOptions(ModelOptions):
    """The command line of ``joyflash live``."""

    picture: PictureArgument = None
    image: Image = None
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
    overwrite: Overwrite = False
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
    profile: Profile = "tiny"
    checkpoint: Checkpoint = None
    seed: Annotated[int, option("--seed", "Of everything random.", "N", group=MODEL, min=0)] = 0
    face: FaceIndex = None
    allow_no_face: AllowNoFace = False
    frame: Frame = None
    size: Size = None
    max_size: MaxSize = None
    label: LabelText = ""
    sign: Sign = None
    key: Key = None
    sign_thumbnail: SignThumbnail = False
    sign_timestamp: SignTimestamp = ""
    prompt: Prompt = ""
    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: StageThreads = None
    attention: Attention = "auto"
    compile_layers: Compile = False
    offload: Offload = "none"
    fast_decode: FastDecode = False
    no_fast_decode: NoFastDecode = False
    vae_device: VaeDevice = None
    quantize: Quantize = "none"
    sampling: Annotated[
        list[str] | None,
        option("--sampling", "As for render.", "NAME", group=EXPERT),
    ] = None
    progress: Progress = "auto"
    progress_fd: ProgressFd = None
    quiet: Quiet = False
    debug: Debug = False
