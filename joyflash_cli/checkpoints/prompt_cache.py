"""Prompt embeddings on disk, by hash: the text encoder is needed once per prompt, or never.

An embedding belongs to an encoder and a cleaned prompt. It is looked for in the checkpoint itself,
which may bring the one of its default prompt instead of an encoder four times its size, and then in
the user's cache.
"""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.checkpoints.places import prompts_directory

if TYPE_CHECKING:
    from torch import Tensor

PROMPT_PART = "prompt_embedding"
_TENSOR = "states"


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
    from safetensors.torch import save_file

    path = path or _cached(key, cache)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two runs may encode the same prompt at once: each writes its own file, the last one stays.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        os.close(descriptor)
        save_file(
            {_TENSOR: states.detach().cpu().contiguous()},
            temporary,
            metadata={"key": key, "prompt": prompt, "encoder": encoder},
        )
        Path(temporary).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(temporary).unlink(missing_ok=True)
        return None
    return path


def _candidates(directory: Path, key: str, cache: Path | None) -> list[Path]:
    paths = (directory / f"{PROMPT_PART}.safetensors", _cached(key, cache))
    return [path for path in paths if path.is_file()]


def _cached(key: str, cache: Path | None) -> Path:
    return (cache or prompts_directory()) / f"{key}.safetensors"


def _stated_key(path: Path) -> str:
    """The key in a file's own header; empty where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("key", "")
    except (SafetensorError, OSError):
        return ""


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
