"""Decode only stretches of a stream: to look at minute five, four need not be drawn.

The sampler runs through the whole stream as always. Latents between the stretches are skipped by
the decoder, which starts again a little before each stretch: what it remembers of the stream
reaches back no further than its layers, one latent each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.codec.protocol import Codec, DelegatingCodec
from joyflash_cli.types import FRAMES_PER_LATENT

WARM_UP_LATENTS = 12


@dataclass(frozen=True)
class _StretchState:
    inner: Any
    frame_shape: torch.Size
    """``(3, H, W)``."""


class StretchCodec(DelegatingCodec):
    """``Codec`` that decodes the wanted frames only; all others come out grey.

    Args:
        codec: Decodes.
        stretches: Wanted frames as ``(first, last + 1)``.
    """

    def __init__(self, codec: Codec, stretches: Sequence[tuple[int, int]]) -> None:
        super().__init__(codec)
        self._stretches = stretches

    def start_decoding(self, reference: Float[Tensor, "B 3 H W"], **options: Any) -> _StretchState:
        """A fresh decoding state."""
        inner = super().start_decoding(reference, **options)
        return _StretchState(inner, reference.shape[1:])

    def decode(
        self, latents: Float[Tensor, "B T C h w"], state: _StretchState
    ) -> tuple[Float[Tensor, "B F 3 H W"], _StretchState]:
        """Frames of the next latents, grey where no stretch is near."""
        inner, chunks = state.inner, []
        for offset in range(latents.shape[1]):
            index = inner.num_latents
            if index == 0 or self._is_near(index):
                frames, inner = super().decode(latents[:, offset : offset + 1], inner)
            else:
                frames = latents.new_zeros(len(latents), FRAMES_PER_LATENT, *state.frame_shape)
                # Skipped latents count: what the codec adds of its own has its place in the stream.
                inner = replace(inner, num_latents=index + 1)
            chunks.append(frames)
        return torch.cat(chunks, dim=1), replace(state, inner=inner)

    def _is_near(self, index: int) -> bool:
        first = FRAMES_PER_LATENT * index - 3  # latent i > 0 is frames 4i - 3 .. 4i
        reach = FRAMES_PER_LATENT * WARM_UP_LATENTS
        return any(
            start - reach < first + FRAMES_PER_LATENT and first < stop
            for start, stop in self._stretches
        )
