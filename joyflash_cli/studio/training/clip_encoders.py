"""What turns clips into training data: the codec and encoders of a checkpoint, loaded once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.codec.protocol import Codec
from joyflash_cli.conditioning.config import AudioWindowRule
from joyflash_cli.encoders.protocol import AudioEncoder
from joyflash_cli.media.inputs.framing import Framing
from joyflash_cli.types import to_signed
from joyflash_cli.weights.store import CheckpointFiles, resolve_checkpoint


@dataclass(frozen=True)
class ClipEncoders:
    """Parts of a checkpoint that make training data.

    Attributes:
        name: Of the checkpoint and its version; caches of different ones are not mixed.
        codec: Frames to latents.
        audio: Sound to feature rows.
        audio_windows: Which rows a latent frame hears.
        framing: How pictures are cut.
        fps: Video frames per second.
        token_px: Pixels of a transformer token each way.
        device: Where codec and audio encoder compute.
        text: Caption to states ``(L, D)``; ``None`` for models without text.
        image_tokens: Picture ``(H, W, 3)`` uint8 to CLIP states ``(L, D)``; ``None`` without.
        face: Picture to a face embedding ``(512,)``; ``None`` without.
    """

    name: str
    codec: Codec
    audio: AudioEncoder
    audio_windows: AudioWindowRule
    framing: Framing
    fps: float
    token_px: int
    device: torch.device
    text: Callable[[str], Tensor] | None = None
    image_tokens: Callable[[np.ndarray], Tensor] | None = None
    face: Callable[[np.ndarray], Tensor] | None = None

    def fixed(self, pixels: np.ndarray, caption: str) -> dict[str, Tensor]:
        """What does not change along a clip, by kind, in half precision."""
        given: dict[str, Tensor] = {}
        if self.text is not None:
            given["text"] = self.text(caption).half().cpu()
        if self.image_tokens is not None:
            given["image_tokens"] = self.image_tokens(pixels).half().cpu()
        if self.face is not None:
            given["face"] = self.face(pixels).half().cpu()
        return given


def resolve_encoders(checkpoint: str) -> CheckpointFiles:
    """The files of a profile name or of a checkpoint directory.

    Raises:
        UsageError: For an unknown profile.
        CheckpointError: If the directory is none.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return resolve_checkpoint("tiny", path)
    return resolve_checkpoint(checkpoint)


def load_encoders(checkpoint: str, device: torch.device) -> ClipEncoders:
    """Codec and encoders of a checkpoint; its transformer is not kept.

    Raises:
        CheckpointError: If files are missing or damaged.
    """
    from joyflash_cli.render.load import load_parts
    from joyflash_cli.render.placement import Placement

    files = resolve_encoders(checkpoint)
    parts = load_parts(files, Placement(device, torch.float32, device))
    sizes = parts.transformer.config
    return ClipEncoders(
        name=f"{files.name} {files.description.version}",
        codec=parts.codec,
        audio=parts.front_end,
        audio_windows=files.description.conditioning.audio_windows,
        framing=files.description.framing,
        fps=files.description.sampler.fps,
        token_px=parts.codec.spatial_stride * sizes.patch_size[1],
        device=device,
        text=None if sizes.text_dim is None else _text(files, device),
        image_tokens=None if sizes.image_token_dim is None else _image_tokens(files, device),
        face=None if sizes.face_attention is None else _face(files, sizes.face_attention.face_dim),
    )


def _text(files: CheckpointFiles, device: torch.device) -> Callable[[str], Tensor]:
    from joyflash_cli.render.prompts import text_states

    def encode(caption: str) -> Tensor:
        # Padded to one length, so that clips can be stacked; the transformer pads with zeros too.
        states = text_states(files, caption, device)[0]
        length = files.description.transformer.text_len
        return torch.nn.functional.pad(states, (0, 0, 0, length - len(states)))

    return encode


def _image_tokens(files: CheckpointFiles, device: torch.device) -> Callable[[np.ndarray], Tensor]:
    from joyflash_cli.encoders.image import ImageEncoder, image_encoder_module
    from joyflash_cli.weights.tensors import load_state_dict

    with torch.device("meta"):
        module = image_encoder_module(files.description.image_encoder)
    load_state_dict(module, files.shards("image_encoder"), dtype=torch.float32)
    encoder = ImageEncoder(module.to(device))

    def encode(pixels: np.ndarray) -> Tensor:
        return encoder.encode(to_signed(pixels)[None].to(device))[0]

    return encode


def _face(files: CheckpointFiles, face_dim: int) -> Callable[[np.ndarray], Tensor]:
    from joyflash_cli.encoders.face import FaceEncoder, find_face_models, no_face

    models = find_face_models(files.description.conditioning.face_models)
    if models.directory is None:
        return lambda pixels: torch.from_numpy(no_face(face_dim))
    encoder = FaceEncoder(models.directory)
    return lambda pixels: torch.from_numpy(encoder.encode(pixels))
