"""Resumable state on disk: nested dictionaries of tensors and plain values, without pickle.

A state is a folder with one safetensors file per process; the tree around the tensors travels in
the file's header as JSON. ``state.json`` names the newest complete folder and is replaced last,
so a kill at any moment leaves the old state or the new one. A sharded tensor is stored as the
rows of its process and can be put together again for another number of processes.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from joyflash_cli.errors import CheckpointError
from joyflash_cli.files import write_whole
from joyflash_cli.studio.training.session import Processes
from joyflash_cli.studio.training.sharding import is_sharded, local_part
from joyflash_cli.studio.training.tensors import write_tensors

POINTER = "state.json"


def save_state(directory: Path, tree: Any, *, step: int, processes: Processes) -> None:
    """Write a state and make it the newest one; every process has to call it.

    Raises:
        OSError: If it cannot be written; the state before it stays the newest.
    """
    folder = directory / f"state-{step:08d}"
    pointer = directory / POINTER
    about = json.dumps({"folder": folder.name, "processes": processes.world_size})
    try:
        save_tree(folder / f"{processes.rank:05d}.safetensors", tree)
        processes.wait()
        if processes.is_first:
            write_whole(pointer, about)
    except OSError:
        # The room goes to whatever is written next; the state before this one is untouched.
        if not (pointer.exists() and pointer.read_text() == about):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if processes.is_first:
        for other in directory.glob("state-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
    processes.wait()


def load_state(directory: Path, processes: Processes) -> Any | None:
    """The newest state of a run, ``None`` where there is none.

    Saved by the same number of processes, sharded tensors come back as they were; otherwise as
    whole tensors, which ``place_like`` shares out.

    Raises:
        CheckpointError: If the state is damaged.
    """
    pointer = directory / POINTER
    if not pointer.exists():
        return None
    try:
        about = json.loads(pointer.read_text())
        folder, count = directory / about["folder"], int(about["processes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(pointer, error) from error
    paths = [folder / f"{rank:05d}.safetensors" for rank in range(count)]
    if count == processes.world_size:
        return load_tree([paths[processes.rank]], processes)
    return load_tree(paths, processes)


def save_tree(path: Path, tree: Any) -> None:
    """Write a tree to one file; of sharded tensors the rows of this process."""
    tensors: dict[str, Tensor] = {}
    described = json.dumps(_describe(tree, tensors))
    write_tensors(path, tensors or {"empty": torch.zeros(0)}, metadata={"tree": described})


def load_tree(paths: Path | Sequence[Path], processes: Processes | None = None) -> Any:
    """The tree of ``save_tree``; every number comes back with all its bits.

    Args:
        paths: The file of this process, or the files of all processes in order of rank.
        processes: Where sharded tensors belong; not needed for a tree without.

    Raises:
        CheckpointError: If a file is damaged or not such a tree.
    """
    from safetensors import SafetensorError, safe_open

    paths = [paths] if isinstance(paths, Path) else list(paths)
    path = paths[0]
    try:
        described, files = None, []
        for path in paths:
            with safe_open(path, framework="pt") as file:
                described = described or json.loads(file.metadata()["tree"])
                files.append({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        return _restore(described, files, processes)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def place_like(value: Tensor, target: Tensor) -> Tensor:
    """A whole tensor shared out as ``target`` is; anything else as it was."""
    if not is_sharded(target) or is_sharded(value) or value.shape != target.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = target.device_mesh, target.placements  # type: ignore[attr-defined]
    return distribute_tensor(value.to(target.device), mesh, placements, src_data_rank=None)


def load_module_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """``load_state_dict`` for whole or sharded tensors."""
    targets = module.state_dict()
    module.load_state_dict(
        {name: place_like(value, targets[name]) for name, value in state.items()}
    )


def load_optimiser_state(optimiser: torch.optim.Optimizer, state: dict) -> None:
    """``load_state_dict`` of an optimiser, for whole or sharded moments."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    moments = {
        index: {
            name: place_like(value, parameters[index]) if isinstance(value, Tensor) else value
            for name, value in entry.items()
        }
        for index, entry in state["state"].items()
    }
    optimiser.load_state_dict({"state": moments, "param_groups": state["param_groups"]})


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} is no saved training state: {error}", hint="train without --resume"
    )


def _describe(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # Tensors that share memory would be refused; a state has few of them.
        tensors[name] = local_part(value.detach()).cpu().contiguous().clone()
        if is_sharded(value):
            return {"rows": [name, list(value.shape)]}
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _describe(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_describe(item, tensors) for item in value]}
    return value


def _restore(described: Any, files: list[dict[str, Tensor]], processes: Processes | None) -> Any:
    if not isinstance(described, dict):
        return described
    ((kind, content),) = described.items()
    if kind == "tensor":
        return files[0][content]
    if kind == "rows":
        name, shape = content
        if len(files) > 1 or processes is None or processes.mesh is None:
            return torch.cat([file[name] for file in files]).view(shape)
        from torch.distributed.tensor import DTensor, Shard

        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            files[0][name].to(processes.device), processes.mesh, [Shard(0)],
            shape=torch.Size(shape), stride=stride, run_check=False,
        )  # fmt: skip
    if kind == "dict":
        return {key: _restore(item, files, processes) for key, item in content}
    items = [_restore(item, files, processes) for item in content]
    return items if kind == "list" else tuple(items)
