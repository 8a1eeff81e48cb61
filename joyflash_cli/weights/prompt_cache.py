"""Prompt embeddings on disk, by hash: the text encoder is needed once per prompt, or never.

An embedding belongs to an encoder and a cleaned prompt. It is looked for in the checkpoint itself,
which may bring the one of its default prompt instead of an encoder four times its size, and then in
the user's cache. A checkpoint that was made without a text encoder does not know which one made an
embedding; it takes what states its prompt and has its width.
"""

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.errors import CheckpointError
from joyflash_cli.files import whole_file
from joyflash_cli.weights.integrity import check_safetensors
from joyflash_cli.weights.places import prompts_directory
from joyflash_cli.weights.tensors import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

PROMPT_PART = "prompt_embedding"
MAX_EMBEDDING_BYTES = 64 << 20
"""512 tokens of width 4096 in float32 are 8 MB."""

_TENSOR = "states"


@dataclass(frozen=True)
class StatedPrompt:
    """What the header of an embedding says.

    Attributes:
        key: Hash of encoder and prompt.
        prompt: Cleaned.
        encoder: Fingerprint.
        width: Of a state.
    """

    key: str
    prompt: str
    encoder: str
    width: int


def prompt_key(encoder: str, prompt: str) -> str:
    """Hash of a cleaned prompt for one encoder.

    Args:
        encoder: The encoder's fingerprint, as the checkpoint states it.
        prompt: Cleaned.
    """
    return hashlib.sha256(f"{encoder}\n{prompt}".encode()).hexdigest()


def read_prompt(
    directory: Path, key: str, *, cache: Path | None = None
) -> "tuple[Tensor, Path] | None":
    """An embedding ``(1, L, D)`` and its file, or ``None`` where nobody has encoded the prompt.

    Args:
        directory: Of the checkpoint.
        key: From ``prompt_key``.
        cache: Another cache than the user's.
    """
    for path in _candidates(directory, key, cache):
        tensors = _read(path, key)
        if _TENSOR in tensors:
            return tensors[_TENSOR], path
    return None


def has_prompt(directory: Path, key: str, *, cache: Path | None = None) -> bool:
    """Whether ``read_prompt`` would find it; cheap, and without torch."""
    return any(_stated_key(path) == key for path in _candidates(directory, key, cache))


def find_unkeyed(
    directory: Path, prompt: str, *, width: int, cache: Path | None = None
) -> str | None:
    """The key of an embedding of this prompt, made by whichever encoder; the newest if several.

    Args:
        directory: Of the checkpoint, which does not know its text encoder.
        prompt: Cleaned.
        width: Of a state.
        cache: Another cache than the user's.
    """
    kept = (cache or prompts_directory()).glob("*.safetensors")
    paths = [directory / f"{PROMPT_PART}.safetensors", *sorted(kept, key=_age)]
    for path in paths:
        stated = _stated(path)
        if stated is not None and (stated.prompt, stated.width) == (prompt, width):
            return stated.key
    return None


def read_embedding(path: Path) -> "tuple[Tensor, StatedPrompt]":
    """An embedding that somebody made elsewhere, checked as it stands.

    Raises:
        CheckpointError: ``E-CHECKPOINT-MISSING`` without a file, ``E-CHECKPOINT-DAMAGED`` when it
            is no embedding of a prompt.
    """
    import torch

    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist", hint="check the path", code="E-CHECKPOINT-MISSING"
        )
    check_safetensors(path)
    stated = _stated(path) if path.stat().st_size <= MAX_EMBEDDING_BYTES else None
    states = _read(path, stated.key).get(_TENSOR) if stated is not None else None
    is_whole = states is not None and states.ndim == 3 and len(states) == 1 and states.numel() > 0
    if stated is None or not is_whole or stated.key != prompt_key(stated.encoder, stated.prompt):
        raise _no_embedding(path)
    assert states is not None
    if not states.is_floating_point() or not torch.isfinite(states).all():
        raise _no_embedding(path)
    return states, stated


def write_prompt(
    states: "Tensor",
    key: str,
    prompt: str,
    *,
    encoder: str,
    path: Path | None = None,
    cache: Path | None = None,
) -> Path | None:
    """Keep an embedding; ``None`` when the cache cannot be written, which is no reason to stop.

    Args:
        states: ``(1, L, D)``.
        key: From ``prompt_key``.
        prompt: Cleaned; stored beside the states, as is the encoder.
        encoder: The encoder's fingerprint.
        path: A file to write instead of the cache's own.
        cache: Another cache than the user's.
    """
    path = path or _cached(key, cache)
    metadata = {"key": key, "prompt": prompt, "encoder": encoder}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two runs may encode the same prompt at once: each writes its own file, the last one stays.
        with whole_file(path, mark=uuid.uuid4().hex) as part:
            save_tensors({_TENSOR: states.detach().cpu().contiguous()}, part, metadata=metadata)
    except OSError:
        return None
    return path


def _candidates(directory: Path, key: str, cache: Path | None) -> list[Path]:
    paths = (directory / f"{PROMPT_PART}.safetensors", _cached(key, cache))
    return [path for path in paths if path.is_file()]


def _cached(key: str, cache: Path | None) -> Path:
    return (cache or prompts_directory()) / f"{key}.safetensors"


def _stated_key(path: Path) -> str:
    """The key in a file's own header; empty where it cannot be read."""
    stated = _stated(path)
    return "" if stated is None else stated.key


def _stated(path: Path) -> StatedPrompt | None:
    """A file's own header; ``None`` where it cannot be read or is another one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            said = file.metadata() or {}
            width = int(file.get_slice(_TENSOR).get_shape()[-1])
        return StatedPrompt(said["key"], said["prompt"], said["encoder"], width)
    except (SafetensorError, OSError, KeyError, IndexError):
        return None


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def _no_embedding(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is no prompt embedding",
        hint="make one where the text encoder is: joyflash weights prompt PROFILE --output FILE",
        code="E-CHECKPOINT-DAMAGED",
    )


def _read(path: Path, key: str) -> "dict[str, Tensor]":
    """The tensors of a file with this key; none of a damaged or another one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if _stated_key(path) != key:
        return {}
    try:
        return load_file(path)
    except (SafetensorError, OSError):
        return {}
