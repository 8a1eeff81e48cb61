"""Kernels: which one computes softmax attention, one written out, and a faster GELU for CPUs.

PyTorch carries the fast kernels itself, so none has to be built. ``auto`` is right nearly always;
a named kernel is for measuring, and for machines where the automatic choice is a bad one.
"""

import math
import warnings
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from joyflash_cli.errors import ConfigError, DeviceError, UsageError

AttentionBackend = Literal["auto", "sdpa", "math", "flash", "cudnn"]
"""``sdpa``: PyTorch chooses; ``math``: written out, in pieces; the others: that very kernel."""

BACKENDS: tuple[str, ...] = get_args(AttentionBackend)

FUSED = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}

MAX_SCORES = 1 << 22
"""Scores that ``math`` holds at once: 8 MiB in bfloat16, which a cache holds beside the keys."""

GELU_ELEMENTS = 1 << 15
"""Numbers that ``gelu_tanh`` computes at once on a CPU; its intermediate results stay in cache."""

PROBE_TOKENS = 128


def attend(
    q_BLNK: Float[Tensor, "B L N K"],
    k_BSNK: Float[Tensor, "B S N K"],
    v_BSNK: Float[Tensor, "B S N K"],
    mask: Bool[Tensor, "*#heads #L S"] | None = None,
    *,
    backend: AttentionBackend = "auto",
) -> Float[Tensor, "B L N K"]:
    """Softmax attention; ``mask`` is True where a query may see a key.

    The only place that chooses a kernel. PyTorch's fused attention is slow for bfloat16 on a CPU;
    there two matrix products with a softmax between are two to three times faster.

    Raises:
        ConfigError: When a fused kernel is named and there is a mask, which it cannot take.
    """
    q, k, v = (x.transpose(1, 2) for x in (q_BLNK, k_BSNK, v_BSNK))
    if q.device.type == "cpu":
        # The products on a CPU want every head in one piece; keys joined by ``cat`` are so already.
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    if resolve_backend(backend, q.device, q.dtype) == "math":
        return attend_by_matmul(q, k, v, mask).transpose(1, 2)
    if backend not in FUSED:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
    if mask is not None:
        raise ConfigError(
            f"attention {backend!r} takes no mask", hint="use 'auto', 'sdpa' or 'math' for training"
        )
    with sdpa_kernel(FUSED[backend]):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def resolve_backend(
    backend: AttentionBackend, device: torch.device, dtype: torch.dtype
) -> AttentionBackend:
    """The kernel that ``auto`` stands for on this device; any other name as it is."""
    if backend != "auto":
        return backend
    return "math" if device.type == "cpu" and dtype == torch.bfloat16 else "sdpa"


def attend_by_matmul(
    q_BNLK: Float[Tensor, "B N L K"],
    k_BNSK: Float[Tensor, "B N S K"],
    v_BNSK: Float[Tensor, "B N S K"],
    mask: Bool[Tensor, "*#heads #L S"] | None = None,
    *,
    max_scores: int = MAX_SCORES,
) -> Float[Tensor, "B N L K"]:
    """Attention written out, for as many queries at once as ``max_scores`` allows.

    The softmax kernel computes in float32 inside and rounds its result; handing it a float32 copy
    of the scores would change no bit and take eight times as long.
    """
    num_queries = q_BNLK.shape[-2]
    scores_per_query = k_BNSK.shape[0] * k_BNSK.shape[1] * k_BNSK.shape[2]
    step = max(max_scores // max(scores_per_query, 1), 1)
    if step >= num_queries:
        return _attend_queries(q_BNLK, k_BNSK, v_BNSK, mask)
    pieces = [
        _attend_queries(
            q_BNLK[:, :, start : start + step],
            k_BNSK,
            v_BNSK,
            mask if mask is None or mask.shape[-2] == 1 else mask[..., start : start + step, :],
        )
        for start in range(0, num_queries, step)
    ]
    return torch.cat(pieces, dim=2)


def _attend_queries(
    q_BNLK: Float[Tensor, "B N L K"],
    k_BNSK: Float[Tensor, "B N S K"],
    v_BNSK: Float[Tensor, "B N S K"],
    mask: Bool[Tensor, "*#heads #L S"] | None,
) -> Float[Tensor, "B N L K"]:
    scores = (q_BNLK * q_BNLK.shape[-1] ** -0.5) @ k_BNSK.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v_BNSK


def gelu_tanh(x: Float[Tensor, "*rest D"]) -> Float[Tensor, "*rest D"]:
    """GELU in its tanh approximation, computed in float32.

    PyTorch's kernel spends most of its time in ``tanh`` on a CPU. There, and where no gradient is
    wanted, the same function is ``x * sigmoid(2u)`` for ``0.5 * x * (1 + tanh(u))``. A compiler
    fuses PyTorch's own, and would make another graph for every number of pieces.
    """
    is_wanted = not (x.requires_grad and torch.is_grad_enabled())
    if x.device.type != "cpu" or torch.compiler.is_compiling() or not is_wanted:
        return F.gelu(x, approximate="tanh")
    scale = 2 * (2 / math.pi) ** 0.5
    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    pieces = zip(
        x.flatten().split(GELU_ELEMENTS), result.view(-1).split(GELU_ELEMENTS), strict=True
    )
    for piece, target in pieces:
        exact = piece.float()
        inner = (exact * exact).mul_(0.044715 * scale).add_(scale).mul_(exact)
        target.copy_(inner.sigmoid_().mul_(exact))
    return result


def check_backend(
    backend: str, *, device: torch.device, dtype: torch.dtype, head_dim: int
) -> AttentionBackend:
    """``backend``, after it has computed something small in exactly this setting.

    Raises:
        UsageError: When there is no such kernel.
        DeviceError: When it does not run on this device, in this number format or head width.
    """
    if backend not in BACKENDS:
        raise UsageError(
            f"attention {backend!r} does not exist", hint=f"one of {', '.join(BACKENDS)}"
        )
    reason = _why_not(backend, device, dtype, head_dim)
    if reason is None:
        return backend  # type: ignore[return-value]
    usable = usable_backends(device=device, dtype=dtype, head_dim=head_dim)
    raise DeviceError(
        f"attention {backend!r} does not run on {device} in {str(dtype).removeprefix('torch.')} "
        f"with heads of {head_dim}: {reason}",
        hint=f"here --attention can be {', '.join(usable)}",
        code="E-DEVICE-ATTENTION",
    )


def usable_backends(*, device: torch.device, dtype: torch.dtype, head_dim: int) -> tuple[str, ...]:
    """Names of the kernels that run in this setting, each tried."""
    return tuple(name for name in BACKENDS if _why_not(name, device, dtype, head_dim) is None)


def _why_not(backend: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """What the kernel says when it refuses; ``None`` when it runs."""
    probe = torch.zeros(1, PROBE_TOKENS, 2, head_dim, device=device, dtype=dtype)
    try:
        with warnings.catch_warnings():
            # PyTorch warns once for every kernel it left out; the error says enough.
            warnings.simplefilter("ignore")
            attend(probe, probe, probe, backend=backend)  # type: ignore[arg-type]
    except (RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0].rstrip(". ")
    return None
