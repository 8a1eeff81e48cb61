"""Weights as whole numbers of eight bits: half of float16, off by 1/254 of an output's largest.

A weight ``name`` is stored as int8 beside ``name.int8_scale``, one float for each output. Loading
gives floats again, so nothing that runs knows of it.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SCALE_SUFFIX = ".int8_scale"
LARGEST = 127
MIN_NUMBERS = 2048
"""Smaller tensors stay floats: norms and biases weigh nothing and are felt most."""


def as_eight_bit(tensors: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The same tensors with every large floating-point matrix as int8 beside its scales."""
    import torch

    stored: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        if value.ndim < 2 or value.numel() < MIN_NUMBERS or not value.is_floating_point():
            stored[name] = value
            continue
        rows = value.detach().float().flatten(1)
        scale = rows.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / LARGEST
        rounded = (rows / scale[:, None]).round().to(torch.int8)
        stored[name] = rounded.reshape(value.shape).contiguous()
        stored[name + SCALE_SUFFIX] = scale
    return stored


def from_eight_bit(value: "torch.Tensor", scale: "torch.Tensor") -> "torch.Tensor":
    """Floats ``(O, ...)`` of whole numbers and one scale for each of the O outputs.

    Raises:
        ValueError: If there are not as many scales as outputs.
    """
    if tuple(scale.shape) != tuple(value.shape[:1]):
        raise ValueError(f"{tuple(scale.shape)} scales for a weight of {tuple(value.shape)}")
    return value.float() * scale.float().reshape(-1, *[1] * (value.ndim - 1))


def without_scales(
    names: Iterable[str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The shapes of a file without the scales of these weights."""
    scales = {name + SCALE_SUFFIX for name in names}
    return {name: shape for name, shape in shapes.items() if name not in scales}
