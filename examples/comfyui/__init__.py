"""A node for ComfyUI: a picture and a sound in, frames of a talking head and the sound out.

Copy or link this folder into ``ComfyUI/custom_nodes`` and ``pip install joyflash`` beside it.
"""

import io
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from joyflash_cli.render import JoyFlash, read_request
from joyflash_cli.types import AudioClip


@lru_cache(maxsize=1)
def _loaded(profile: str) -> JoyFlash:
    return JoyFlash.load(profile)


class JoyFlashTalk:
    """Makes the first picture speak the sound."""

    CATEGORY = "JoyFlash"
    FUNCTION = "talk"
    RETURN_TYPES = ("IMAGE", "AUDIO", "FLOAT")
    RETURN_NAMES = ("frames", "audio", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - as the host calls it
        """What stands on the node."""
        return {
            "required": {
                "image": ("IMAGE",),
                "audio": ("AUDIO",),
                "profile": ("STRING", {"default": "tiny"}),
                "seed": ("INT", {"default": 0, "min": 0, "max": (1 << 63) - 1}),
            }
        }

    def talk(
        self, image: torch.Tensor, audio: dict[str, Any], profile: str, seed: int
    ) -> tuple[torch.Tensor, dict[str, Any], float]:
        """Frames of the video.

        Args:
            image: ``(B, H, W, C)`` in 0..1; the first is used.
            audio: ``waveform`` ``(B, channels, samples)`` and ``sample_rate``.
            profile: The model.
            seed: Of everything random.

        Returns:
            Frames ``(F, H, W, 3)`` in 0..1, the sound as given, and frames per second.
        """
        joyflash = _loaded(profile)
        samples = audio["waveform"][0].T.cpu().numpy().astype(np.float32)
        clip = AudioClip(np.ascontiguousarray(samples), int(audio["sample_rate"]))
        request = read_request(joyflash.files, _as_png(image[0]), clip, seed=seed)
        chunks = [chunk.frames for chunk in joyflash.stream(request)]
        frames = torch.from_numpy(np.concatenate(chunks)).float() / 255
        return frames, audio, float(joyflash.sampler.fps)


def _as_png(pixels: torch.Tensor) -> io.BytesIO:
    from PIL import Image

    levels = (pixels[..., :3].cpu().clamp(0, 1) * 255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, format="PNG")
    file.seek(0)
    file.name = "image.png"
    return file


NODE_CLASS_MAPPINGS = {"JoyFlashTalk": JoyFlashTalk}
NODE_DISPLAY_NAME_MAPPINGS = {"JoyFlashTalk": "JoyFlash: talking head"}
