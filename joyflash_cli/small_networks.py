"""Small networks that ship inside the package: a safetensors file of float16 each."""

import functools
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn


def load_network(network: "nn.Module", asset: str, path: Path | None, *, what: str) -> None:
    """Fills a network, which may consist of several, and puts it into evaluation mode.

    Args:
        network: Its state dict has the names of the file.
        asset: The file that ships, below the package.
        path: Another file in its place.
        what: What it is called in a message.

    Raises:
        CheckpointError: If the file is missing or of another layout.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    source = files("joyflash_cli") / asset if path is None else path
    try:
        state = load(source.read_bytes())
        network.load_state_dict({name: value.float() for name, value in state.items()})
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"The {what} in {source} cannot be loaded.",
            hint="restore the file or reinstall joyflash",
        ) from error
    network.eval()


@functools.cache
def asset_sha256(asset: str) -> str:
    """SHA-256 of a file that ships, lower-case hexadecimal."""
    return hashlib.sha256((files("joyflash_cli") / asset).read_bytes()).hexdigest()


def save_network(network: "nn.Module", path: Path) -> None:
    """Writes a network as one float16 file, its folder made; see :func:`load_network`."""
    from safetensors.torch import save_file

    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
