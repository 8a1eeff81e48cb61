"""The transformers of public checkouts in their steady state, for ``references.py``."""

import functools
import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZES = {
    # Width, layers, and the latent frame; a token is 2 x 2 of it.
    "384": (384, 6, (20, 32)),
    "256": (256, 8, (12, 16)),
    "1536": (1536, 1, (20, 32)),
    "small": (128, 2, (8, 8)),
}
HEAD_DIM, FEED_FORWARD = 128, 35 / 6
TEXT_TOKENS, TEXT_DIM = 512, 256
BLOCK_FRAMES = 3
UNUSED = (
    "gpu", "get_cuda_free_memory_gb", "DynamicSwapInstaller", "log_gpu_memory", "DEBUG",
)  # fmt: skip


class Reference:
    """The transformer of a checkout in its steady state.

    Args:
        checkout: Folder with ``wan/modules/causal_model.py``.
        size: Key of ``SIZES``.
        dtype: Of weights and cache.
        attention: What computes attention, of ``(B, L, N, K)`` each.
    """

    def __init__(self, checkout: Path, size: str, dtype: Any, attention: Callable) -> None:
        import torch

        width, layers, self._grid = SIZES[size]
        self._is_rolling = checkout.name == "RollingForcing"
        self._attention = attention
        self._kept = {"LongLive": 12}.get(checkout.name, 21)
        heads = width // HEAD_DIM
        self._tokens = self._grid[0] * self._grid[1] // 4
        model = causal_model(checkout, lambda *heads: self._attention(*heads))(
            dim=width, num_layers=layers, num_heads=heads, ffn_dim=round(FEED_FORWARD * width),
            text_dim=TEXT_DIM, text_len=TEXT_TOKENS, local_attn_size=self._kept,
            sink_size=3 if checkout.name == "LongLive" else 0,
        )  # fmt: skip
        self._model = model.to(dtype).eval().requires_grad_(False)
        for block in self._model.blocks:
            # Written for 1560 tokens a frame.
            block.self_attn.frame_length = self._tokens
            block.self_attn.block_length = BLOCK_FRAMES * self._tokens
            block.self_attn.max_attention_size = self._kept * self._tokens
        frames = 24 if self._is_rolling else self._kept
        shape = (1, frames * self._tokens, heads, HEAD_DIM)
        text = (1, TEXT_TOKENS, heads, HEAD_DIM)
        self._cache = [
            {
                "k": torch.randn(shape, dtype=dtype),
                "v": torch.randn(shape, dtype=dtype),
                "global_end_index": torch.tensor([frames * self._tokens]),
                "local_end_index": torch.tensor([frames * self._tokens]),
            }
            for _ in range(layers)
        ]
        self._text = [
            {
                "k": torch.randn(text, dtype=dtype),
                "v": torch.randn(text, dtype=dtype),
                "is_init": True,
            }
            for _ in range(layers)
        ]
        self._context = [torch.zeros(TEXT_TOKENS, TEXT_DIM, dtype=dtype)]
        self._dtype, self._start = dtype, frames
        self._noise = torch.randn(1, 16, 5 * BLOCK_FRAMES, *self._grid, dtype=dtype)

    def block(self) -> None:
        """One more: its denoising passes, and the pass that caches the clean block."""
        if self._is_rolling:
            steps = [t for t in (0, 250, 500, 750, 1000) for _ in range(BLOCK_FRAMES)]
            self._pass(self._noise, steps)
            self._pass(self._noise[:, :, :BLOCK_FRAMES], [0] * BLOCK_FRAMES, updating_cache=True)
        else:
            for step in (1000, 750, 500, 250, 0):
                self._pass(self._noise[:, :, :BLOCK_FRAMES], [step] * BLOCK_FRAMES)
        self._start += BLOCK_FRAMES

    def write_attention_out(self) -> None:
        """As :class:`Product`'s."""
        from joyflash_cli.model.kernels import attend

        self._attention = functools.partial(attend, backend="math")

    def _pass(self, latents: Any, steps: list[int], **options: Any) -> None:
        import torch

        start = self._start * self._tokens
        self._model(
            latents, t=torch.tensor([steps]), context=self._context, seq_len=1 << 20,
            kv_cache=self._cache, crossattn_cache=self._text, current_start=start,
            cache_start=start, **options,
        )  # fmt: skip


def causal_model(checkout: Path, attention: Callable) -> type:
    """The checkout's own class, loaded without what its packages import beside it."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("wan", "utils")]:
        del sys.modules[name]
    for name in ("wan", "wan.modules", "utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout.joinpath(*name.split(".")))]
        sys.modules[name] = package
    # Of LongLive: asks for a GPU when it is imported, and only prints.
    for name in ("utils.memory", "utils.debug_option"):
        quiet = types.ModuleType(name)
        quiet.__dict__.update(dict.fromkeys(UNUSED))
        sys.modules[name] = quiet
    loaded = importlib.import_module("wan.modules.causal_model")

    def attend(q: Any, k: Any, v: Any, **_options: Any) -> Any:
        return attention(q, k, v)

    loaded.attention = attend  # as shipped it wants a GPU, or computes in bfloat16 alone
    sys.modules["wan.modules.model"].flash_attention = attend
    return loaded.CausalWanModel


def plain_attention(q: Any, k: Any, v: Any) -> Any:
    """PyTorch's, of ``(B, L, N, K)``."""
    import torch

    heads = (x.transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2)
