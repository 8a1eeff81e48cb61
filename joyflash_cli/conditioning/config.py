"""What a checkpoint's ``conditioning`` section says: how its inputs were made in training."""

from dataclasses import dataclass

from joyflash_cli.conditioning.audio_windows import AudioWindowRule
from joyflash_cli.conditioning.reference import ImageConvention
from joyflash_cli.config import check_ranges


@dataclass(frozen=True)
class ConditioningConfig:
    """How pictures, sound and text become conditioning.

    Attributes:
        audio_windows: Which audio rows each latent frame hears.
        image_convention: How the reference latents are concatenated.
        padded_clip_latents: For ``"wan-i2v"``: latent frames of the picture followed by empty
            frames; a longer stream repeats the last one. 21 are the 81 frames of training.
        default_prompt: What models with text are told when the user gives no prompt.
        text_encoder: Fingerprint of the text encoder; prompts are kept by it.
        face_models: Pack of insightface models for the face tokens; empty for models without.
    """

    audio_windows: AudioWindowRule = AudioWindowRule("own-frames-margin", margin=2)
    image_convention: ImageConvention = "avatar"
    padded_clip_latents: int = 21
    default_prompt: str = ""
    text_encoder: str = ""
    face_models: str = ""

    def __post_init__(self) -> None:
        check_ranges(self, {"padded_clip_latents": (1, 10_000)})
