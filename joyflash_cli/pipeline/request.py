"""What is to be rendered: inputs read and checked, and what they come to, before any weights."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from joyflash_cli.checkpoints.store import CheckpointFiles
from joyflash_cli.config import from_dict
from joyflash_cli.errors import UsageError
from joyflash_cli.types import AudioClip

if TYPE_CHECKING:
    from joyflash_cli.media.framing import Framed
    from joyflash_cli.sampler.profile import SamplerProfile


@dataclass(frozen=True)
class RenderRequest:
    """One video to make.

    Attributes:
        face: The framed picture.
        audio: The sound, as it was given; it is also the video's sound track.
        seed: Decides every random number of the run.
        prompt: Text for profiles that have text control; empty for the others.
        warnings: What the user should be told about the inputs.
    """

    face: "Framed"
    audio: AudioClip
    seed: int = 0
    prompt: str = ""
    warnings: tuple[str, ...] = ()


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
    image: Path,
    audio: Path | BinaryIO | AudioClip,
    *,
    seed: int = 0,
    prompt: str = "",
    face_index: int | None = None,
) -> RenderRequest:
    """Inputs read, checked and framed as the checkpoint was trained; no weights are needed.

    Args:
        files: Gives the framing rule and says whether text is heard.
        image: PNG, JPEG or WebP.
        audio: A file, a binary stream, or sound that was already read.
        seed: 0 <= seed < 2**63.
        prompt: Only for profiles with text control.
        face_index: Which face of the picture, 0 the largest; the largest if absent.

    Raises:
        UsageError: For a prompt that the profile cannot hear, or an impossible seed.
        AudioError: When the sound cannot be used.
        ImageError: When the picture cannot be used.
    """
    from joyflash_cli.media.audio import is_silent, read_audio
    from joyflash_cli.media.framing import FramingRule, frame_face
    from joyflash_cli.media.picture import read_picture

    if not 0 <= seed < 1 << 63:
        raise UsageError(f"seed {seed} is out of range", hint="0 <= seed < 2**63")
    if prompt and not hears_text(files):
        raise UsageError(
            f"profile {files.name} has no text control",
            hint="leave --prompt out; the picture and the voice decide everything",
            code="E-PROMPT",
        )
    # The picture comes first: sound on a pipe may take as long as somebody speaks.
    picture = read_picture(image)
    rule = from_dict(FramingRule, files.section("framing"), path="checkpoint.json: framing")
    face = frame_face(picture, rule, face_index=face_index)
    clip = audio if isinstance(audio, AudioClip) else read_audio(audio)
    silence = ("the audio is silent, the mouth will stay still",) if is_silent(clip) else ()
    warnings = tuple(dict.fromkeys((*picture.warnings, *face.warnings, *silence)))
    return RenderRequest(face, clip, seed=seed, prompt=prompt, warnings=warnings)


def hears_text(files: CheckpointFiles) -> bool:
    """Whether the checkpoint's transformer attends a text prompt."""
    return files.section("transformer").get("text_dim") is not None


def read_sampler_profile(files: CheckpointFiles) -> "SamplerProfile":
    """The sampler settings that travel with a checkpoint.

    Raises:
        ConfigError: For an unknown key or a wrong value.
    """
    from joyflash_cli.sampler.profile import SamplerProfile

    return from_dict(SamplerProfile, files.section("sampler"), path="checkpoint.json: sampler")


def plan_render(request: RenderRequest, profile: "SamplerProfile") -> RenderPlan:
    """Frames and blocks that the request takes under a sampler profile."""
    from joyflash_cli.conditioning.audio_windows import num_blocks_for

    num_frames = count_frames(request.audio, profile.fps)
    height, width = request.face.pixels.shape[:2]
    return RenderPlan(
        num_frames=num_frames,
        num_blocks=num_blocks_for(num_frames, profile.block_frames),
        fps=profile.fps,
        size_px=(width, height),
        audio_s=request.audio.duration_s,
    )


def count_frames(audio: AudioClip, fps: float) -> int:
    """Video frames that cover the sound, ``ceil(duration * fps)``, in exact arithmetic."""
    samples_per_frame = audio.sample_rate_hz / Fraction(fps).limit_denominator(1001)
    return max(1, -(-len(audio.samples) // samples_per_frame))
