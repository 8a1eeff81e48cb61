"""S3FD (Zhang et al., 2017), which finds the faces of the published SyncNet protocol.

The network has the published layers under their published names, so that its published weights
fit. It sees a frame at a quarter of its size; of what it finds, boxes that it is surer of than 0.9
count.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.measures.sync_crops import overlap_of

SHRINK = 4
MIN_SCORE = 0.9
OVERLAPS = (0.3, 0.1)
"""Intersections over union above which the less sure box goes: within the network, then after."""

_STRIDES = (4, 8, 16, 32, 64, 128)
_ANCHOR_STRIDES = 4
"""Side of a place's own box over the places' distance."""

LEAST_PX = 32
"""Side of the small picture below which there is no face of the protocol's size, nor anything left
for the network's last layers."""

_MEAN_RGB = (123.0, 117.0, 104.0)
_VARIANCES = (0.1, 0.2)
_TRUNK = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""Channels of the convolutions of VGG-16; 0 halves the picture."""

_ROUNDED_UP = 16
"""Of the layers that halve it, the one that keeps an odd last row or column."""

_SEEN = {15: "L2Norm3_3", 22: "L2Norm4_3", 29: "L2Norm5_3", 34: ""}
"""Layers whose output is looked at, each with its normalisation."""


class _Scaled(nn.Module):
    """Every place's features at length one, times a weight a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` of the same shape."""
        length = x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10
        return x / length * self.weight[:, None, None]


class S3FD(nn.Module):
    """Boxes and scores of faces; modules are called as in the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.vgg = nn.ModuleList(_trunk())
        self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3 = _Scaled(256), _Scaled(512), _Scaled(512)
        self.extras = nn.ModuleList(
            [
                nn.Conv2d(1024, 256, 1),
                nn.Conv2d(256, 512, 3, 2, 1),
                nn.Conv2d(512, 128, 1),
                nn.Conv2d(128, 256, 3, 2, 1),
            ]
        )
        seen = (256, 512, 512, 1024, 512, 256)
        self.loc = nn.ModuleList([nn.Conv2d(channels, 4, 3, 1, 1) for channels in seen])
        kinds = (4, 2, 2, 2, 2, 2)  # where places are dense, three ways to be no face
        self.conf = nn.ModuleList(
            [nn.Conv2d(channels, n, 3, 1, 1) for channels, n in zip(seen, kinds, strict=True)]
        )

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes ``(B, n, 4)`` left, top, right, bottom in pixels, and scores ``(B, n)`` in 0..1.

        Args:
            pictures: ``(B, 3, H, W)`` float, red first, less the mean colour.
        """
        boxes, scores = [], []
        for index, seen in enumerate(self._looks(pictures)):
            logits = self.conf[index](seen)
            no_face, face = logits[:, :-1].amax(1), logits[:, -1]
            scores.append((face - no_face).sigmoid().flatten(1))
            boxes.append(_boxes(self.loc[index](seen), _STRIDES[index]))
        return torch.cat(boxes, 1), torch.cat(scores, 1)

    def _looks(self, x: Tensor) -> list[Tensor]:
        """What the six heads see, ``(B, C, H / stride, W / stride)`` each."""
        looks = []
        for index, layer in enumerate(self.vgg):
            x = layer(x)
            if index in _SEEN:
                name = _SEEN[index]
                looks.append(getattr(self, name)(x) if name else x)
        for index, layer in enumerate(self.extras):
            x = functional.relu(layer(x))
            if index % 2:
                looks.append(x)
        return looks


def _trunk() -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for wanted in _TRUNK:
        if not wanted:
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=len(layers) == _ROUNDED_UP))
            continue
        layers += [nn.Conv2d(channels, wanted, 3, 1, 1), nn.ReLU()]
        channels = wanted
    layers += [nn.Conv2d(channels, 1024, 3, 1, 6, dilation=6), nn.ReLU()]
    return [*layers, nn.Conv2d(1024, 1024, 1), nn.ReLU()]


def _boxes(offsets: Tensor, stride: int) -> Tensor:
    """Boxes ``(B, H W, 4)`` of a head's offsets ``(B, 4, H, W)`` from the places' own boxes."""
    rows, columns = (torch.arange(n, device=offsets.device) + 0.5 for n in offsets.shape[-2:])
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy")) * stride
    side = float(stride * _ANCHOR_STRIDES)
    middle = places + offsets[:, :2] * _VARIANCES[0] * side
    half = (offsets[:, 2:] * _VARIANCES[1]).exp() * side / 2
    return torch.cat([middle - half, middle + half], 1).flatten(2).transpose(1, 2)


@torch.inference_mode()
def find_boxes(network: S3FD, frame: np.ndarray) -> np.ndarray:
    """The faces of a frame ``(n, 4)`` left, top, right, bottom in its pixels, the surest first.

    Args:
        network: With trained weights, in evaluation mode.
        frame: ``(H, W, 3)`` uint8 RGB.
    """
    small = quartered(frame).astype(np.float32) - np.array(_MEAN_RGB, np.float32)
    if min(small.shape[:2]) < LEAST_PX:
        return np.zeros((0, 4))
    boxes, scores = network(torch.from_numpy(small).permute(2, 0, 1)[None])
    found, sure = boxes[0].double().numpy(), scores[0].numpy()
    order = np.flatnonzero(sure > MIN_SCORE)
    order = order[np.argsort(-sure[order], kind="stable")]
    # Boxes are fractions of the small picture, whose sides may be rounded.
    found = found[order] * np.tile(np.divide(frame.shape[1::-1], small.shape[1::-1]), 2)
    for overlap in OVERLAPS:
        kept: list[np.ndarray] = []
        for box in found:
            if all(overlap_of(box, surer) <= overlap for surer in kept):
                kept.append(box)
        found = np.array(kept).reshape(-1, 4)
    return found


def quartered(frame: np.ndarray) -> np.ndarray:
    """A frame ``(H, W, 3)`` uint8 at a quarter of its size, bilinear without antialiasing."""
    # The two rows or columns between which the middle of each group of four lies.
    rows, columns = (
        (SHRINK * np.arange(max(1, round(length / SHRINK)))[:, None] + [1, 2]).clip(max=length - 1)
        for length in frame.shape[:2]
    )
    total = frame[rows][:, :, columns].astype(np.uint16).sum((1, 3))
    return ((total + 2) // SHRINK).astype(np.uint8)
