"""From latents to the bytes of whole frames: what moves is decoded, what rests is put around it."""

from typing import TYPE_CHECKING, Any

from joyflash_cli.codec.protocol import Codec
from joyflash_cli.render.request import RenderRequest
from joyflash_cli.types import FRAMES_PER_LATENT, to_levels

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
            return to_levels(decoded[0])

        width, height = self._scene.size_px
        num_frames = FRAMES_PER_LATENT * latents.shape[1]
        if not self._state.num_latents:
            num_frames -= FRAMES_PER_LATENT - 1  # the first latent stands for a single frame
        frames = np.empty((num_frames, height, width, 3), np.uint8)
        done = 0
        for latent in latents.split(1, dim=1):  # of one latent alone, many pixels are enough
            levels, self._state = self._codec.decode(latent, self._state)
            self._fill(frames[done : done + levels.shape[1]], levels[0])
            done += levels.shape[1]
        return frames

    def _fill(self, frames: "np.ndarray", levels: "torch.Tensor") -> None:
        """Puts the part that moves ``(F, 3, h, w)`` into the picture around it."""
        assert self._scene is not None
        canvas = self._state.canvas
        bottom, right = canvas.top + canvas.height, canvas.left + canvas.width
        if (canvas.height, canvas.width) != self._scene.pixels.shape[:2]:
            frames[:] = self._scene.pixels
        frames[:, canvas.top : bottom, canvas.left : right] = levels.movedim(1, -1).cpu().numpy()
