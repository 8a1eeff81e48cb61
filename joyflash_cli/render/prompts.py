"""What a prompt says to the model: its states, from disk where they are, else from its encoder.

The text encoder is as large as the video model or larger and is needed once for each prompt: it is
loaded, used and freed.
"""

from typing import TYPE_CHECKING

from joyflash_cli.encoders.text import clean_prompt
from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.prompt_cache import (
    PromptEmbedding,
    find_unkeyed,
    has_prompt,
    prompt_key,
    read_prompt,
    write_prompt,
)
from joyflash_cli.weights.sources import text_commands
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    import torch

    from joyflash_cli.conditioning.config import ConditioningConfig

TOKENIZER_FILE = "tokenizer.json"
ENCODER_DTYPE = "bfloat16"
"""Of the text encoder; also on the CPU, where its float32 copy would take 23 GB."""


def check_encodable(files: CheckpointFiles, prompt: str) -> None:
    """Refuses a prompt that cannot be encoded here.

    Raises:
        CheckpointError: ``E-CHECKPOINT-TEXT`` when neither the text encoder nor an embedding of
            the prompt is there.
    """
    if files.has("text_encoder"):
        return
    config = files.description.conditioning
    for wanted in config.prompts(prompt):
        cleaned = clean_prompt(wanted)
        if not has_prompt(files.directory, _key(files, config, cleaned)):
            raise _no_text_encoder(files, cleaned, config)


def text_states(
    files: CheckpointFiles,
    prompt: str,
    device: "torch.device",
    *,
    text_device: "torch.device | None" = None,
) -> "torch.Tensor":
    """States ``(1, L, D)`` of a prompt: from disk where they are, else from the text encoder.

    A prompt is encoded once; its states are kept under the user's cache directory.

    Args:
        files: The checkpoint.
        prompt: The user's; empty for the checkpoint's default.
        device: Where the states go.
        text_device: Where the text encoder computes instead.

    Raises:
        CheckpointError: ``E-CHECKPOINT-TEXT`` when there is no way to have them.
    """
    config = files.description.conditioning
    cleaned = clean_prompt(prompt or config.default_prompt)
    key = _key(files, config, cleaned)
    kept = read_prompt(files.directory, key)
    if kept is not None:
        return kept.to(device)
    if not files.has("text_encoder"):
        raise _no_text_encoder(files, cleaned, config)
    states = _encode_text(files, cleaned, text_device or device)
    write_prompt(PromptEmbedding(states, cleaned, config.text_encoder))
    return states.to(device)


def _key(files: CheckpointFiles, config: "ConditioningConfig", cleaned: str) -> str:
    """Of the prompt's embedding; by prompt alone where the checkpoint knows no text encoder."""
    if not config.text_encoder and not files.has("text_encoder"):
        width = files.description.transformer.text_dim
        assert width is not None
        found = find_unkeyed(files.directory, cleaned, width=width)
        if found is not None:
            return found
    return prompt_key(config.text_encoder, cleaned)


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
    free_memory_of(device)
    return states


def _no_text_encoder(
    files: CheckpointFiles, prompt: str, config: "ConditioningConfig"
) -> CheckpointError:
    shown = prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
    is_default = prompt in config.prompts("")
    return CheckpointError(
        f"checkpoint {files.name} has no text encoder and no embedding of the prompt {shown!r}",
        hint=("" if is_default else "leave --prompt out to use the default one; or ")
        + text_commands(files.name, is_default=is_default),
        code="E-CHECKPOINT-TEXT",
    )


def free_memory_of(device: "torch.device") -> None:
    """Give memory of freed modules back to the device."""
    import gc

    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
