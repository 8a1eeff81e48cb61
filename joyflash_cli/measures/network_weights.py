"""SyncNet's and S3FD's weights on this machine: brought once by the user, read as safetensors.

The published files are pickles on no hub. Each is compared with the size and the SHA-256 of
``weights.toml``, opened for tensors alone, checked against its network's layers and kept beside
the converted checkpoints.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.integrity import (
    check_format,
    check_safetensors,
    hash_file,
    read_checksums,
)
from joyflash_cli.weights.manifest import WeightFile
from joyflash_cli.weights.places import converted_directory
from joyflash_cli.weights.publishing import published_directory

if TYPE_CHECKING:
    from torch import Tensor, nn

Role = Literal["syncnet", "s3fd"]

PROFILE = "measures"
PUBLISHED: Mapping[str, str] = {"syncnet": "syncnet_v2.model", "s3fd": "sfd_face.pth"}
"""Role to the name under which its authors publish it."""

_COUNTER = ".num_batches_tracked"
"""Of training alone; files from before PyTorch 0.4.1 lack them."""


def fetch_command(role: str) -> str:
    """The command that brings the weights of a role."""
    return f"joyflash weights fetch {PROFILE} --role {role} --from {PUBLISHED[role]}"


def weights_path(role: str) -> Path:
    """Where the weights are kept, whether or not they are there."""
    return converted_directory(PROFILE) / f"{role}.safetensors"


def bring_weights(source: Path, file: WeightFile) -> Path:
    """Keeps published weights as safetensors.

    Args:
        source: The published file.
        file: Its entry in ``weights.toml``, of a role of ``PUBLISHED``.

    Returns:
        The path of the safetensors file.

    Raises:
        CheckpointError: ``E-WEIGHTS-SIZE`` or ``E-WEIGHTS-HASH`` for another file than the
            published one; ``E-CHECKPOINT-...`` when it is damaged, holds more than tensors, or
            those of another network.
        OutputError: When the result cannot be written.
    """
    from joyflash_cli.weights.convert_pickles import load_old_pickle
    from joyflash_cli.weights.fetch_plan import PlannedFile, check_copy
    from joyflash_cli.weights.lock_file import read_lock, record_download
    from joyflash_cli.weights.places import lock_path
    from joyflash_cli.weights.tensors import save_tensors

    check_format(source, file.format)
    lock = read_lock(lock_path())
    planned = PlannedFile(file, "", lock.size(file, ""), lock.sha256(file, ""), "check", source)
    sha256 = check_copy(planned, source, lambda _: None)
    state = _as_needed(load_old_pickle(source), source, file.role)
    target = weights_path(file.role)
    with published_directory(target.parent, overwrite=True) as staging:
        for other in set(PUBLISHED) - {file.role}:
            kept = weights_path(other)
            if kept.is_file():
                shutil.copyfile(kept, staging / kept.name)
        save_tensors(state, staging / target.name, metadata={"source_sha256": sha256})
    if not file.sha256:
        record_download(lock_path(), file, "", source, sha256)
    return target


def load_network(role: Role, path: Path | None = None) -> "nn.Module":
    """A network with trained weights, in evaluation mode.

    Args:
        role: Which one.
        path: Another safetensors file of the same layers; what the user brought if ``None``.

    Raises:
        CheckpointError: ``E-CHECKPOINT-MISSING`` with the command that brings them, or
            ``E-CHECKPOINT-DAMAGED`` or ``E-CHECKPOINT-LAYOUT`` for what is there.
    """
    from joyflash_cli.weights.tensors import read_tensors

    own = weights_path(role)
    source = own if path is None else path
    if not source.is_file():
        raise CheckpointError(
            f"{source} is not on this machine",
            hint=fetch_command(role),
            code="E-CHECKPOINT-MISSING",
        )
    check_safetensors(source)
    stated = read_checksums(own.parent).get(own.name) if source == own else None
    if stated is not None and hash_file(own) != stated["sha256"]:
        raise CheckpointError(
            f"{own} has changed since it was brought",
            hint=fetch_command(role),
            code="E-CHECKPOINT-DAMAGED",
        )
    network = _empty(role)
    network.load_state_dict(_as_needed(read_tensors([source]), source, role), strict=False)
    return network.eval().requires_grad_(False)


def _empty(role: str) -> "nn.Module":
    if role == "syncnet":
        from joyflash_cli.measures.syncnet import SyncNet

        return SyncNet()
    from joyflash_cli.measures.s3fd import S3FD

    return S3FD()


def _as_needed(state: "Mapping[str, Tensor]", source: Path, role: str) -> "dict[str, Tensor]":
    """The tensors of the network in float32, or an error that names what is wrong."""
    import torch

    from joyflash_cli.weights.convert_plan import check_outputs, take

    with torch.device("meta"):
        network = _empty(role)
    needed = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.endswith(_COUNTER)
    }
    given = {name: value for name, value in state.items() if not name.endswith(_COUNTER)}
    try:
        check_outputs(
            [take(name, name, tuple(value.shape)) for name, value in given.items()], needed
        )
    except CheckpointError as error:
        raise CheckpointError(
            f"{source} is not {type(network).__name__}: {error.message}",
            hint=f"give {PUBLISHED[role]} as its authors published it",
            code=error.code,
        ) from error
    return {name: given[name].float().contiguous().clone() for name in needed}
