"""Smooth joints in time: what a latent draws a shade differently comes in over its four frames.

Every latent is encoded on its own, so what the codec gets wrong changes with every fourth frame
and stands still in between: a faint pulse, as blocks of a compressed picture show faint edges.
Small jumps are spread over the four frames, as deblocking filters do in space. Large ones are
real and stay as they are. Pixels alone would not do: where an edge moves they jump far, so the
motion that the latents tell is smoothed first, and what is left of the jump in the pixels after it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

SHARES = (0.75, 0.5, 0.25, 0.0)
"""How much of the jump each frame gives back; the steps between frames are then equal."""

OWN_MOTION = 0.5
"""Share of the change inside the latent that is expected across the joint as well."""


def smooth_seam(
    frames: Float[Tensor, "B T C H W"], previous: Float[Tensor, "B C H W"], *, limit: float
) -> Float[Tensor, "B T C H W"]:
    """The four frames of a latent, joined to the frame before them.

    Args:
        frames: Of one latent: pixels in -1..1, or flow in pixels.
        previous: The last one before them, as it was shown.
        limit: Jumps of this size, in the frames' units, are spread by a third; smaller ones almost
            whole, much larger ones not at all. 0 changes nothing.
    """
    if not limit:
        return frames
    jump = frames[:, 0] - previous - OWN_MOTION * (frames[:, 1] - frames[:, 0])
    jump = jump * torch.exp(-((jump / limit) ** 2))
    shares = frames.new_tensor(SHARES)[:, None, None, None]
    return frames - shares * jump[:, None]
