"""Weights in CPU memory that visit the device one linear map at a time.

Nearly all of a large transformer is the linear maps of its layers. Each is copied in just before it
computes and dropped right after, so the device never holds more than one of them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def offload_linear_maps(layers: nn.Module, device: torch.device) -> None:
    """Keep the linear maps of ``layers`` in CPU memory; everything else goes to ``device``.

    The copies are queued on the device's own stream, in order with the computation, out of
    page-locked memory where the device is a GPU.

    Args:
        layers: With its weights in CPU memory. Changed in place.
        device: Where it computes.
    """
    linear_maps = [module for module in layers.modules() if isinstance(module, nn.Linear)]
    host = {id(module): _host_parameters(module, device) for module in linear_maps}
    layers.to(device)
    for module in linear_maps:
        kept = host[id(module)]
        _hold(module, kept)
        module.register_forward_pre_hook(_fetch(kept, device))
        module.register_forward_hook(_release(kept))


def _host_parameters(module: nn.Linear, device: torch.device) -> dict[str, nn.Parameter]:
    """The weights, and in the module empty ones in their place while the rest is moved."""
    kept = {}
    for name, parameter in module.named_parameters(recurse=False):
        value = parameter.data
        if device.type == "cuda":
            value = value.pin_memory()
        kept[name] = nn.Parameter(value, requires_grad=False)
    _hold(module, {name: nn.Parameter(value.data[:0], requires_grad=False)
                   for name, value in kept.items()})  # fmt: skip
    return kept


def _hold(module: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        module.register_parameter(name, parameter)


def _fetch(
    kept: dict[str, nn.Parameter], device: torch.device
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def fetch(module: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        visiting = {
            name: nn.Parameter(
                value.data.to(device, non_blocking=True, copy=True), requires_grad=False
            )
            for name, value in kept.items()
        }
        _hold(module, visiting)

    return fetch


def _release(
    kept: dict[str, nn.Parameter],
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def release(module: nn.Module, _inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        _hold(module, kept)

    return release
