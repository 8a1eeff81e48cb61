"""Small networks that ship inside the package: several in one safetensors file of float16."""

import functools
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn


def load_networks(
    networks: "Mapping[str, nn.Module]", asset: str, path: Path | None, *, what: str
) -> None:
    """Fills networks with the weights of one file.

    Args:
        networks: Each by what the names of its tensors begin with, before a point.
        asset: The file that ships, below the package.
        path: Another file in its place.
        what: What they are called in a message.

    Raises:
        CheckpointError: If the file is missing or of another layout.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    source = files("joyflash_cli") / asset if path is None else path
    try:
        state = {name: value.float() for name, value in load(source.read_bytes()).items()}
        for start, network in networks.items():
            prefix = f"{start}."
            own = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
            network.load_state_dict(own)
            network.eval()
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"The {what} in {source} cannot be loaded.",
            hint="restore the file or reinstall joyflash",
        ) from error


@functools.cache
def asset_sha256(asset: str) -> str:
    """SHA-256 of a file that ships, lower-case hexadecimal."""
    return hashlib.sha256((files("joyflash_cli") / asset).read_bytes()).hexdigest()


def save_networks(networks: "Mapping[str, nn.Module]", path: Path) -> None:
    """Writes networks as one float16 file, its folder made; see :func:`load_networks`."""
    from safetensors.torch import save_file

    state = {
        f"{start}.{name}": value.half().contiguous()
        for start, network in networks.items()
        for name, value in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
