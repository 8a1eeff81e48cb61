"""Numbers of another implementation of SyncNet, with random weights and inputs made of a seed.

``python tests/measures/syncnet_reference.py`` writes ``tests/data/syncnet.json``. It needs
``pip install --no-deps syncnet-python==0.2.3 python_speech_features==0.6``, whose own requirements
would replace the OpenCV that is installed here; only two of its files are read.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch

RECORDED = Path(__file__).parents[1] / "data/syncnet.json"
SEED = 1
NUM_FRAMES = 26
SHOWN = 12
"""Features of each vector that are recorded."""


def random_state(module: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Weights under which features vary as much as trained ones do."""
    numbers = np.random.default_rng(seed)
    state = {}
    for name, value in sorted(module.state_dict().items()):
        shape = tuple(value.shape)
        if name.endswith("num_batches_tracked"):
            made = np.zeros(shape)
        elif name.endswith("running_var"):
            made = numbers.uniform(0.5, 1.5, shape)
        elif value.dim() > 1:
            made = numbers.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        else:
            made = numbers.normal(0, 0.2, shape)
        state[name] = torch.tensor(made, dtype=value.dtype)
    return state


def random_clip(seed: int, num_frames: int = NUM_FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """Frames ``(F, 224, 224, 3)`` uint8 RGB and 16-bit sound of their length."""
    numbers = np.random.default_rng(seed)
    small = numbers.integers(0, 256, (num_frames, 28, 28, 3), dtype=np.uint8)
    sound = numbers.normal(0, 3000, num_frames * 640) * numbers.uniform(0, 1, num_frames).repeat(
        640
    )
    return small.repeat(8, 1).repeat(8, 2), np.round(sound).clip(-32768, 32767).astype(np.int16)


def other_numbers(seed: int) -> dict[str, list]:
    """What ``syncnet-python`` says; ``ImportError`` without it."""
    import python_speech_features

    layers, protocol = _file("SyncNetModel"), _file("SyncNetInstance")
    network = layers.S().eval()
    network.load_state_dict(random_state(network, seed))
    frames, sound = random_clip(seed)
    coefficients = python_speech_features.mfcc(sound, 16_000)
    seen = torch.tensor(frames[..., ::-1].copy()).permute(3, 0, 1, 2)[None].float()
    heard = torch.tensor(coefficients.T.copy())[None, None].float()
    windows = range(NUM_FRAMES - 5)
    with torch.no_grad():
        lips = torch.cat([network.forward_lip(seen[:, :, t : t + 5]) for t in windows])
        voice = torch.cat([network.forward_aud(heard[..., 4 * t : 4 * t + 20]) for t in windows])
    distances = torch.stack(protocol.calc_pdist(lips, voice, vshift=15)).mean(0)
    return {
        "coefficients": coefficients[:20].tolist(),
        "lips": lips[:, :SHOWN].tolist(),
        "sound": voice[:, :SHOWN].tolist(),
        "distances": distances.tolist(),
        "confidence": float(distances.median() - distances.min()),
        "distance": float(distances.min()),
        "offset_frames": 15 - int(distances.argmin()),
    }


def _file(name: str):
    """One file of the package, without what its ``__init__`` would import."""
    package = importlib.util.find_spec("syncnet_python")
    if package is None:
        raise ImportError("syncnet-python is not installed")
    path = Path(package.submodule_search_locations[0]) / f"{name}.py"
    found = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(other_numbers(SEED)) + "\n")
