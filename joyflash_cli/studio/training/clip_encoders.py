"""What turns clips into training data: the codec and encoders of a checkpoint, loaded once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from joyflash_cli.codec.protocol import Codec
from joyflash_cli.conditioning.config import AudioWindowRule
from joyflash_cli.encoders.protocol import AudioEncoder
from joyflash_cli.media.inputs.framing import Framing
from joyflash_cli.types import to_signed
from joyflash_cli.weights.store import CheckpointFiles, resolve_checkpoint

EncodeStill = Callable[[np.ndarray, str], Tensor]
"""From a picture ``(H, W, 3)`` uint8 and a caption to what steers a whole clip."""


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
        fixed: By kind of ``LatentClips``, what does not change along a clip: text states ``(L, D)``
            of the caption, CLIP states ``(L, D)`` and the face embedding ``(512,)`` of the picture.
    """

    name: str
    codec: Codec
    audio: AudioEncoder
    audio_windows: AudioWindowRule
    framing: Framing
    fps: float
    token_px: int
    device: torch.device
    fixed: Mapping[str, EncodeStill] = field(default_factory=dict)


def resolve_encoders(checkpoint: str) -> CheckpointFiles:
    """The files of a profile name or of a checkpoint directory.

    Raises:
        UsageError: For an unknown profile.
        CheckpointError: If the directory is none.
    """
    path = Path(checkpoint).expanduser()
    return resolve_checkpoint("tiny", path) if path.is_dir() else resolve_checkpoint(checkpoint)


def load_encoders(checkpoint: str, device: torch.device) -> ClipEncoders:
    """Codec and encoders of a checkpoint; its transformer is not kept.

    Raises:
        CheckpointError: If files are missing or damaged.
    """
    from joyflash_cli.render.load import load_parts
    from joyflash_cli.render.placement import Placement

    files = resolve_encoders(checkpoint)
    parts = load_parts(files, Placement(device, torch.float32, device))
    sizes, fixed = parts.transformer.config, dict[str, EncodeStill]()
    if sizes.text_dim is not None:
        fixed["text"] = _text(files, device)
    if sizes.image_token_dim is not None:
        fixed["image_tokens"] = _image_tokens(files, device)
    if sizes.face_attention is not None:
        fixed["face"] = _face(files, sizes.face_attention.face_dim)
    return ClipEncoders(
        name=f"{files.name} {files.description.version}",
        codec=parts.codec,
        audio=parts.front_end,
        audio_windows=files.description.conditioning.audio_windows,
        framing=files.description.framing,
        fps=files.description.sampler.fps,
        token_px=parts.codec.spatial_stride * sizes.patch_size[1],
        device=device,
        fixed=fixed,
    )


def _text(files: CheckpointFiles, device: torch.device) -> EncodeStill:
    from joyflash_cli.render.prompts import text_states

    def encode(pixels: np.ndarray, caption: str) -> Tensor:
        # Padded to one length, so that clips can be stacked; the transformer pads with zeros too.
        states = text_states(files, caption, device)[0]
        length = files.description.transformer.text_len
        return functional.pad(states, (0, 0, 0, length - len(states)))

    return encode


def _image_tokens(files: CheckpointFiles, device: torch.device) -> EncodeStill:
    from joyflash_cli.encoders.image import ImageEncoder, image_encoder_module
    from joyflash_cli.weights.tensors import load_state_dict

    with torch.device("meta"):
        module = image_encoder_module(files.description.image_encoder)
    load_state_dict(module, files.shards("image_encoder"), dtype=torch.float32)
    encoder = ImageEncoder(module.to(device))
    return lambda pixels, caption: encoder.encode(to_signed(pixels)[None].to(device))[0]


def _face(files: CheckpointFiles, face_dim: int) -> EncodeStill:
    from joyflash_cli.encoders.face import FaceEncoder, find_face_models, no_face

    models = find_face_models(files.description.conditioning.face_models)
    if models.directory is None:
        return lambda pixels, caption: torch.from_numpy(no_face(face_dim))
    encoder = FaceEncoder(models.directory)
    return lambda pixels, caption: torch.from_numpy(encoder.encode(pixels))
