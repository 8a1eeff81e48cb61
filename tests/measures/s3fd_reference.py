"""Boxes of the published implementation of S3FD, with random weights and frames made of a seed.

``python tests/measures/s3fd_reference.py CHECKOUT`` writes ``tests/data/s3fd.json``, where CHECKOUT
is one of https://github.com/joonson/syncnet_python; it needs OpenCV.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch

RECORDED = Path(__file__).parents[1] / "data/s3fd.json"
SIZES = ((150, 203), (131, 128))
SURE = 4.0
"""Added to every face's logit, so that some boxes of random weights count."""


def random_state(module: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Weights under which features vary as much as trained ones do."""
    numbers = np.random.default_rng(seed)
    state = {}
    for name, value in sorted(module.state_dict().items()):
        shape = tuple(value.shape)
        if name.startswith("L2Norm"):
            made = numbers.uniform(5, 10, shape)
        elif value.dim() > 1:
            made = numbers.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            made = numbers.normal(0, 0.2, shape)
            if name.startswith("conf"):
                made[-1] += SURE
        state[name] = torch.tensor(made, dtype=torch.float32)
    return state


def random_frame(seed: int, height: int, width: int) -> np.ndarray:
    """``(H, W, 3)`` uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    return small.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)


def published_boxes(checkout: Path, seed: int) -> list:
    """What the checkout's detector finds."""
    np.int = int  # it was written for an older NumPy
    vision = types.ModuleType("torchvision")
    vision.transforms = None
    sys.modules.setdefault("torchvision", vision)
    folder = checkout / "detectors/s3fd"
    spec = importlib.util.spec_from_file_location(
        "s3fd", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["s3fd"] = package
    spec.loader.exec_module(package)
    detector = object.__new__(package.S3FD)
    detector.device, detector.net = "cpu", package.S3FDNet(device="cpu").eval()
    detector.net.load_state_dict(random_state(detector.net, seed))
    frames = [random_frame(seed, *size) for size in SIZES]
    found = [detector.detect_faces(frame, conf_th=0.9, scales=[0.25]) for frame in frames]
    return [boxes[:, :4].round(4).tolist() for boxes in found]


if __name__ == "__main__":
    boxes = {str(seed): published_boxes(Path(sys.argv[1]), seed) for seed in (1, 2)}
    RECORDED.write_text(json.dumps(boxes) + "\n")
