"""The cache: keys before rotation and values of the sink and of the recent clean frames.

Decisions D3 and D4. Joint passes only read it. Memory is taken once: sink and context lie one
behind the other in a preallocated tensor per layer, so that a pass gets a view. What was never
written is NaN, so a wrong read is loud.
"""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.attention import KeysValues


class KeyValueCache:
    """Keys and values of every layer, ``(B, frames * P, N, K)``.

    Args:
        num_layers: Transformer layers.
        batch_size: Streams sampled together.
        tokens_per_frame: Tokens of one latent frame.
        num_heads: Attention heads.
        head_dim: Width of one head.
        sink_frames: First frames of the stream, never evicted.
        context_frames: Recent frames; the oldest leave first.
        dtype: Of keys and values.
        device: Where they live.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        batch_size: int,
        tokens_per_frame: int,
        num_heads: int,
        head_dim: int,
        sink_frames: int,
        context_frames: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.tokens_per_frame = tokens_per_frame
        self.sink_capacity = sink_frames
        self.context_capacity = context_frames
        self.sink: list[int] = []
        """Latent frame index of each sink frame held."""
        self.context: list[int] = []
        """Latent frame index of each context frame held, oldest first."""
        num_tokens = (sink_frames + context_frames) * tokens_per_frame
        shape = (batch_size, num_tokens, num_heads, head_dim)
        self._layers = [
            (
                torch.full(shape, float("nan"), dtype=dtype, device=device),
                torch.full(shape, float("nan"), dtype=dtype, device=device),
            )
            for _ in range(num_layers)
        ]

    @property
    def num_bytes(self) -> int:
        """Memory of all keys and values; constant from the start."""
        return sum(x.numel() * x.element_size() for pair in self._layers for x in pair)

    def append(self, keys_values: tuple[KeysValues, ...], first_frame: int) -> None:
        """Store clean frames: the sink first, then the context, whose oldest frames leave.

        Args:
            keys_values: Per layer, ``(B, F * P, N, K)`` keys before rotation and values.
            first_frame: Latent frame index of the first of the F frames.

        Raises:
            ConfigError: If the tokens are not whole frames.
        """
        num_tokens = keys_values[0][0].shape[1]
        num_frames, rest = divmod(num_tokens, self.tokens_per_frame)
        if rest:
            raise ConfigError(
                f"{num_tokens} tokens are not whole frames of {self.tokens_per_frame}"
            )
        sink, context = self.frames_with(range(first_frame, first_frame + num_frames))
        to_sink = len(sink) - len(self.sink)
        to_context = min(num_frames - to_sink, self.context_capacity)
        kept = len(context) - to_context
        for (keys, values), new in zip(self._layers, keys_values, strict=True):
            for stored, tokens in zip((keys, values), new, strict=True):
                self._write(stored, len(self.sink), tokens, 0, to_sink)
                self._keep_newest(stored, kept)
                newest = num_frames - to_context
                self._write(stored, self.sink_capacity + kept, tokens, newest, to_context)
        self.sink, self.context = sink, context

    def frames_with(self, frames: Sequence[int]) -> tuple[list[int], list[int]]:
        """The sink and context frames that are held once these have been appended."""
        to_sink = min(len(frames), self.sink_capacity - len(self.sink))
        sink = [*self.sink, *frames[:to_sink]]
        context = [*self.context, *frames[to_sink:]]
        return sink, context[max(len(context) - self.context_capacity, 0) :]

    def snapshot(self) -> "KeyValueCache":
        """A copy that later writes do not change.

        A pass with gradients reads from it: recomputation in the backward pass would otherwise
        see a cache that has moved on.
        """
        twin = copy.copy(self)
        twin.sink, twin.context = list(self.sink), list(self.context)
        twin._layers = [(keys.clone(), values.clone()) for keys, values in self._layers]
        return twin

    def read(self, *, num_sink: int, num_context: int) -> tuple[KeysValues, ...]:
        """Per layer, keys and values of the newest sink and context frames, sink first.

        A view where they lie side by side, else a copy; never to be written to.
        """
        spans = []
        if num_sink:
            spans.append((len(self.sink) - num_sink, len(self.sink)))
        if num_context:
            stop = self.sink_capacity + len(self.context)
            spans.append((stop - num_context, stop))
        if len(spans) == 2 and spans[0][1] == spans[1][0]:
            spans = [(spans[0][0], spans[1][1])]
        return tuple((self._read(keys, spans), self._read(values, spans))
                     for keys, values in self._layers)  # fmt: skip

    def _read(
        self, stored: Float[Tensor, "B S N K"], spans: list[tuple[int, int]]
    ) -> Float[Tensor, "B S2 N K"]:
        size = self.tokens_per_frame
        pieces = [stored[:, start * size : stop * size] for start, stop in spans]
        if not pieces:
            return stored[:, :0]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def _write(
        self, stored: Tensor, slot: int, tokens: Tensor, first_frame: int, num_frames: int
    ) -> None:
        size = self.tokens_per_frame
        source = tokens[:, first_frame * size : (first_frame + num_frames) * size]
        stored[:, slot * size : (slot + num_frames) * size] = source.detach()

    def _keep_newest(self, stored: Tensor, num_kept: int) -> None:
        """Move the newest ``num_kept`` context frames to the front of the context."""
        size = self.tokens_per_frame
        first = self.sink_capacity + len(self.context) - num_kept
        if num_kept and first != self.sink_capacity:
            moved = stored[:, first * size : (first + num_kept) * size].clone()
            start = self.sink_capacity * size
            stored[:, start : start + num_kept * size] = moved
