"""Linear maps of the layers as a CPU's own kernels want them: oneDNN's, packed once.

PyTorch has oneDNN lay a weight out anew in every call, or has another library multiply. Its own
compiler packs weights when it freezes them, with two operators that are not public; they are used
where they are there and give what a linear map gives. oneDNN also computes the GELU behind the
feed-forward's first map while the numbers are at hand, from float32 where weights are bfloat16.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from joyflash_cli.model.layers import GeluLinear

PACKED_DTYPES = (torch.float32, torch.bfloat16)


class PackedLinear(nn.Module):
    """A linear map without parameters: no gradient, no ``state_dict``.

    Args:
        linear: What it computes from here on, the activation of ``GeluLinear`` included.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._activation = ("gelu", "tanh") if isinstance(linear, GeluLinear) else ("none", "")

    def forward(self, x: Float[Tensor, "*rest D"]) -> Float[Tensor, "*rest D2"]:
        """The mapped ``x``."""
        name, algorithm = self._activation
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, name, [], algorithm)


def pack_linear_maps(layers: nn.Module) -> None:
    """Replace every linear map inside ``layers``, in place, by its packed form if there is one.

    One after the other, so that never more than one weight is there twice.
    """
    dtypes = {parameter.dtype for parameter in layers.parameters()}
    usable = {dtype for dtype in dtypes if dtype in PACKED_DTYPES and _packs(dtype)}
    for module in list(layers.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and child.weight.dtype in usable:
                setattr(module, name, PackedLinear(child))


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN packs here, and computes the same as PyTorch."""
    linear = GeluLinear(48, 32).to(dtype).requires_grad_(False)
    x = torch.linspace(-2, 2, 5 * 48).view(5, 48).to(dtype)
    try:
        found = PackedLinear(linear)(x)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    exact = F.gelu(
        F.linear(x.float(), linear.weight.float(), linear.bias.float()), approximate="tanh"
    )
    return torch.allclose(found.float(), exact, rtol=4 * torch.finfo(dtype).eps, atol=1e-6)
