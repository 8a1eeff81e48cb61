"""Transformers over many processes with torch's own engine: FSDP2 and recomputed activations.

Every layer is one group of parameters that is gathered when it is needed. Cross-attention is a
group of its own, because a stream projects its static keys and values outside of the layer.
The arithmetic is that of one process: parameters stay float32 and autocast does the rest.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from joyflash_cli.errors import CheckpointError
from joyflash_cli.model.attention import CrossAttention, StaticKeysValues
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer, TransformerOutput
from joyflash_cli.model.transformer_layer import TransformerLayer
from joyflash_cli.studio.training.session import Processes


def recompute_layers(transformer: CausalTransformer) -> None:
    """Keep only the input of each layer for the backward pass and compute the rest anew."""
    for layer in transformer.layers:
        if not isinstance(layer.forward, functools.partial):
            layer.forward = functools.partial(_recomputed, layer.forward)


def _recomputed(forward: Callable, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # No random numbers are drawn in a layer.
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def shard_transformer(transformer: CausalTransformer, processes: Processes) -> None:
    """Spread the parameters over the processes in place; nothing happens with one process."""
    if processes.mesh is None:
        return
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for kind in (StaticKeysValues, TransformerOutput):  # so that FSDP finds the tensors in them
        with contextlib.suppress(ValueError):  # known already
            torch.export.register_dataclass(kind)
    shard = functools.partial(fully_shard, mesh=processes.mesh)
    for layer in transformer.layers:
        attention = layer.cross_attention if isinstance(layer, TransformerLayer) else None
        if isinstance(attention, CrossAttention):
            shard(attention)
            register_fsdp_forward_method(attention, "project_static")
        shard(layer)
    shard(transformer)
    register_fsdp_forward_method(transformer, "project_static")


def release(network: nn.Module) -> None:
    """Give back what the passes of a sharded network have gathered.

    The outermost parameters stay gathered after a pass until a backward pass follows. Where none
    does and the parameters change before the next pass (an average that is shown now and then),
    they would be seen as they were.
    """
    from torch.distributed.fsdp import FSDPModule

    if isinstance(network, FSDPModule):
        network.reshard()


def load_frozen(
    config: TransformerConfig,
    paths: Path | Sequence[Path],
    processes: Processes,
    *,
    dtype: torch.dtype,
) -> CausalTransformer:
    """A transformer that is only read, e.g. the real score, in a dtype of its own.

    With several processes each reads its own rows of every tensor only, so that no process ever
    holds a large teacher as a whole.

    Raises:
        CheckpointError: If the file is missing or its tensors do not fit.
    """
    with torch.device("meta"):
        model = CausalTransformer(config).to(dtype)
    model.requires_grad_(False)
    shard_transformer(model, processes)
    model.to_empty(device=processes.device)
    load_weights(model, paths)
    return model.eval()


@torch.no_grad()
def load_weights(module: nn.Module, paths: Path | Sequence[Path]) -> None:
    """Fill parameters and buffers, sharded or whole, from safetensors files.

    Numbers of another precision are converted.

    Raises:
        CheckpointError: If a file is missing or its tensors do not fit.
    """
    from safetensors import SafetensorError, safe_open

    paths = [paths] if isinstance(paths, Path) else list(paths)
    targets, missing = module.state_dict(), set(module.state_dict())
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - the file is no mapping
                    if name not in targets:
                        raise _misfit(f"{path} holds {name!r}, which the transformer lacks")
                    _copy_rows(file, name, targets[name], path)
                    missing.discard(name)
        except (OSError, SafetensorError) as error:
            raise _misfit(f"{path} cannot be read: {error}") from error
    if missing:
        raise _misfit(f"{paths[0]} lacks {len(missing)} tensors, e.g. {min(missing)!r}")


def _misfit(message: str) -> CheckpointError:
    return CheckpointError(
        message, hint="run the stage before it, or name another file under [weights]"
    )


def _copy_rows(file: Any, name: str, target: Tensor, path: Path) -> None:
    rows = file.get_slice(name)
    shape, wanted = tuple(rows.get_shape()), tuple(target.shape)
    if shape != wanted:
        raise _misfit(f"{path}: {name} has shape {shape}; {wanted} is needed")
    local = local_part(target)
    if local.shape == target.shape:
        local.copy_(file.get_tensor(name))
    elif len(local):
        mesh = target.device_mesh  # type: ignore[attr-defined]
        # FSDP cuts rows as ``torch.chunk`` does.
        first = mesh.get_local_rank() * -(-target.shape[0] // mesh.size())
        local.copy_(rows[first : first + len(local)])


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of the tensor."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All rows, gathered where they are sharded; every process has to call it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def local_part(tensor: Tensor) -> Tensor:
    """The rows that this process holds; the tensor itself where it is not sharded."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers as whole tensors on the CPU; every process has to call it."""
    return {k: whole(x).detach().cpu().contiguous() for k, x in module.state_dict().items()}
