"""The two networks behind ``faces``: one finds faces in a picture, one reads a face's points.

Both are small convolutional networks of this project, trained by ``joyflash train points``.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.media.inputs.face_points import ASSET, NUM_POINTS
from joyflash_cli.small_networks import load_network, save_network


class Unit(nn.Module):
    """Convolution, normalisation and ReLU; without the normalisation once it has been folded in."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1, kernel: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2)
        self.norm: nn.Module = nn.BatchNorm2d(channels_out, momentum=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, channels_out, H / stride, W / stride)``."""
        return functional.relu(self.norm(self.conv(x)), inplace=True)

    def fold(self) -> None:
        """Put the normalisation into the convolution's weights."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = torch.nn.utils.fusion.fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


def fold(network: nn.Module) -> nn.Module:
    """The network in evaluation mode with its normalisations folded into its convolutions."""
    for unit in network.eval().modules():
        if isinstance(unit, Unit):
            unit.fold()
    return network


class Residual(nn.Module):
    """Two units beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = Unit(channels, channels), Unit(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` of the same size."""
        return x + self.second(self.first(x))


class FaceFinder(nn.Module):
    """Where faces are, how large and how rolled: six numbers for every eighth pixel.

    They are: logit of a face; offset (x, y) of the point midway between eyes and mouth, in
    strides; logarithm of the distance from eyes to mouth in strides; cosine and sine of the roll.
    About 240,000 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(Unit(3, 16, stride=2), Unit(16, 32, stride=2))
        self.middle = nn.Sequential(Unit(32, 48, stride=2), Residual(48))
        self.coarse = nn.Sequential(Unit(48, 64, stride=2), Residual(64), Residual(64))
        self.up = Unit(64, 48, kernel=1)
        self.head = nn.Sequential(Unit(48, 48), nn.Conv2d(48, 6, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """``(B, 6, H / 8, W / 8)`` of pictures ``(B, 3, H, W)`` in -1..1; H, W multiples of 16."""
        middle = self.middle(self.fine(pictures))
        coarse = self.up(self.coarse(middle))
        return self.head(middle + functional.interpolate(coarse, scale_factor=2.0))


@dataclass(frozen=True)
class Reading:
    """What the points network says of a batch of crops.

    Attributes:
        points: ``(B, P, 2)`` x, y as fractions of the crop's side.
        logits: ``(B, 3)`` of: this is a face; its mouth is seen; it is turned towards us.
        spread: ``(B, P)`` standard deviation of every point's map, as a fraction of the side.
    """

    points: Tensor
    logits: Tensor
    spread: Tensor


class PointsNetwork(nn.Module):
    """Points of a face from a crop that shows it upright; about 580,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(Unit(3, 16, stride=2), Unit(16, 32, stride=2), Unit(32, 32))
        self.middle = nn.Sequential(Unit(32, 64, stride=2), Residual(64))
        self.coarse = nn.Sequential(Unit(64, 96, stride=2), Residual(96))
        self.deep = nn.Sequential(Unit(96, 96, stride=2), Unit(96, 96))
        self.deep_up = Unit(96, 96, kernel=1)
        self.coarse_up = Unit(96, 64, kernel=1)
        self.mix = Unit(64, 80)
        self.maps = nn.Conv2d(80, NUM_POINTS, 1)
        self.twice_as_large = nn.Upsample(scale_factor=2.0, mode="bilinear")
        self.judge = nn.Sequential(nn.Linear(96 + 80, 64), nn.ReLU(), nn.Linear(64, 3))

    def forward(self, crops: Tensor) -> Reading:
        """What is seen on crops ``(B, 3, 128, 128)`` in -1..1."""
        middle = self.middle(self.fine(crops))
        coarse = self.coarse(middle)
        deep = self.deep(coarse)
        coarse = coarse + self.twice_as_large(self.deep_up(deep))
        middle = self.mix(middle + self.twice_as_large(self.coarse_up(coarse)))
        points, spread = _read_maps(self.maps(middle).float())
        seen = torch.cat([deep.mean((2, 3)), middle.mean((2, 3))], 1)
        return Reading(points, self.judge(seen).float(), spread)


def _read_maps(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean place and spread of maps ``(B, P, h, w)`` of logits, as fractions of the side."""
    chances = maps.flatten(2).softmax(-1)
    axes = [(torch.arange(n, device=maps.device).float() + 0.5) / n for n in maps.shape[2:]]
    rows, columns = (values.flatten() for values in torch.meshgrid(*axes, indexing="ij"))
    grid = torch.stack([columns, rows, columns**2 + rows**2], -1)
    moments = chances @ grid
    points = moments[..., :2]
    spread = (moments[..., 2] - points.square().sum(-1)).clamp(min=1e-8).sqrt()
    return points, spread


class FaceNetworks(nn.Module):
    """Both networks: one finds faces, one reads their points."""

    def __init__(self, finder: FaceFinder, points: PointsNetwork) -> None:
        super().__init__()
        self.finder, self.points = finder, points


@functools.cache
def load_face_networks(path: Path | None = None) -> FaceNetworks:
    """The networks that ship with the package, or those of another file; loaded once.

    Raises:
        CheckpointError: If the file is missing or of another layout.
    """
    networks = FaceNetworks(FaceFinder(), PointsNetwork())
    load_network(fold(networks), ASSET, path, what="face networks")
    networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return networks


def save_face_networks(networks: FaceNetworks, path: Path) -> None:
    """Write both networks, folded, as one float16 safetensors file."""
    save_network(fold(networks), path)
