"""Resumable state on disk: nested dictionaries of tensors and plain values, without pickle.

One safetensors file; the tree around the tensors travels in its header as JSON. Written beside
its place and moved there, so a kill leaves the old file or the new one.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from joyflash_cli.errors import CheckpointError


def save_tree(path: Path, tree: Any) -> None:
    """Write a tree of dictionaries, lists, tuples, tensors, numbers, strings and ``None``."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    described = json.dumps(_describe(tree, tensors))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    save_file(tensors or {"empty": torch.zeros(0)}, partial, metadata={"tree": described})
    os.replace(partial, path)


def load_tree(path: Path) -> Any:
    """The tree of ``save_tree``; every number comes back with all its bits.

    Raises:
        CheckpointError: If the file is damaged or not such a tree.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            described = json.loads(file.metadata()["tree"])
            return _restore(described, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no saved training state: {error}", hint="train without --resume"
        ) from error


def _describe(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # Tensors that share memory would be refused; a state has few of them.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _describe(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_describe(item, tensors) for item in value]}
    return value


def _restore(described: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(described, dict):
        return described
    ((kind, content),) = described.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _restore(item, tensors) for key, item in content}
    items = [_restore(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
