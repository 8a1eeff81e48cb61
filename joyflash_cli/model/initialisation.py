"""Fresh weights of a transformer, before any training."""

import math

import torch
from torch import nn

from joyflash_cli.model.transformer import CausalTransformer


def initialise(model: CausalTransformer, generator: torch.Generator) -> CausalTransformer:
    """Fresh weights in place, Wan2.1's scheme, drawn from ``generator``; returns ``model``.

    What starts at zero by construction (new conditioning paths, the head) stays zero.
    """
    keep_zero = {
        id(module)
        for module in model.modules()
        if isinstance(module, nn.Linear)
        and not module.weight.is_meta
        and not module.weight.detach().any()
    } | {id(model.head.projection)}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        if id(module) in keep_zero:
            nn.init.zeros_(module.weight)
        elif name.startswith(("text_embedding", "time_embedding")):
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        else:
            nn.init.xavier_uniform_(module.weight, generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    std = 1 / math.sqrt(model.config.dim)
    for name, parameter in model.named_parameters():
        if name.endswith("modulation"):
            nn.init.normal_(parameter, std=std, generator=generator)
        elif name == "position_embedding":
            nn.init.normal_(parameter, std=0.02, generator=generator)
    return model
