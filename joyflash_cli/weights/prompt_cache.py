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
from typing import TYPE_CHECKING, NamedTuple

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
class PromptEmbedding:
    """The states of a prompt.

    Attributes:
        states: ``(1, L, D)``.
        prompt: Cleaned.
        encoder: Fingerprint of the text encoder, as the checkpoint states it.
    """

    states: "Tensor"
    prompt: str
    encoder: str


class _Header(NamedTuple):
    """What the file of an embedding says of it; ``width`` is that of a state."""

    key: str
    prompt: str
    encoder: str
    width: int


def prompt_key(encoder: str, prompt: str) -> str:
    """Hash of a cleaned prompt for the encoder of this fingerprint."""
    return hashlib.sha256(f"{encoder}\n{prompt}".encode()).hexdigest()


def read_prompt(directory: Path, key: str) -> "Tensor | None":
    """States ``(1, L, D)``, or ``None`` where nobody has encoded the prompt.

    Args:
        directory: Of the checkpoint, whose own embedding comes first.
        key: From ``prompt_key``.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for path in _files_of(directory, key):
        try:
            return load_file(path)[_TENSOR]
        except (SafetensorError, OSError):
            continue
    return None


def has_prompt(directory: Path, key: str) -> bool:
    """Whether ``read_prompt`` would find it; cheap, and without torch."""
    return bool(_files_of(directory, key))


def find_unkeyed(directory: Path, prompt: str, *, width: int) -> str | None:
    """The key of an embedding of this prompt, made by whichever encoder; the newest if several.

    Args:
        directory: Of the checkpoint, which does not know its text encoder.
        prompt: Cleaned.
        width: Of a state.
    """
    kept = sorted(prompts_directory().glob("*.safetensors"), key=_age)
    for path in (directory / f"{PROMPT_PART}.safetensors", *kept):
        header = _header(path)
        if header is not None and (header.prompt, header.width) == (prompt, width):
            return header.key
    return None


def read_embedding(path: Path) -> PromptEmbedding:
    """An embedding that somebody made elsewhere, checked as it stands.

    Raises:
        CheckpointError: ``E-CHECKPOINT-MISSING`` without a file, ``E-CHECKPOINT-DAMAGED`` when it
            is no embedding of a prompt.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist", hint="check the path", code="E-CHECKPOINT-MISSING"
        )
    check_safetensors(path)
    header = _header(path) if path.stat().st_size <= MAX_EMBEDDING_BYTES else None
    if header is not None and header.key == prompt_key(header.encoder, header.prompt):
        try:
            states = load_file(path)[_TENSOR]
        except (SafetensorError, OSError):
            states = torch.zeros(0)
        is_whole = states.ndim == 3 and len(states) == 1 and states.numel() > 0
        if is_whole and states.is_floating_point() and torch.isfinite(states).all():
            return PromptEmbedding(states, header.prompt, header.encoder)
    raise CheckpointError(
        f"{path} is no prompt embedding",
        hint="make one where the text encoder is: joyflash weights prompt PROFILE --output FILE",
        code="E-CHECKPOINT-DAMAGED",
    )


def write_prompt(embedding: PromptEmbedding, path: Path | None = None) -> Path | None:
    """Keeps an embedding; ``None`` where it cannot be written, which is no reason to stop.

    Args:
        embedding: Prompt and encoder are stored beside the states.
        path: A file to write instead of the user's cache.
    """
    key = prompt_key(embedding.encoder, embedding.prompt)
    path = path or prompts_directory() / f"{key}.safetensors"
    metadata = {"key": key, "prompt": embedding.prompt, "encoder": embedding.encoder}
    states = embedding.states.detach().cpu().contiguous()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two runs may encode the same prompt at once: each writes its own file, the last one stays.
        with whole_file(path, mark=uuid.uuid4().hex) as part:
            save_tensors({_TENSOR: states}, part, metadata=metadata)
    except OSError:
        return None
    return path


def _files_of(directory: Path, key: str) -> list[Path]:
    """The files whose own header has this key."""
    kept = prompts_directory() / f"{key}.safetensors"
    found = ((path, _header(path)) for path in (directory / f"{PROMPT_PART}.safetensors", kept))
    return [path for path, header in found if header is not None and header.key == key]


def _header(path: Path) -> _Header | None:
    """A file's own header; ``None`` where it cannot be read or is another one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            said = file.metadata() or {}
            width = int(file.get_slice(_TENSOR).get_shape()[-1])
        return _Header(said["key"], said["prompt"], said["encoder"], width)
    except (SafetensorError, OSError, KeyError, IndexError):
        return None


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0
