"""From latents to the bytes of whole frames: what moves is decoded, what rests is put around it."""

from typing import TYPE_CHECKING, Any

from joyflash_cli.codec.protocol import Codec
from joyflash_cli.pipeline.request import RenderRequest

if TYPE_CHECKING:
    import numpy as np
    import torch


class SceneDecoder:
    """Decodes one stream, in order.

    Args:
        codec: Of the checkpoint; one that draws into scenes if the request has one.
        reference: What it takes as its reference, ``(1, 3, H, W)`` in -1..1.
        request: Says what the video shows.
    """

    def __init__(self, codec: Codec, reference: "torch.Tensor", request: RenderRequest) -> None:
        self._codec = codec
        self._scene = request.scene
        self._state: Any
        if self._scene is None:
            self._state = codec.start_decoding(reference, seed=request.seed)
        else:
            painter: Any = codec
            self._state = painter.start_decoding(reference, seed=request.seed, scene=self._scene)

    def decode(self, latents: "torch.Tensor") -> "np.ndarray":
        """Frames ``(F, H, W, 3)`` uint8 of the next latents ``(1, T, C, h, w)``."""
        import numpy as np

        if self._scene is None:
            decoded, self._state = self._codec.decode(latents, self._state)
            return _to_bytes(decoded[0].float())
        parts = []
        for latent in latents.split(1, dim=1):  # what a scene needs at once is large
            levels, self._state = self._codec.decode(latent, self._state)
            parts.append(self._around(levels[0].movedim(1, -1).cpu().numpy()))
        return np.concatenate(parts)

    def _around(self, changed: "np.ndarray") -> "np.ndarray":
        """Whole frames of the part ``(F, h, w, 3)`` that changes."""
        import numpy as np

        assert self._scene is not None
        if changed.shape[1:] == self._scene.pixels.shape:
            return changed
        canvas = self._state.canvas
        frames = np.repeat(self._scene.pixels[None], len(changed), axis=0)
        rows = slice(canvas.top, canvas.top + canvas.height)
        frames[:, rows, canvas.left : canvas.left + canvas.width] = changed
        return frames


def _to_bytes(decoded: "torch.Tensor") -> "np.ndarray":
    """RGB bytes ``(F, H, W, 3)`` of frames ``(F, 3, H, W)`` in -1..1."""
    import torch

    levels = (decoded.clamp(-1, 1) + 1.0) * 127.5
    return levels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
