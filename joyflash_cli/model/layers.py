"""Norms, feed-forward part and modulation.

Norms and modulation are computed in float32 whatever the weights' dtype is.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from joyflash_cli.model.config import TransformerConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm over the whole width, with a learned gain."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*rest D"]) -> Float[Tensor, "*rest D"]:
        """The normalised ``x`` in float32."""
        exact, weight = x.float(), self.weight.float()
        if x.device.type != "cpu":
            return F.rms_norm(exact, x.shape[-1:], weight, self.eps)
        # PyTorch has no kernel of its own there and passes through memory twice as often.
        norm = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        return (exact * (norm.square() / x.shape[-1] + self.eps).rsqrt()).mul_(weight)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, in float32, with or without learned gain and offset."""

    def __init__(self, dim: int, eps: float, *, affine: bool) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine else None

    def forward(self, x: Float[Tensor, "*rest D"]) -> Float[Tensor, "*rest D"]:
        """The normalised ``x`` in float32."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), x.shape[-1:], weight, bias, self.eps)


class GeluLinear(nn.Linear):
    """A linear map with a GELU behind it, in its tanh approximation."""

    def forward(self, input: Float[Tensor, "*rest D"]) -> Float[Tensor, "*rest D2"]:  # noqa: A002
        """The mapped and activated input."""
        return F.gelu(super().forward(input), approximate="tanh")


class FeedForward(nn.Module):
    """Two linear maps with a tanh-GELU between."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int | None = None) -> None:
        super().__init__()
        self.input = GeluLinear(dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, out_dim or dim)

    def forward(self, x: Float[Tensor, "*rest D"]) -> Float[Tensor, "*rest D2"]:
        """The mapped ``x``."""
        return self.output(self.input(x))


class SiluProjection(nn.Module):
    """Two linear maps with a SiLU between."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.input = nn.Linear(in_dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "*rest D"]) -> Float[Tensor, "*rest D2"]:
        """The mapped ``x``."""
        return self.output(F.silu(self.input(x)))


def modulate(
    x_BLD: Float[Tensor, "B L D"],
    shift_BTD: Float[Tensor, "B T D"],
    scale_BTD: Float[Tensor, "B T D"],
) -> Float[Tensor, "B L D"]:
    """``x * (1 + scale) + shift``; all tokens of a latent frame share the frame's vectors."""
    frames = x_BLD.unflatten(1, (shift_BTD.shape[1], -1))
    return torch.addcmul(shift_BTD[:, :, None], frames, 1 + scale_BTD[:, :, None]).flatten(1, 2)


def add_gated(
    x_BLD: Float[Tensor, "B L D"],
    update_BLD: Float[Tensor, "B L D"],
    gate_BTD: Float[Tensor, "B T D"],
) -> Float[Tensor, "B L D"]:
    """``x + update * gate`` with one gate per latent frame, in the dtype of ``x``."""
    x, update = (part.unflatten(1, (gate_BTD.shape[1], -1)) for part in (x_BLD, update_BLD))
    gated = torch.addcmul(x, update.to(gate_BTD.dtype), gate_BTD[:, :, None])
    return gated.flatten(1, 2).to(x_BLD.dtype)


def add_per_frame(
    x_BLD: Float[Tensor, "B L D"], addition_BTD: Float[Tensor, "B T D"]
) -> Float[Tensor, "B L D"]:
    """``x`` with one vector per latent frame added to all its tokens, in the dtype of ``x``."""
    frames = x_BLD.unflatten(1, (addition_BTD.shape[1], -1))
    return (frames + addition_BTD[:, :, None]).flatten(1, 2).to(x_BLD.dtype)


class Head(nn.Module):
    """Modulated norm and the projection of a token to its patch (row, column, channel)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(2, config.dim))
        self.norm = LayerNorm(config.dim, config.eps, affine=False)
        self.projection = nn.Linear(config.dim, config.patch_area * config.out_channels)

    def forward(
        self, x_BLD: Float[Tensor, "B L D"], time_BTD: Float[Tensor, "B T D"]
    ) -> Float[Tensor, "B L D2"]:
        """One patch vector per token."""
        shift, scale = (self.modulation.float() + time_BTD[:, :, None].float()).unbind(dim=2)
        return self.projection(modulate(self.norm(x_BLD), shift, scale).to(x_BLD.dtype))
