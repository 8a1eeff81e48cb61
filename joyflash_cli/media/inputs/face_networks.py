"""The two networks behind ``faces``: one finds faces in a picture, one reads a face's points.

Both are small convolutional networks of this project, trained by ``joyflash train points``. Sizes
below are part of the weights.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.media.inputs.face_points import NUM_POINTS
from joyflash_cli.small_networks import load_networks, save_networks

FINDER_STRIDE = 8
"""Pixels between two places at which the finder looks for a face."""

FINDER_REACH_PX = (6.0, 32.0)
"""Distances from eyes to mouth that the finder sees; larger faces need a smaller picture."""

CROP_PX = 128
CROP_EYES_TO_MOUTH = 0.27
"""Side of the crop whose points are read; from eyes to mouth in it, as a fraction of the side."""

ASSET = "assets/points/points.safetensors"


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
    network.eval()
    for unit in network.modules():
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
        self.judge = nn.Sequential(nn.Linear(96 + 80, 64), nn.ReLU(), nn.Linear(64, 3))

    def forward(self, crops: Tensor) -> Reading:
        """What is seen on crops ``(B, 3, 128, 128)`` in -1..1."""
        middle = self.middle(self.fine(crops))
        coarse = self.coarse(middle)
        deep = self.deep(coarse)
        coarse = coarse + _doubled(self.deep_up(deep))
        middle = self.mix(middle + _doubled(self.coarse_up(coarse)))
        points, spread = _read_maps(self.maps(middle).float())
        seen = torch.cat([deep.mean((2, 3)), middle.mean((2, 3))], 1)
        return Reading(points, self.judge(seen).float(), spread)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear")


def _read_maps(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean place and spread of maps ``(B, P, h, w)`` of logits, as fractions of the side."""
    chances = maps.flatten(2).softmax(-1)
    height, width = maps.shape[2:]
    rows = _axis(height, maps.device).repeat_interleave(width)
    columns = _axis(width, maps.device).repeat(height)
    grid = torch.stack([columns, rows, columns**2 + rows**2], -1)
    moments = chances @ grid
    points = moments[..., :2]
    spread = (moments[..., 2] - points.square().sum(-1)).clamp(min=1e-8).sqrt()
    return points, spread


def _axis(length: int, device: torch.device) -> Tensor:
    return (torch.arange(length, device=device, dtype=torch.float32) + 0.5) / length


@dataclass(frozen=True)
class FaceNetworks:
    """Both networks, ready to be asked.

    Attributes:
        finder: Finds faces.
        points: Reads points.
    """

    finder: FaceFinder
    points: PointsNetwork


def load_face_networks(path: Path | None = None) -> FaceNetworks:
    """The networks that ship with the package, or those of another file.

    Raises:
        CheckpointError: If the file is missing or of another layout.
    """
    networks = FaceNetworks(FaceFinder(), PointsNetwork())
    named = _named(networks)
    for network in named.values():
        fold(network)
    load_networks(named, ASSET, path, what="face networks")
    for network in named.values():
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return networks


def save_face_networks(networks: FaceNetworks, path: Path) -> None:
    """Write both networks, folded, as one float16 safetensors file."""
    save_networks({name: fold(network) for name, network in _named(networks).items()}, path)


def _named(networks: FaceNetworks) -> dict[str, nn.Module]:
    return {"finder": networks.finder, "points": networks.points}
