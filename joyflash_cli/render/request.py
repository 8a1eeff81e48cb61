"""What is to be rendered: inputs read and checked, and what they come to, before any weights."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from joyflash_cli.errors import ImageError, UsageError
from joyflash_cli.media.scene import DEFAULT_FRAME, FrameOptions
from joyflash_cli.render.sound_feed import frames_for
from joyflash_cli.types import AudioClip, Scene, exact_rate
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    import numpy as np

    from joyflash_cli.media.inputs.framing import Framed
    from joyflash_cli.media.inputs.hearing import Hearing, SoundChoices
    from joyflash_cli.media.inputs.picture import Picture
    from joyflash_cli.media.inputs.sound import Sound
    from joyflash_cli.media.outputs.label import Label
    from joyflash_cli.provenance.identity import Signing
    from joyflash_cli.sampler.segment_settings import AnySettings

MIN_OUTPUT_FPS, MAX_OUTPUT_FPS = 1, 240

SILENCE_WARNING = "the audio is silent, the mouth will stay still"


@dataclass(frozen=True)
class RenderRequest:
    """One video to make.

    Attributes:
        face: The framed picture, as the model sees it.
        audio: The sound, as it was given; it is also the video's sound track. A live one can be
            rendered once.
        seed: Decides every random number of the run.
        prompt: Text for profiles that have text control; empty for the others.
        look_ahead_blocks: Blocks whose sound is heard beyond the one that leaves; ``None`` for
            the whole window. Fewer shorten the delay of a live picture and cost lip accuracy.
        warnings: What the user should be told about the inputs.
        image_name: The picture's path as given.
        image_sha256: Of its bytes.
        audio_name: The sound's path as given, ``-`` for a pipe, ``None`` for samples in memory.
        output_fps: Frames per second of the video, by repeating the model's frames or leaving
            some out; ``None`` for the model's own rate.
        scene: What the video shows; ``None`` for the framed picture itself.
        frame: The choices that led to it.
        label: A small text in a corner of every frame; empty for none.
        signing: By whom the file is signed; ``None`` for nobody.
    """

    face: "Framed"
    audio: "AudioClip | Sound"
    seed: int = 0
    prompt: str = ""
    look_ahead_blocks: int | None = None
    warnings: tuple[str, ...] = ()
    image_name: str | None = None
    image_sha256: str | None = None
    audio_name: str | None = None
    output_fps: float | None = None
    scene: Scene | None = None
    frame: FrameOptions = DEFAULT_FRAME
    label: str = ""
    signing: "Signing | None" = None

    def __post_init__(self) -> None:
        self.drawn_label()  # one that cannot be drawn is told now

    def at_output_fps(self, fps: float | None) -> "RenderRequest":
        """The same as a video of another frame rate; ``None`` for the model's own.

        Raises:
            UsageError: ``E-OUTPUT-FPS`` for a rate that cannot be written.
        """
        if fps is not None and not MIN_OUTPUT_FPS <= fps <= MAX_OUTPUT_FPS:
            raise UsageError(
                f"{fps:g} frames a second cannot be written",
                hint=f"{MIN_OUTPUT_FPS} to {MAX_OUTPUT_FPS} can",
                code="E-OUTPUT-FPS",
            )
        return replace(self, output_fps=None if fps is None else float(exact_rate(fps)))

    @property
    def sound(self) -> "Sound":
        """The sound, to be heard from its beginning."""
        from joyflash_cli.media.inputs.sound import ClipSound

        return ClipSound(self.audio) if isinstance(self.audio, AudioClip) else self.audio

    @property
    def hearing(self) -> "Hearing | None":
        """What is learned about the sound while it is heard, where it came from outside."""
        return getattr(self.audio, "hearing", None)

    @property
    def files(self) -> tuple[Path, ...]:
        """Picture and sound, as far as they are files."""
        heard = getattr(self.audio, "path", None) or self.audio_name
        return tuple(Path(name) for name in (self.image_name, heard) if name is not None)

    @property
    def pixels(self) -> "np.ndarray":
        """What the video begins with, ``(H, W, 3)`` uint8."""
        return self.face.pixels if self.scene is None else self.scene.pixels

    @property
    def size_px(self) -> tuple[int, int]:
        """``(width, height)`` of the video."""
        height, width = self.pixels.shape[:2]
        return int(width), int(height)

    def drawn_label(self) -> "Label | None":
        """The label as it is drawn into frames, away from the face; ``None`` without one.

        Raises:
            UsageError: ``E-LABEL`` for a text that cannot be drawn or does not fit.
        """
        from joyflash_cli.media.outputs.label import Label

        if not self.label:
            return None
        face = None if self.scene is None else self.scene.square.bounds()
        return Label(self.label, self.pixels, face)

    def is_stream(self, fps: float) -> bool:
        """Whether it is heard as a live sound is: its length unknown, or a look-ahead chosen."""
        return self.num_frames(fps) is None or self.look_ahead_blocks is not None

    def settings_of(self, settings: "AnySettings") -> "AnySettings":
        """A checkpoint's settings for this size, and this sound: of a stream, segments hear rings.

        Raises:
            ConfigError: If a segment of this size would be too short.
        """
        from joyflash_cli.sampler.segment_settings import SegmentSettings

        if not isinstance(settings, SegmentSettings):
            return settings
        settings = settings.for_size(*self.size_px)
        return replace(settings, sound="ring") if self.is_stream(settings.fps) else settings

    @property
    def audio_s(self) -> float | None:
        """Duration of the sound; ``None`` where it is not known yet."""
        length = self._length()
        return None if length is None else length[0] / length[1]

    def num_frames(self, fps: float) -> int | None:
        """Video frames that cover the sound; ``None`` where its length is not known yet."""
        length = self._length()
        return None if length is None else frames_for(length[0], length[1] / exact_rate(fps))

    def _length(self) -> tuple[int, int] | None:
        """Samples and samples per second, where they are known."""
        from joyflash_cli.media.inputs.sound import FileSound

        if isinstance(self.audio, AudioClip):
            return len(self.audio.samples), self.audio.sample_rate_hz
        if isinstance(self.audio, FileSound):
            return self.audio.num_samples, self.audio.format.sample_rate_hz
        return None


@dataclass(frozen=True)
class RenderPlan:
    """What a request comes to under a profile, known before anything is computed.

    Attributes:
        num_frames: Frames of the finished video: ``ceil(audio duration * fps)``.
        num_blocks: Blocks to sample; the last one's surplus frames are dropped.
        fps: Frames per second.
        size_px: ``(width, height)``.
        audio_s: Duration of the sound.
    """

    num_frames: int
    num_blocks: int
    fps: float
    size_px: tuple[int, int]
    audio_s: float

    @property
    def video_s(self) -> float:
        """Duration of the video."""
        return self.num_frames / self.fps


def read_request(
    files: CheckpointFiles,
    image: "Path | BinaryIO",
    audio: "Path | BinaryIO | AudioClip | Sound",
    *,
    seed: int = 0,
    prompt: str = "",
    face_index: int | None = None,
    needs_face: bool = True,
    look_ahead_blocks: int | None = None,
    choices: "SoundChoices | None" = None,
    frame: FrameOptions = DEFAULT_FRAME,
    label: str = "",
    signing: "Signing | None" = None,
) -> RenderRequest:
    """Inputs read, checked and framed as the checkpoint was trained; no weights are needed.

    Args:
        files: Gives the framing rule and says whether text is heard.
        image: A picture file, or one that is open.
        audio: A file, which is checked to its end; a binary stream, which is heard while it is
            rendered, and whose mistakes show then; samples in memory; or any other ``Sound``.
        seed: 0 <= seed < 2**63.
        prompt: Only for profiles with text control.
        face_index: Which face of the picture, 0 the largest (default).
        needs_face: Whether a picture without a face is refused; else its middle is used.
        look_ahead_blocks: See ``RenderRequest``.
        choices: How the sound is heard where it is given as a file, pipe or stream.
        frame: What of the picture the video shows, and how large.
        label: See ``RenderRequest``.
        signing: See ``RenderRequest``.

    Raises:
        UsageError: For a prompt that the profile cannot hear, an impossible seed, frame or label.
        AudioError, ImageError: When the sound or the picture cannot be used.
    """
    check_choices(files, image, audio, seed=seed, prompt=prompt)
    frame = frame.resolved(files.description.framing, files.name)
    picture, face = read_face(files, image, face_index=face_index, needs_face=needs_face)
    sound, given, heard = _as_sound(audio, choices)
    notes = [*picture.warnings, *face.warnings, *frame.notes(face), *heard]
    if files.description.transformer.face_attention is not None:
        from joyflash_cli.encoders.face import find_face_models

        notes.append(find_face_models(files.description.conditioning.face_models).notice)
    return RenderRequest(
        face,
        sound,
        seed=seed,
        prompt=prompt,
        look_ahead_blocks=look_ahead_blocks,
        warnings=tuple(dict.fromkeys(notes)),
        image_name=_name_of(image),
        image_sha256=picture.sha256,
        audio_name=given,
        scene=frame.scene(face),
        frame=frame,
        label=label,
        signing=signing,
    )


def check_choices(
    files: CheckpointFiles, image: object, audio: object, *, seed: int, prompt: str
) -> None:
    """Refuses what cannot be rendered whatever the inputs hold, before they are read.

    Args:
        files: Says whether text is heard.
        image: As for ``read_request``; a sound here and a picture for ``audio`` are exchanged.
        audio: As for ``read_request``.
        seed: As for ``read_request``.
        prompt: As for ``read_request``; it must be one that can be encoded here.

    Raises:
        UsageError: ``E-PROMPT`` for a profile without text control; for an impossible seed.
        CheckpointError: ``E-CHECKPOINT-TEXT`` when neither the text encoder nor an embedding of
            the prompt is there.
        ImageError: ``E-IMAGE-FORMAT`` for inputs that are exchanged.
    """
    from joyflash_cli.media.inputs.kinds import are_exchanged

    if not 0 <= seed < 1 << 63:
        raise UsageError(f"seed {seed} is out of range", hint="0 <= seed < 2**63")
    if files.description.hears_text:
        from joyflash_cli.render.prompts import check_encodable

        check_encodable(files, prompt)
    elif prompt:
        raise UsageError(
            f"profile {files.name} has no text control",
            hint="leave --prompt out; the picture and the voice decide everything",
            code="E-PROMPT",
        )
    if not (isinstance(image, str | Path) and isinstance(audio, str | Path)):
        return
    if are_exchanged(Path(image), Path(audio)):
        raise ImageError(
            f"{image} is a sound and {audio} is a picture: they are exchanged",
            hint="give the picture first, then the sound, or name them with --image and --audio",
            code="E-IMAGE-FORMAT",
        )


def read_face(
    files: CheckpointFiles,
    image: "Path | BinaryIO",
    *,
    face_index: int | None = None,
    needs_face: bool = True,
) -> "tuple[Picture, Framed]":
    """The picture, and the part of it that a checkpoint shows.

    Args:
        files: Gives the framing rule.
        image: A picture file, or one that is open.
        face_index: As for ``read_request``.
        needs_face: As for ``read_request``.

    Raises:
        ImageError: When the picture cannot be used.
    """
    from joyflash_cli.media.inputs.framing import frame_picture
    from joyflash_cli.media.inputs.picture import read_picture

    picture = read_picture(image)
    rule = files.description.framing
    try:
        return picture, frame_picture(picture, rule, face_index=face_index, needs_face=needs_face)
    except ImageError as error:
        what = f"{error.message} in {_name_of(image)}"
        raise ImageError(what, hint=error.hint, code=error.code) from error


def _name_of(image: "Path | BinaryIO") -> str:
    return str(image) if isinstance(image, str | Path) else str(image.name)


def _as_sound(
    audio: "Path | BinaryIO | AudioClip | Sound", choices: "SoundChoices | None"
) -> "tuple[AudioClip | Sound, str | None, tuple[str, ...]]":
    """The sound, what the record calls it, and what is known of it before it is heard."""
    from joyflash_cli.media.inputs.audio import is_silent
    from joyflash_cli.media.inputs.sound import (
        STANDARD_INPUT_NAME,
        FileSound,
        LiveSound,
        check_sound_file,
        is_pipe,
        open_pipe,
    )

    if isinstance(audio, AudioClip):
        return audio, None, (SILENCE_WARNING,) if is_silent(audio) else ()
    if isinstance(audio, str | Path):
        if is_pipe(Path(audio)):  # it can be heard only once
            return open_pipe(Path(audio), choices=choices), str(audio), ()
        audio = check_sound_file(Path(audio), choices=choices)
    if isinstance(audio, FileSound):
        silent = (SILENCE_WARNING,) if audio.is_silent else ()
        return audio, str(audio.path), (*audio.hearing.notes, *silent)
    if isinstance(audio, LiveSound):
        return audio, "-" if audio.name == STANDARD_INPUT_NAME else audio.name, ()
    if hasattr(audio, "open"):
        return cast("Sound", audio), None, ()
    return LiveSound(cast("BinaryIO", audio), choices=choices), "-", ()


def with_sampler_options(
    files: CheckpointFiles, names: Iterable[str]
) -> tuple[CheckpointFiles, tuple[str, ...]]:
    """The checkpoint with its sampler settings changed, and a sentence for each untrained change.

    Args:
        files: The checkpoint; not changed on disk.
        names: Of ``sampler.options.SAMPLER_OPTIONS``.

    Raises:
        UsageError: For a name that does not exist.
        ConfigError: When the options contradict each other.
    """
    from joyflash_cli.sampler.options import untrained_options, with_options

    chosen = tuple(dict.fromkeys(names))
    own = files.description.sampler
    description = files.description.with_sampler(with_options(own, chosen))
    return replace(files, description=description), untrained_options(own, chosen)


def plan_render(request: RenderRequest, settings: "AnySettings") -> RenderPlan:
    """Frames and blocks that the request takes under a checkpoint's sampler settings.

    Raises:
        UsageError: For live sound, whose length is not known.
    """
    num_frames, audio_s = request.num_frames(settings.fps), request.audio_s
    video_fps = request.output_fps or settings.fps
    num_written = request.num_frames(video_fps)
    if num_frames is None or num_written is None or audio_s is None:
        raise UsageError(
            "the length of sound from a pipe is not known before it ends",
            hint="give --audio FILE to plan ahead",
        )
    return RenderPlan(
        num_frames=num_written,
        num_blocks=request.settings_of(settings).num_blocks(num_frames),
        fps=video_fps,
        size_px=request.size_px,
        audio_s=audio_s,
    )
