"""wav2vec2's convolutions over long sound, a few seconds at a time.

The whole stack at once needs 6.5 MB per second of sound and layer. Every feature depends on 25 ms
of sound, and on nothing else but the first layer's norm, whose statistics run over all of it: these
are taken first. Up to rounding the features are those of one call.
"""

from typing import Any

import torch
from torch import Tensor, nn

from joyflash_cli.types import finest_dtype

PIECE_FEATURES = 500
"""Features computed at once: ten seconds of sound."""


def convolution_features(extractor: Any, samples: Tensor, *, piece: int = PIECE_FEATURES) -> Tensor:
    """Output ``(1, C, n)`` of a wav2vec2 feature extractor for samples ``(1, S)``.

    Args:
        extractor: transformers' ``Wav2Vec2FeatureEncoder``.
        samples: Standardised sound.
        piece: Features at once; sound that is shorter takes the library's own way.
    """
    layers = list(extractor.conv_layers)
    lengths = _lengths(layers, samples.shape[1])
    if lengths[-1] <= piece:
        return extractor(samples)
    statistics = _first_norm(layers[0], samples, lengths[0], piece)
    parts = []
    for start in range(0, lengths[-1], piece):
        stop = min(start + piece, lengths[-1])
        first, last = _needed_samples(layers, start, stop)
        hidden = samples[:, None, first:last]
        for index, layer in enumerate(layers):
            if index == 0 and statistics is not None:
                hidden = layer.activation(_normalised(layer.conv(hidden), layer, statistics))
            else:
                hidden = layer(hidden)
        parts.append(hidden)
    return torch.cat(parts, dim=2)


def _first_norm(
    layer: Any, samples: Tensor, length: int, piece: int
) -> tuple[Tensor, Tensor] | None:
    """Mean and inverse spread per channel of the first layer's norm; ``None`` if it has none."""
    norm = getattr(layer, "layer_norm", None)
    if not isinstance(norm, nn.GroupNorm):
        return None
    kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
    # A piece of the first layer as long as a piece of features needs it.
    step = piece * 64
    fine = finest_dtype(samples.device)
    sums = torch.zeros(2, layer.conv.out_channels, dtype=fine, device=samples.device)
    for start in range(0, length, step):
        stop = min(start + step, length)
        part = samples[:, None, start * stride : (stop - 1) * stride + kernel]
        hidden = layer.conv(part)[0].to(fine)
        sums += torch.stack((hidden.sum(1), hidden.square().sum(1)))
    mean, square = sums / length
    spread = torch.rsqrt((square - mean.square()).clamp_min(0) + norm.eps)
    return mean.to(samples.dtype), spread.to(samples.dtype)


def _normalised(hidden: Tensor, layer: Any, statistics: tuple[Tensor, Tensor]) -> Tensor:
    mean, spread = statistics
    scale = spread * layer.layer_norm.weight
    shift = layer.layer_norm.bias - mean * scale
    return hidden * scale[:, None] + shift[:, None]


def _lengths(layers: list[Any], num_samples: int) -> list[int]:
    """Outputs of every layer."""
    lengths, size = [], num_samples
    for layer in layers:
        size = (size - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
        lengths.append(size)
    return lengths


def _needed_samples(layers: list[Any], start: int, stop: int) -> tuple[int, int]:
    """Samples that features ``start <= i < stop`` depend on."""
    first, last = start, stop
    for layer in reversed(layers):
        kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        first, last = first * stride, (last - 1) * stride + kernel
    return first, last
