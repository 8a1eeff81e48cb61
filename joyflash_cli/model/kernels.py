"""Attention kernels: which one computes softmax attention, and one that is written out.

PyTorch carries the fast kernels itself, so none has to be built. ``auto`` is right nearly always;
a named kernel is for measuring, and for machines where the automatic choice is a bad one.
"""

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

MAX_SCORES = 1 << 20
"""Scores that ``math`` holds at once: 2 MiB in bfloat16, which a cache holds beside the keys."""

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
    """The kernel that ``auto`` stands for on this device; any other name as it is.

    Compiled, pieces would make another graph for every number of them.
    """
    if backend != "auto":
        return backend
    is_written_out = device.type == "cpu" and dtype == torch.bfloat16
    return "math" if is_written_out and not torch.compiler.is_compiling() else "sdpa"


def attend_by_matmul(
    q_BNLK: Float[Tensor, "B N L K"],
    k_BNSK: Float[Tensor, "B N S K"],
    v_BNSK: Float[Tensor, "B N S K"],
    mask: Bool[Tensor, "*#heads #L S"] | None = None,
    *,
    max_scores: int = MAX_SCORES,
) -> Float[Tensor, "B N L K"]:
    """Attention written out, for as many heads and queries at once as ``max_scores`` allows.

    Head by head first: many queries against the keys of one head are faster than few against all.
    The softmax kernel computes in float32 inside and rounds its result; handing it a float32 copy
    of the scores would change no bit and take eight times as long.
    """
    batch, num_heads, num_queries = q_BNLK.shape[:3]
    num_keys = k_BNSK.shape[2]
    if batch * num_heads * num_queries * num_keys <= max_scores:
        return _attend_queries(q_BNLK, k_BNSK, v_BNSK, mask)
    if mask is not None:
        mask = mask.expand(batch, num_heads, num_queries, num_keys)
    heads = max(max_scores // (batch * num_queries * num_keys), 1)
    queries = max(max_scores // (batch * heads * num_keys), 1)
    by_head = []
    for head in range(0, num_heads, heads):
        q, k, v = (x[:, head : head + heads] for x in (q_BNLK, k_BNSK, v_BNSK))
        seen = None if mask is None else mask[:, head : head + heads]
        pieces = [
            _attend_queries(
                q[:, :, start : start + queries],
                k,
                v,
                None if seen is None else seen[:, :, start : start + queries],
            )
            for start in range(0, num_queries, queries)
        ]
        by_head.append(torch.cat(pieces, dim=2))
    return torch.cat(by_head, dim=1)


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
