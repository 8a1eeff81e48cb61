"""What steers a stream from its first frame to its last: picture, text and face, encoded once.

The encoders are as large as the video model or larger and are needed once: each is loaded, used and
freed before the next one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.prompt_cache import (
    PROMPT_PART,
    find_unkeyed,
    has_prompt,
    prompt_key,
    read_prompt,
    write_prompt,
)
from joyflash_cli.weights.sources import text_commands
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    import numpy as np
    import torch

    from joyflash_cli.conditioning.config import ConditioningConfig
    from joyflash_cli.conditioning.stream import StaticConditioning
    from joyflash_cli.encoders.face import FaceModels

TOKENIZER_FILE = "tokenizer.json"
ENCODER_DTYPE = "bfloat16"
"""Of the text encoder; also on the CPU, where its float32 copy would take 23 GB."""


@dataclass(frozen=True)
class EncodeTarget:
    """Where encoders run.

    Attributes:
        device: Where they compute, and where the results go.
        dtype: Of the picture tower.
        text_device: Where the text encoder computes instead.
    """

    device: "torch.device"
    dtype: "torch.dtype"
    text_device: "torch.device | None" = None


def static_conditioning(
    files: CheckpointFiles,
    pixels: "np.ndarray",
    prompt: str,
    *,
    target: EncodeTarget,
    picture: "torch.Tensor",
    picture_latents: "torch.Tensor",
) -> "StaticConditioning":
    """All conditioning that does not change along the stream, on the target device.

    Args:
        files: The checkpoint.
        pixels: The framed picture ``(H, W, 3)`` uint8 RGB.
        prompt: The user's; empty for the checkpoint's default.
        target: Where the encoders run.
        picture: The same, ``(1, 3, H, W)`` in -1..1, on the device.
        picture_latents: Its latent, or those of its padded clip.

    Raises:
        CheckpointError: When an encoder that is needed is not there.
    """
    from joyflash_cli.conditioning.stream import StaticConditioning

    config, transformer = files.description.conditioning, files.description.transformer
    text = image_tokens = face = None
    if transformer.text_dim is not None:
        text = text_states(files, prompt, target=target)
    if transformer.image_token_dim is not None:
        image_tokens = _image_tokens(files, picture, target)
    if transformer.face_attention is not None:
        face = _face_embedding(config, pixels, transformer.face_attention.face_dim).to(
            target.device
        )
    return StaticConditioning(
        reference_latents=picture_latents,
        convention=config.image_convention,
        text=text,
        image_tokens=image_tokens,
        face=face,
    )


def check_prompt(files: CheckpointFiles, prompt: str) -> None:
    """Refuse a prompt that cannot be encoded here, before anything large is loaded.

    Raises:
        CheckpointError: ``E-CHECKPOINT-TEXT`` when neither the text encoder nor an embedding of
            the prompt is there.
    """
    if not files.description.hears_text or files.has("text_encoder"):
        return
    config = files.description.conditioning
    cleaned = _cleaned(prompt, config)
    if not has_prompt(files.directory, _key(files, config, cleaned)):
        raise _no_text_encoder(files, cleaned, config)


def text_states(files: CheckpointFiles, prompt: str, *, target: EncodeTarget) -> "torch.Tensor":
    """States ``(1, L, D)`` of a prompt: from disk where they are, else from the text encoder.

    A prompt is encoded once; its states are kept under the user's cache directory.

    Raises:
        CheckpointError: ``E-CHECKPOINT-TEXT`` when there is no way to have them.
    """
    config = files.description.conditioning
    cleaned = _cleaned(prompt, config)
    key = _key(files, config, cleaned)
    kept = read_prompt(files.directory, key)
    if kept is not None:
        return kept[0].to(target.device)
    if not files.has("text_encoder"):
        raise _no_text_encoder(files, cleaned, config)
    states = _encode_text(files, cleaned, target.text_device or target.device)
    write_prompt(states, key, cleaned, encoder=config.text_encoder)
    return states.to(target.device)


def write_prompt_embedding(files: CheckpointFiles, prompt: str, *, target: EncodeTarget) -> str:
    """Put a prompt's embedding into the checkpoint, so that it renders without a text encoder.

    Returns:
        The file's name in the checkpoint directory.

    Raises:
        CheckpointError: When the prompt cannot be encoded, or the directory not be written.
    """
    config = files.description.conditioning
    cleaned = _cleaned(prompt, config)
    path = files.directory / f"{PROMPT_PART}.safetensors"
    states = text_states(files, prompt, target=target)
    key = prompt_key(config.text_encoder, cleaned)
    if write_prompt(states, key, cleaned, encoder=config.text_encoder, path=path) is None:
        raise CheckpointError(f"{path} cannot be written", hint="check the directory's permissions")
    return path.name


def find_face_models_for(files: CheckpointFiles) -> "FaceModels | None":
    """The face models of a checkpoint with face tokens; ``None`` for one without."""
    if files.description.transformer.face_attention is None:
        return None
    from joyflash_cli.encoders.face import find_face_models

    return find_face_models(files.description.conditioning.face_models)


def _key(files: CheckpointFiles, config: "ConditioningConfig", cleaned: str) -> str:
    """Of the prompt's embedding; by prompt alone where the checkpoint knows no text encoder."""
    if not config.text_encoder and not files.has("text_encoder"):
        width = files.description.transformer.text_dim
        assert width is not None
        found = find_unkeyed(files.directory, cleaned, width=width)
        if found is not None:
            return found
    return prompt_key(config.text_encoder, cleaned)


def _cleaned(prompt: str, config: "ConditioningConfig") -> str:
    from joyflash_cli.encoders.text import clean_prompt

    return clean_prompt(prompt or config.default_prompt)


def _encode_text(files: CheckpointFiles, prompt: str, device: "torch.device") -> "torch.Tensor":
    import torch

    from joyflash_cli.encoders.text import TextEncoder, text_encoder_module
    from joyflash_cli.weights.tensors import load_state_dict

    with torch.device("meta"):
        module = text_encoder_module(files.description.text_encoder)
    load_state_dict(module, files.shards("text_encoder"), dtype=getattr(torch, ENCODER_DTYPE))
    encoder = TextEncoder(module.to(device), files.directory / TOKENIZER_FILE)
    states = encoder.encode(prompt)
    del encoder, module
    _free(device)
    return states


def _image_tokens(
    files: CheckpointFiles, picture: "torch.Tensor", target: EncodeTarget
) -> "torch.Tensor":
    import torch

    from joyflash_cli.encoders.image import ImageEncoder, image_encoder_module
    from joyflash_cli.weights.tensors import load_state_dict

    if not files.has("image_encoder"):
        raise CheckpointError(
            f"{files.directory} lacks image_encoder.safetensors, which profile {files.name} needs",
            hint="convert the profile again with the picture encoder downloaded",
            code="E-CHECKPOINT-INCOMPLETE",
        )
    with torch.device("meta"):
        module = image_encoder_module(files.description.image_encoder)
    load_state_dict(module, files.shards("image_encoder"), dtype=target.dtype)
    encoder = ImageEncoder(module)
    module.to(target.device)
    tokens = encoder.encode(picture)
    del encoder, module
    _free(target.device)
    return tokens


def _face_embedding(
    config: "ConditioningConfig", pixels: "np.ndarray", face_dim: int
) -> "torch.Tensor":
    """``(1, 512)``; zeros, which are no face, where models or a face are missing."""
    import torch

    from joyflash_cli.encoders.face import FaceEncoder, find_face_models, no_face

    models = find_face_models(config.face_models)
    if models.directory is None:
        embedding = no_face(face_dim)
    else:
        embedding = FaceEncoder(models.directory).encode(pixels)
    return torch.from_numpy(embedding)[None]


def _no_text_encoder(
    files: CheckpointFiles, prompt: str, config: "ConditioningConfig"
) -> CheckpointError:
    shown = prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
    is_default = prompt == config.default_prompt
    return CheckpointError(
        f"checkpoint {files.name} has no text encoder and no embedding of the prompt {shown!r}",
        hint=("" if is_default else "leave --prompt out to use the default one; or ")
        + text_commands(files.name, is_default=is_default),
        code="E-CHECKPOINT-TEXT",
    )


def _free(device: "torch.device") -> None:
    """Give memory of freed modules back to the device."""
    import gc

    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
