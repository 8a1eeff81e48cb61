"""A trained audio front end on disk, before it becomes a part of a checkpoint."""

import json
from dataclasses import asdict
from pathlib import Path

from joyflash_cli.encoders.front_end import FrontEnd
from joyflash_cli.encoders.protocol import FrontEndConfig
from joyflash_cli.errors import CheckpointError


def save_front_end(model: FrontEnd, path: Path) -> None:
    """Write the weights (``.safetensors``) and beside them the sizes (``.json``)."""
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    path.with_suffix(".json").write_text(json.dumps(asdict(model.config), indent=2) + "\n")


def load_front_end(path: Path | str) -> FrontEnd:
    """Read a front end in evaluation mode.

    Args:
        path: The ``.safetensors`` file; its sizes lie beside it in a ``.json`` file.

    Raises:
        CheckpointError: A file is missing or does not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    try:
        model = FrontEnd(FrontEndConfig(**json.loads(path.with_suffix(".json").read_text())))
        model.load_state_dict(load_file(path))
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is no audio front end: {error}", hint="train or fetch it again"
        ) from error
    return model.eval()
